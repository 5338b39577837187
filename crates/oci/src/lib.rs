//! Reference → platform manifest → verified blobs, from OCI registries.

use siforge_reference::{Digest, ImageRef};
use std::fs::File;
use std::sync::Arc;

/// A string that cannot be printed: Debug shows `***`, there is no Display.
#[derive(Clone)]
pub struct Secret(String);

#[derive(Clone, Debug)]
pub struct Credentials { pub username: String, pub password: Secret }

#[derive(Clone, Debug, Default)]
pub struct Tls { pub plain_http: bool, pub insecure_skip_verify: bool, /** PEM bundle, in addition to the system's roots */ pub ca_bundle: Option<Vec<u8>> }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform { pub os: String, pub architecture: String, pub variant: Option<String> }

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compression { None, Gzip, Zstd }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    pub compression: Compression,
    /// SHA-256 of the uncompressed tar (config.rootfs.diff_ids).
    pub diff_id: Digest,
}

/// What a reference resolved to: everything but the layers' bytes.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub reference: ImageRef,
    /// Digest of the platform's manifest (not of the index).
    pub manifest_digest: Digest,
    pub platform: Platform,
    /// Bottom layer first, as in the manifest.
    pub layers: Vec<Layer>,
    pub config_digest: Digest,
    /// The image config's bytes, hash-checked.
    pub config: Vec<u8>,
}

pub struct Client { /* … */ }

impl Client {
    // pub fn new(credentials: Option<Credentials>, tls: Tls) -> Result<Client, Error>
    // pub async fn resolve(&self, reference: &ImageRef, platform: &Platform) -> Result<Resolved, Error>
    // pub async fn fetch(&self, reference: &ImageRef, layer: &Layer, into: Arc<Download>) -> Result<(), Error>
}

/// A blob that is being written while plain threads read behind its watermark.
pub struct Download { /* file: File, state: Mutex<…>, Condvar */ }
impl Download {
    // pub fn new(file: File, size: u64) -> Arc<Download>     (a complete cached blob: Download::complete(file, size))
    // pub fn reader(self: &Arc<Self>) -> impl Read + Send + 'static   blocks until bytes are there; Err when the download failed
    // pub fn written(&self) -> u64
}
