//! `resolve` and `fetch`.

use crate::{Compression, Credentials, Download, Error, Platform, Tls};
use siforge_reference::{Digest, ImageRef};
use std::sync::Arc;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    pub compression: Compression,
    /// SHA-256 of the uncompressed tar (the config's `rootfs.diff_ids`).
    pub diff_id: Digest,
}

/// What a reference resolved to: everything but the layers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Reads one registry.
#[derive(Debug)]
pub struct Client {}

impl Client {
    /// A client for `registry` (`ImageRef::registry`: `docker.io`, `127.0.0.1:5000`): credentials belong to one registry,
    /// so references to others are refused.
    pub fn new(registry: &str, credentials: Option<Credentials>, tls: Tls) -> Result<Self, Error> {
        let _ = (registry, credentials, tls);
        todo!()
    }

    /// Finds the image for `platform`.
    pub async fn resolve(
        &self,
        reference: &ImageRef,
        platform: &Platform,
    ) -> Result<Resolved, Error> {
        let _ = (reference, platform);
        todo!()
    }

    /// Writes `layer`'s blob into `into`, which it ends in every case (also when this future is dropped).
    pub async fn fetch(
        &self,
        reference: &ImageRef,
        layer: &Layer,
        into: Arc<Download>,
    ) -> Result<(), Error> {
        let _ = (reference, layer, into);
        todo!()
    }
}
