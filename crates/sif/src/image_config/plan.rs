//! What an image holds beside its layers. Pure; the same for the same config, source and labels.

use super::metadata::{self, Attributes};
use super::parse::variables;
use super::{Base, Error, ImageConfig, scripts};
use crate::format::DataType;
use crate::gojson;
use crate::writer::Object;
use std::collections::BTreeMap;

/// Where the image came from, for labels and the definition object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `docker`.
    pub bootstrap: String,
    /// The canonical reference for `from:` (`godlovedc/lolcow@sha256:…`).
    pub from: String,
    /// Unix seconds that stand for "when": SOURCE_DATE_EPOCH, say. None: the config's created, else 0.
    pub time: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    Regular(Vec<u8>),
    Symlink(String),
}

/// An entry of the topmost layer; owner 0:0, mtime [`Contents::created`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Relative to the root, without a leading slash: `.singularity.d/env`.
    pub path: String,
    /// Permission bits; 0o777 for symlinks.
    pub mode: u16,
    pub kind: FileKind,
}

/// A directory (or, in [`Contents::missing_files`], an empty file) to make only where nothing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingDir {
    pub path: &'static str,
    pub mode: u16,
}

/// All that is added to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Parents before children.
    pub files: Vec<ImageFile>,
    /// The definition object, equal to `.singularity.d/Singularity`.
    pub definition: Vec<u8>,
    pub inspect_json: Vec<u8>,
    /// Equal to `.singularity.d/oci-config.json`; empty when the image has none.
    pub oci_config_json: Vec<u8>,
    /// Unix seconds: the mtime of `files`, the SIF's time.
    pub created: i64,
    /// Parents first.
    pub missing_dirs: Vec<MissingDir>,
    /// Mode 0644, empty.
    pub missing_files: Vec<MissingDir>,
}

impl Contents {
    /// The objects before the partition, in order.
    pub fn objects(&self) -> Vec<Object> {
        let object = |datatype, name: &str, bytes: &[u8]| Object {
            datatype,
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            extra: Vec::new(),
        };
        let mut objects = vec![
            object(DataType::DefinitionFile, "", &self.definition),
            object(DataType::GenericJson, crate::inspect::OBJECT_NAME, &self.inspect_json),
        ];
        if !self.oci_config_json.is_empty() {
            objects.push(object(DataType::GenericJson, OCI_CONFIG_NAME, &self.oci_config_json));
        }
        objects
    }
}

/// Name of the object, and of the file in `.singularity.d`, that holds the image config's `config`.
pub const OCI_CONFIG_NAME: &str = "oci-config.json";

/// Plans what is added to an image of `config`. `labels` are the recipe's, over the image's own.
pub fn plan(config: &ImageConfig, source: &Source, labels: &BTreeMap<String, String>) -> Result<Contents, Error> {
    plan_over(config, source, labels, &Base::default())
}

/// The same for a tree that may have been an image before: what of it `base` keeps is not in the plan.
pub fn plan_over(
    config: &ImageConfig,
    source: &Source,
    labels: &BTreeMap<String, String>,
    base: &Base,
) -> Result<Contents, Error> {
    let created = source.time.or(config.created).unwrap_or(0);
    if base.complete {
        return plan_complete(config, base, created);
    }
    let definition = definition(source)?;
    let mut all_labels = base.labels();
    all_labels.extend(metadata::labels(config, source, created, labels));
    let labels = all_labels;
    let environment = scripts::environment(&variables(&config.config.env));
    let runscript = scripts::runscript(&config.config.entrypoint, &config.config.cmd);
    let oci_config_json = match base.is_image() {
        true => base.files.get(OCI_CONFIG_NAME).cloned().unwrap_or_default(),
        false => gojson::line(&config.config).map_err(Error::encode)?,
    };
    let labels_json = metadata::labels_json(&labels)?;
    let own = |path: &str, ours: &str| {
        base.text(path).unwrap_or_else(|| if base.keeps(path) { String::new() } else { ours.to_owned() })
    };
    let inspect_json = metadata::inspect_json(&Attributes {
        apps: &base.apps(),
        environment: &[
            (DOCKER_ENVIRONMENT, &own("env/10-docker2singularity.sh", &environment)),
            (ENVIRONMENT, &own("env/90-environment.sh", scripts::ENVIRONMENT)),
        ],
        labels: &labels,
        runscript: &own("runscript", &runscript),
        deffile: &definition,
        startscript: &own("startscript", scripts::START),
        test: &own("test", ""),
        helpfile: &own("runscript.help", ""),
    })?;

    let executables = executables(environment, runscript).into_iter().filter(|(path, _)| !base.keeps(path));
    let plain = [
        ("Singularity", definition.clone().into_bytes()),
        ("labels.json", labels_json),
        (OCI_CONFIG_NAME, oci_config_json.clone()),
    ];
    let plain = plain.into_iter().filter(|(path, _)| !base.keeps(path));
    let mut files = files(executables, plain);
    files.extend(base.history());
    Ok(Contents {
        files,
        definition: definition.into_bytes(),
        inspect_json,
        oci_config_json,
        created,
        missing_dirs: MISSING_DIRS.iter().map(|path| MissingDir { path, mode: 0o755 }).collect(),
        missing_files: MISSING_FILES.iter().map(|path| MissingDir { path, mode: 0o644 }).collect(),
    })
}

