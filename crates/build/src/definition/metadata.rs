//! What a stage's sections put into `.singularity.d` and `/scif`: files to write, decided from what is there. Pure
//! (apptainer `internal/pkg/build/metadata.go`).

use siforge_definition::{Stage, render};
use siforge_sif::image_config::{self, BASE_FOLDER, Base};
use std::collections::BTreeMap;

/// A file to write, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) bytes: Vec<u8>,
}

/// What decides besides the stage.
pub(crate) struct Facts<'a> {
    /// What `.singularity.d` holds now.
    pub(crate) base: &'a Base,
    /// The whole definition file.
    pub(crate) text: &'a str,
    pub(crate) architecture: &'a str,
    /// Unix seconds.
    pub(crate) now: i64,
    /// Labels and help of the base give way.
    pub(crate) force: bool,
    /// Names of the sections that count.
    pub(crate) wanted: &'a dyn Fn(&str) -> bool,
    /// Labels that %post wrote to $APPTAINER_LABELS.
    pub(crate) post_labels: &'a [(String, String)],
}

const DEFINITION: &str = "Singularity";

/// What the sections of `stage` put there, and what the user should know.
pub(crate) fn sections(stage: &Stage, facts: &Facts<'_>) -> Result<(Vec<Put>, Vec<String>), image_config::Error> {
    let Facts { base, text, wanted, .. } = facts;
    let mut warnings = Vec::new();
    let mut put = Vec::new();
    let mut file = |path: &str, mode: u32, bytes: Vec<u8>| {
        put.push(Put { path: format!("{BASE_FOLDER}{path}"), mode, bytes });
    };
    let section = |name: &str, script: &Option<siforge_definition::Script>| {
        script.clone().filter(|script| wanted(name) && !script.text.is_empty())
    };
    let help = section("help", &stage.help);
    match (&help, base.files.contains_key("runscript.help") && !facts.force) {
        (Some(_), true) => warnings.push("the base has a help text, which stays: --force takes %help's".to_owned()),
        (Some(help), false) => file("runscript.help", 0o644, render::help(help).into_bytes()),
        (None, _) => {}
    }
    if let Some(old) = base.files.get(DEFINITION) {
        let number = base.files.keys().filter(|name| name.starts_with("bootstrap_history/")).count();
        file(&format!("bootstrap_history/Apptainer{number}"), 0o644, old.clone());
    }
    file(DEFINITION, 0o644, text.as_bytes().to_vec());
    if let Some(script) = section("environment", &stage.environment) {
        let path = "env/90-environment.sh";
        let old = base.files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        file(path, 0o755, render::environment(old.as_deref(), &script).into_bytes());
    }
    let scripts = [("startscript", &stage.startscript), ("runscript", &stage.runscript), ("test", &stage.test)];
    for (name, script) in scripts {
        if let Some(script) = section(name, script) {
            file(name, 0o755, render::script(&script).into_bytes());
        }
    }
    let labels = labels(stage, facts, help.is_some(), &mut warnings);
    file("labels.json", 0o644, image_config::labels_json(&labels)?);
    Ok((put, warnings))
}

fn labels(stage: &Stage, facts: &Facts<'_>, help: bool, warnings: &mut Vec<String>) -> BTreeMap<String, String> {
    let there = facts.base.files.get("labels.json").and_then(|json| siforge_sif::inspect::parse_labels(json).ok());
    let mut labels = there.unwrap_or_default();
    // Those of the base's header tell of another file.
    labels.retain(|name, _| !name.starts_with("org.label-schema.usage.singularity.deffile."));
    labels.extend(facts.post_labels.iter().cloned());
    labels.extend(image_config::build_labels(facts.architecture, facts.now));
    if help {
        for name in ["usage", "usage.apptainer.runscript.help"] {
            labels.insert(format!("org.label-schema.{name}"), "/.singularity.d/runscript.help".to_owned());
        }
    }
    labels.extend(render::header_labels(&stage.header));
    if (facts.wanted)("labels") {
        let own: BTreeMap<_, _> = stage.labels.iter().cloned().collect();
        for (name, value) in own {
            if !facts.force && labels.get(&name).is_some_and(|old| *old != value) {
                warnings.push(format!("the label {name} is there already and stays: --force takes %labels'"));
            } else {
                labels.insert(name, value);
            }
        }
    }
    labels
}

/// What the stage's apps are made of before `%post` runs; a directory has no bytes.
pub(crate) fn apps(stage: &Stage) -> Result<Vec<(Put, bool)>, image_config::Error> {
    let mut all = Vec::new();
    for app in &stage.apps {
        for item in render::app(app) {
            let directory = item.contents.is_none();
            let bytes = item.contents.unwrap_or_default().into_bytes();
            all.push((Put { path: item.path, mode: item.mode.into(), bytes }, directory));
        }
        let bytes = image_config::labels_json(&render::app_labels(app))?;
        all.push((Put { path: render::app_labels_path(app), mode: 0o644, bytes }, false));
    }
    if !stage.apps.is_empty() {
        let path = format!("{BASE_FOLDER}env/94-appsbase.sh");
        let bytes = render::apps_environment(&stage.apps).into_bytes();
        all.push((Put { path, mode: 0o755, bytes }, false));
    }
    Ok(all)
}

/// `NAME VALUE` lines, as %post writes them to $APPTAINER_LABELS.
pub(crate) fn label_lines(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        (name.to_owned(), value.trim().to_owned())
    };
    lines.map(pair).collect()
}
