//! One build from end to end: into a store, or into a file.

use crate::{Error, Limits, Progress, Recipe, Reuse};
use siforge_oci::{Client, Resolved};
use siforge_reference::Digest;
use siforge_store::{Blobs, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to build; nothing here changes a byte of the result.
#[derive(Clone, Debug)]
pub struct Settings {
    pub threads: usize,
    /// Bytes of data in flight and codec state of the squashfs writer.
    pub memory: usize,
    /// Blobs fetched at once.
    pub parallel_blobs: usize,
    pub limits: Limits,
}

/// What [`build`] published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Image digest: SHA-256 of the SIF.
    pub digest: Digest,
    /// Bytes of the SIF.
    pub size: u64,
    pub path: PathBuf,
    pub recipe_key: Digest,
    /// The store had it already: nothing was built.
    pub reused: bool,
    pub warnings: Vec<String>,
}

/// What [`pull`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub digest: Digest,
    pub size: u64,
    pub warnings: Vec<String>,
}

/// Builds `resolved` into the store and publishes the artifact (mode 0640 until a ref makes it public).
///
/// One build per recipe: a claim makes other builders of the same store wait. Dropping the future stops the build;
/// nothing half-written is ever visible.
pub async fn build(
    store: &Store,
    client: &Client,
    resolved: &Resolved,
    recipe: &Recipe,
    settings: &Settings,
    progress: Arc<Progress>,
) -> Result<Built, Error> {
    todo!()
}

/// Converts `resolved` into the file `out` (which must not exist unless `force`), with `cache` for the blobs.
pub async fn pull(
    client: &Client,
    resolved: &Resolved,
    recipe: &Recipe,
    settings: &Settings,
    cache: &Blobs,
    out: &Path,
    force: bool,
    progress: Arc<Progress>,
) -> Result<Pulled, Error> {
    todo!()
}