/// The same for a tree that has all but the runtime's scripts. `config` is what the image was made from: nothing in the
/// tree tells of it, as the tree's own scripts say what runs.
fn plan_complete(config: &ImageConfig, base: &Base, created: i64) -> Result<Contents, Error> {
    let text = |path: &str| base.text(path).unwrap_or_default();
    let definition = text("Singularity");
    let scripts = [DOCKER_ENVIRONMENT, ENVIRONMENT, "/.singularity.d/env/91-environment.sh"];
    let scripts = scripts.map(|path| (path, path.strip_prefix("/.singularity.d/").and_then(|path| base.text(path))));
    let environment: Vec<(&str, &str)> =
        scripts.iter().filter_map(|(path, text)| Some((*path, text.as_deref()?))).collect();
    let inspect_json = metadata::inspect_json(&Attributes {
        apps: &base.apps(),
        environment: &environment,
        labels: &base.labels(),
        runscript: &text("runscript"),
        deffile: &definition,
        startscript: &text("startscript"),
        test: &text("test"),
        helpfile: &text("runscript.help"),
    })?;
    let runtime = ["actions/", "env/01-", "env/95-", "env/99-"];
    let executables = executables(String::new(), String::new()).into_iter();
    let executables = executables.filter(|(path, _)| runtime.iter().any(|start| path.starts_with(start)));
    Ok(Contents {
        files: files(executables, []),
        definition: definition.into_bytes(),
        inspect_json,
        oci_config_json: match config.config == super::Config::default() {
            true => Vec::new(),
            false => gojson::line(&config.config).map_err(Error::encode)?,
        },
        created,
        missing_dirs: MISSING_DIRS.iter().map(|path| MissingDir { path, mode: 0o755 }).collect(),
        missing_files: MISSING_FILES.iter().map(|path| MissingDir { path, mode: 0o644 }).collect(),
    })
}

/// The definition that stands for `source`; a line break in it would begin another header.
fn definition(source: &Source) -> Result<String, Error> {
    let Source { bootstrap, from, .. } = source;
    let broken = [bootstrap, from].into_iter().find(|text| text.chars().any(char::is_control));
    match broken {
        Some(value) => Err(Error::From { value: value.clone() }),
        None => Ok(format!("bootstrap: {bootstrap}\nfrom: {from}\n\n")),
    }
}

/// What the shell runs or reads, by its path below `.singularity.d`.
fn executables(environment: String, runscript: String) -> [(&'static str, String); 14] {
    [
        ("actions/exec", scripts::exec()),
        ("actions/run", scripts::run()),
        ("actions/shell", scripts::shell()),
        ("actions/start", scripts::start()),
        ("actions/test", scripts::test()),
        ("env/01-base.sh", scripts::BASE.to_owned()),
        ("env/10-docker2singularity.sh", environment),
        ("env/90-environment.sh", scripts::ENVIRONMENT.to_owned()),
        ("env/94-appsbase.sh", String::new()),
        ("env/95-apps.sh", scripts::APPS.to_owned()),
        ("env/99-base.sh", scripts::LIBRARIES_AND_PROMPT.to_owned()),
        ("env/99-runtimevars.sh", scripts::RUNTIME.to_owned()),
        ("runscript", runscript),
        ("startscript", scripts::START.to_owned()),
    ]
}

/// The topmost layer: the tree of `.singularity.d`, then the links at the root.
fn files(
    executables: impl IntoIterator<Item = (&'static str, String)>,
    plain: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
) -> Vec<ImageFile> {
    let entry = |path: String, mode, kind| ImageFile { path, mode, kind };
    let below = |path: &str| format!(".singularity.d/{path}");
    let directories = DIRECTORIES.into_iter().map(|path| entry(path.to_owned(), 0o755, FileKind::Directory));
    let executables =
        executables.into_iter().map(|(path, text)| entry(below(path), 0o755, FileKind::Regular(text.into_bytes())));
    let plain = plain.into_iter().map(|(path, bytes)| entry(below(path), 0o644, FileKind::Regular(bytes)));
    let links = ROOT_LINKS
        .into_iter()
        .map(|(link, target)| entry(link.to_owned(), 0o777, FileKind::Symlink(target.to_owned())));
    directories.chain(executables).chain(plain).chain(links).collect()
}

/// Parents before children.
const DIRECTORIES: [&str; 4] =
    [".singularity.d", ".singularity.d/actions", ".singularity.d/env", ".singularity.d/libs"];

const DOCKER_ENVIRONMENT: &str = "/.singularity.d/env/10-docker2singularity.sh";
const ENVIRONMENT: &str = "/.singularity.d/env/90-environment.sh";

const ROOT_LINKS: [(&str, &str); 6] = [
    (".exec", ".singularity.d/actions/exec"),
    (".run", ".singularity.d/actions/run"),
    (".shell", ".singularity.d/actions/shell"),
    (".test", ".singularity.d/actions/test"),
    ("environment", ".singularity.d/env/90-environment.sh"),
    ("singularity", ".singularity.d/runscript"),
];

/// What the default mounts of a launch need to stand on.
const MISSING_DIRS: [&str; 9] = ["dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "var/tmp"];
const MISSING_FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];
