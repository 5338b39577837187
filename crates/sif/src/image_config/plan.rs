//! What an image holds beside its layers. Pure.

use super::{Error, ImageConfig};
use crate::writer::Object;
use std::collections::BTreeMap;

/// Where the image came from, for labels and the definition object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `docker`.
    pub bootstrap: String,
    /// The canonical reference for `from:` (`godlovedc/lolcow@sha256:…`).
    pub from: String,
    /// Unix seconds that stand for "when": the image's `created`, or SOURCE_DATE_EPOCH. None: the config's created, else 0.
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
    /// Equal to `.singularity.d/oci-config.json`.
    pub oci_config_json: Vec<u8>,
    /// Unix seconds: the mtime of `files`, the SIF's time.
    pub created: i64,
    /// Parents first.
    pub missing_dirs: Vec<MissingDir>,
    /// Mode 0644, empty.
    pub missing_files: Vec<MissingDir>,
}

impl Contents {
    /// The three objects before the partition, in order.
    pub fn objects(&self) -> Vec<Object> {
        todo!()
    }
}

/// Plans what is added to an image of `config`. `labels` are the recipe's, over the image's own.
pub fn plan(
    _config: &ImageConfig,
    _source: &Source,
    _labels: &BTreeMap<String, String>,
) -> Result<Contents, Error> {
    todo!()
}
