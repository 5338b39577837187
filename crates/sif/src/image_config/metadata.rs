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
    let own = [
        ("build-arch", architecture),
        ("build-date", time::build_date(created)),
        ("schema-version", "1.0".to_owned()),
        ("usage.singularity.deffile.bootstrap", source.bootstrap.clone()),
        ("usage.singularity.deffile.from", source.from.clone()),
    ];
    labels.extend(own.map(|(name, value)| (format!("org.label-schema.{name}"), value)));
    labels.extend(recipe.iter().map(|(name, value)| (name.clone(), value.clone())));
    labels
}

/// Whole texts; they are written without newlines at their ends.
pub(super) struct Attributes<'a> {
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
