//! Labels and the object `inspect-metadata.json` (apptainer `pkg/inspect`). Pure.

use super::plan::Source;
use super::{Error, ImageConfig, time};
use crate::gojson;
use serde::Serialize;
use std::collections::BTreeMap;

/// The image's labels, then what the build says of itself, then the recipe's. No program version and no clock: equal inputs
/// give equal bytes, so `build-date` is the image's own time.
pub(super) fn labels(
    config: &ImageConfig,
    source: &Source,
    created: i64,
    recipe: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = config.config.labels.clone();
    let architecture = config.architecture.clone().unwrap_or_default();
    labels.extend(build_labels(&architecture, created));
    let own = [
        ("usage.singularity.deffile.bootstrap", source.bootstrap.clone()),
        ("usage.singularity.deffile.from", source.from.clone()),
    ];
    labels.extend(own.map(|(name, value)| (format!("org.label-schema.{name}"), value)));
    labels.extend(recipe.iter().map(|(name, value)| (name.clone(), value.clone())));
    labels
}

/// What every build says of itself; `created`: Unix seconds.
pub fn build_labels(architecture: &str, created: i64) -> BTreeMap<String, String> {
    let own = [
        ("build-arch", architecture.to_owned()),
        ("build-date", time::build_date(created)),
        ("schema-version", "1.0".to_owned()),
    ];
    own.map(|(name, value)| (format!("org.label-schema.{name}"), value)).into()
}

/// labels.json, as the reference writes it.
pub fn labels_json(labels: &BTreeMap<String, String>) -> Result<Vec<u8>, Error> {
    gojson::tabs(labels).map_err(Error::encode)
}

/// Whole texts; they are written without newlines at their ends.
pub(super) struct Attributes<'a> {
    /// Name → files by their paths below the app's `scif`.
    pub(super) apps: &'a BTreeMap<&'a str, BTreeMap<&'a str, &'a [u8]>>,
    /// Path → text.
    pub(super) environment: &'a [(&'a str, &'a str)],
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) runscript: &'a str,
    pub(super) deffile: &'a str,
    pub(super) startscript: &'a str,
    /// Left out when the image has none.
    pub(super) test: &'a str,
    pub(super) helpfile: &'a str,
}

pub(super) fn inspect_json<'a>(attributes: &Attributes<'a>) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct Document<'a> {
        data: Data<'a>,
        r#type: &'a str,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        attributes: Members<'a>,
    }
    #[derive(Serialize)]
    struct Members<'a> {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        apps: BTreeMap<&'a str, App>,
        environment: BTreeMap<&'a str, &'a str>,
        labels: &'a BTreeMap<String, String>,
        runscript: &'a str,
        deffile: &'a str,
        startscript: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        test: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        helpfile: &'a str,
    }
    let trimmed = |text: &'a str| text.trim_end_matches('\n');
    let attributes = Members {
        apps: attributes.apps.iter().map(|(name, files)| (*name, App::of(name, files))).collect(),
        environment: attributes.environment.iter().map(|(path, text)| (*path, trimmed(text))).collect(),
        labels: attributes.labels,
        runscript: trimmed(attributes.runscript),
        deffile: trimmed(attributes.deffile),
        startscript: trimmed(attributes.startscript),
        test: trimmed(attributes.test),
        helpfile: trimmed(attributes.helpfile),
    };
    gojson::line(&Document { data: Data { attributes }, r#type: "container" }).map_err(Error::encode)
}

/// What is shown of an app; what it lacks is left out.
#[derive(Serialize)]
struct App {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    runscript: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    startscript: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    test: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    helpfile: String,
}

impl App {
    fn of(name: &str, files: &BTreeMap<&str, &[u8]>) -> Self {
        let text = |file: &str| {
            let bytes = files.get(file).copied().unwrap_or_default();
            String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
        };
        let script = "env/90-environment.sh";
        let environment =
            files.contains_key(script).then(|| (format!("/scif/apps/{name}/scif/{script}"), text(script)));
        let labels = files.get("labels.json").and_then(|json| crate::inspect::parse_labels(json).ok());
        Self {
            environment: environment.into_iter().collect(),
            labels: labels.unwrap_or_default(),
            runscript: text("runscript"),
            startscript: text("startscript"),
            test: text("test"),
            helpfile: text("runscript.help"),
        }
    }
}
