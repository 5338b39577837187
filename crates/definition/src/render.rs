//! What a stage puts into an image. Pure; our own text with the reference's meaning (apptainer
//! `internal/pkg/build/{metadata,stage}.go`, `apps/apps.go`).
//!
//! ```text
//! /.singularity.d/runscript startscript test     [`script`]
//! /.singularity.d/env/90-environment.sh          [`environment`], after what the base had
//! /.singularity.d/env/94-appsbase.sh             [`apps_environment`]
//! /scif/apps/NAME/{bin,lib}                      [`app`]
//!                 scif/{env/{01-base,90-environment}.sh,runscript,startscript,test,runscript.help,labels.json}
//! /scif/data/NAME/{input,output}
//! ```

use crate::{App, Header, Script};
use std::collections::BTreeMap;

/// A directory (`contents` None) or a file, relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub path: String,
    pub mode: u16,
    pub contents: Option<String>,
}

/// A run, start or test script: a shebang of its own counts, and the section's options follow it.
pub fn script(script: &Script) -> String {
    let (mut shebang, text) = match script.text.trim_start().starts_with("#!") {
        // The reference takes the first line, which is empty where the shebang stands further down: no script at all.
        true => {
            let text = script.text.trim_start();
            let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
            (first.trim_end().to_owned(), rest)
        }
        false => ("#!/bin/sh".to_owned(), script.text.as_str()),
    };
    if !script.options.is_empty() {
        shebang = format!("{shebang} {}", script.options);
    }
    format!("{shebang}\n\n{text}\n")
}

/// The environment script, after what is there already.
pub fn environment(base: Option<&str>, script: &Script) -> String {
    format!("{}\n{}\n", base.unwrap_or("#!/bin/sh\n"), script.text)
}

/// `%help`, as the image keeps it.
pub fn help(script: &Script) -> String {
    format!("{}\n", script.text)
}

/// The words that run a script that lies at `path`: a shell that stops at the first error and shows what it does, or what
/// the section's options say (`-c SHELL ARGUMENTS` runs that shell on the script).
pub fn command(script: &Script, path: &str) -> Vec<String> {
    let mut words: Vec<String> = ["/bin/sh", "-ex"].map(str::to_owned).to_vec();
    let options: Vec<&str> = script.options.split_whitespace().collect();
    match options.iter().position(|word| *word == "-c") {
        Some(at) => {
            words.extend(options[..=at].iter().map(|word| (*word).to_owned()));
            let mut shell = options[at + 1..].to_vec();
            shell.push(path);
            words.push(shell.join(" "));
        }
        None => {
            words.extend(options.iter().map(|word| (*word).to_owned()));
            words.push(path.to_owned());
        }
    }
    words
}

/// Labels that tell of a header.
pub fn header_labels(header: &Header) -> BTreeMap<String, String> {
    let label = |name: String| format!("org.label-schema.usage.singularity.deffile.{name}");
    header.fields.iter().map(|field| (label(field.keyword.name()), field.value.clone())).collect()
}

/// What an app is made of before its install script runs, parents before children, but its copied files and its
/// labels.json ([`app_labels`]).
pub fn app(app: &App) -> Vec<Rendered> {
    let App { name, environment, run, start, test, help, .. } = app;
    let root = format!("scif/apps/{name}");
    let data = format!("scif/data/{name}");
    let mut all = Vec::new();
    let parents = ["scif".to_owned(), "scif/apps".to_owned(), "scif/data".to_owned()];
    let own = ["", "/bin", "/lib", "/scif", "/scif/env"].map(|below| format!("{root}{below}"));
    let places = ["", "/input", "/output"].map(|below| format!("{data}{below}"));
    let directories = parents.into_iter().chain(own).chain(places);
    all.extend(directories.map(|path| Rendered { path, mode: 0o755, contents: None }));
    let mut file = |path: &str, mode, contents: String| {
        all.push(Rendered { path: format!("{root}/scif/{path}"), mode, contents: Some(contents) });
    };
    file("env/01-base.sh", 0o755, base(name));
    let text = |script: &Option<Script>| script.as_ref().map(|script| script.text.clone());
    if let Some(text) = text(environment) {
        file("env/90-environment.sh", 0o755, text);
    }
    for (path, script) in [("runscript", run), ("startscript", start), ("test", test)] {
        if let Some(text) = text(script) {
            file(path, 0o755, format!("#!/bin/sh\n\n{text}\n"));
        }
    }
    if let Some(text) = text(help) {
        file("runscript.help", 0o644, text);
    }
    all
}

/// Where an app's labels lie.
pub fn app_labels_path(app: &App) -> String {
    format!("scif/apps/{}/scif/labels.json", app.name)
}

/// An app's labels.
pub fn app_labels(app: &App) -> BTreeMap<String, String> {
    let name = ("SCIF_APP_NAME".to_owned(), app.name.clone());
    std::iter::once(name).chain(app.labels.iter().cloned()).collect()
}

/// Where the files of an app are copied to: below its own directory.
pub fn app_destination(app: &App, destination: &str) -> String {
    format!("/scif/apps/{}/{}", app.name, destination.trim_start_matches('/'))
}

/// The app's own environment.
fn base(name: &str) -> String {
    format!(
        "#!/bin/sh\n\
         SCIF_APPNAME={name}\n\
         SCIF_APPROOT=\"/scif/apps/{name}\"\n\
         SCIF_APPMETA=\"/scif/apps/{name}/scif\"\n\
         SCIF_DATA=\"/scif/data\"\n\
         SCIF_APPDATA=\"/scif/data/{name}\"\n\
         SCIF_APPINPUT=\"/scif/data/{name}/input\"\n\
         SCIF_APPOUTPUT=\"/scif/data/{name}/output\"\n\
         export SCIF_APPNAME SCIF_APPROOT SCIF_APPMETA SCIF_DATA SCIF_APPDATA SCIF_APPINPUT SCIF_APPOUTPUT\n"
    )
}

/// What all commands in the image see of its apps. A name that a variable cannot have is changed in the variable, and not
/// in the path, where the reference changes it too and so points at nothing.
pub fn apps_environment(apps: &[App]) -> String {
    let mut text = String::new();
    for app in apps {
        let name = &app.name;
        let variable: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let root = format!("/scif/apps/{name}");
        let mut export = |what: &str, value: String| {
            text.push_str(&format!("SCIF_APP{what}_{variable}=\"{value}\"\nexport SCIF_APP{what}_{variable}\n"));
        };
        export("DATA", format!("/scif/data/{name}"));
        export("META", format!("{root}/scif"));
        export("ROOT", root.clone());
        export("BIN", format!("{root}/bin"));
        export("LIB", format!("{root}/lib"));
        export("LABELS", format!("{root}/scif/labels.json"));
        let there = [("ENV", &app.environment, "env/90-environment.sh"), ("RUN", &app.run, "runscript")];
        for (what, script, path) in there.into_iter().chain([("START", &app.start, "startscript")]) {
            if script.is_some() {
                export(what, format!("{root}/scif/{path}"));
            }
        }
    }
    text
}

/// What is run after `%post` for the apps.
pub fn install(apps: &[App]) -> String {
    let one = |app: &App| {
        let (root, text) = (format!("/scif/apps/{}", app.name), app.install.as_ref().map_or("", |script| &script.text));
        format!("\ncd /\n. {root}/scif/env/01-base.sh\ncd {root}\n{text}\ncd /\n")
    };
    apps.iter().map(one).collect()
}
