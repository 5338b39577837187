//! The metadata of an image, as `inspect-metadata.json` (ours and Apptainer's) and `labels.json` hold it. Pure, bounded.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Most bytes of a metadata object that are read.
pub const MAX_BYTES: u64 = 8 << 20;
/// Name of the SIF object that holds it.
pub const OBJECT_NAME: &str = "inspect-metadata.json";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {what} has {len} bytes, at most {MAX_BYTES} are read")]
    TooLarge { what: &'static str, len: usize },
    #[error("the {what} is no valid JSON: {reason}")]
    Json { what: &'static str, reason: String },
}

/// `data.attributes`; texts without trailing newlines, empty where the image has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub deffile: String,
    #[serde(deserialize_with = "or_default")]
    pub runscript: String,
    #[serde(deserialize_with = "or_default")]
    pub startscript: String,
    #[serde(deserialize_with = "or_default")]
    pub test: String,
    #[serde(deserialize_with = "or_default")]
    pub helpfile: String,
    /// Path → text.
    #[serde(deserialize_with = "or_default")]
    pub environment: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub apps: BTreeMap<String, App>,
}

/// A SCIF app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct App {
    #[serde(deserialize_with = "or_default")]
    pub environment: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub runscript: String,
    #[serde(deserialize_with = "or_default")]
    pub test: String,
    #[serde(deserialize_with = "or_default")]
    pub helpfile: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Metadata {
    /// From the object `inspect-metadata.json`.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Document {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            attributes: Metadata,
        }
        parse::<Document>("inspect metadata", json).map(|document| document.data.attributes)
    }
}

/// From `/.singularity.d/labels.json`.
pub fn parse_labels(json: &[u8]) -> Result<BTreeMap<String, String>, Error> {
    parse("labels file", json)
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, Error> {
    if json.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge { what, len: json.len() });
    }
    serde_json::from_slice(json).map_err(|error| Error::Json { what, reason: error.to_string() })
}
