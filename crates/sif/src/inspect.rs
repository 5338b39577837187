//! The metadata of an image, as `inspect-metadata.json` (ours and Apptainer's) holds it.

use std::collections::BTreeMap;

/// Most bytes of a metadata object that are read.
pub const MAX_BYTES: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the inspect metadata has {len} bytes, at most {MAX_BYTES} are read")]
    TooLarge { len: u64 },
    #[error("the inspect metadata is no valid JSON: {reason}")]
    Json { reason: String },
}

/// `data.attributes`; texts without trailing newlines.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub labels: BTreeMap<String, String>,
    pub deffile: String,
    pub runscript: String,
    pub startscript: String,
    pub test: String,
    pub helpfile: String,
    /// Path → text.
    pub environment: BTreeMap<String, String>,
    pub apps: BTreeMap<String, App>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct App {
    pub environment: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub runscript: String,
    pub test: String,
    pub helpfile: String,
}

impl Metadata {
    /// From the object `inspect-metadata.json`.
    pub fn parse(_json: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}

/// From `/.singularity.d/labels.json`.
pub fn parse_labels(_json: &[u8]) -> Result<BTreeMap<String, String>, Error> {
    todo!()
}
