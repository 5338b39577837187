//! Images that lie in files of this machine: OCI layouts, archives of them, and what `docker save` writes.
//!
//! ```text
//!   oci:DIR               folder ──────────────┐
//!   oci-archive:FILE      tar ── index ── Files ├── layout.rs: index.json → manifest → config, blobs/sha256/<hex>
//!   docker-archive:FILE   tar ── index ── Files └── docker.rs: manifest.json → config, <id>/layer.tar | blobs/sha256/<hex>
//!                          └ compressed? unpacked into an unnamed temporary file first (unpack.rs)
//! ```
//!
//! Nothing is copied: a layer is a range of bytes of a file that is there, read in place while the image is converted
//! and checked against the config's diff_id as any other layer is. Documents are checked against the digests that name
//! them. Names out of an archive only ever select members of that archive; in a folder only names made of digests are
//! opened.
//!
//! Sources: OCI image spec 1.1 `image-layout.md`; moby `image/spec/v1.2.md`; containers/image `oci/`, `docker/internal/tarfile/`.

mod archive;
mod docker;
mod error;
mod files;
mod layout;
mod unpack;

pub use error::Error;

use crate::{Download, Layer, Platform};
use files::Files;
use siforge_reference::{Digest, ImageRef, Selector};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// As [`Resolved`](crate::Resolved), but with the layers' bytes.
#[derive(Debug)]
pub struct Image {
    /// The source as errors name it (`oci:/images/cow:v1`).
    pub shown: String,
    /// The image's name by the source's own word, if that is a whole reference: never a path of this machine.
    pub name: Option<ImageRef>,
    /// Of the platform's manifest; docker archives have none, so the config's (Docker's image id).
    pub manifest_digest: Digest,
    /// As the image config has it.
    pub platform: Platform,
    /// Bottom layer first.
    pub layers: Vec<Layer>,
    /// The image config's bytes, hash-checked.
    pub config: Vec<u8>,
    /// The bytes of each of `layers`: complete, in place.
    pub blobs: Vec<Arc<Download>>,
}

/// How to read a source.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub platform: &'a Platform,
    /// Where a compressed archive is unpacked to.
    pub tmpdir: &'a Path,
    /// Bytes that a compressed archive may have when it is unpacked.
    pub unpacked_bytes: u64,
}

/// `oci:DIR[selector]`
pub fn layout(dir: &Path, selector: Option<&Selector>, options: &Options<'_>) -> Result<Image, Error> {
    let shown = shown("oci", dir, selector);
    layout::open(&Files::folder(shown, dir), selector, options)
}

/// `oci-archive:FILE[selector]`
pub fn layout_archive(file: &Path, selector: Option<&Selector>, options: &Options<'_>) -> Result<Image, Error> {
    let shown = shown("oci-archive", file, selector);
    layout::open(&Files::archive(shown, file, options)?, selector, options)
}

/// `docker-archive:FILE[selector]`
pub fn docker_archive(file: &Path, selector: Option<&Selector>, options: &Options<'_>) -> Result<Image, Error> {
    let shown = shown("docker-archive", file, selector);
    docker::open(&Files::archive(shown, file, options)?, selector, options)
}

/// What an engine saved to a file of ours.
pub(crate) fn saved(shown: String, file: File, options: &Options<'_>) -> Result<Image, Error> {
    docker::open(&Files::of(shown, file, options)?, None, options)
}

fn shown(transport: &str, path: &Path, selector: Option<&Selector>) -> String {
    let selector = selector.map(ToString::to_string).unwrap_or_default();
    crate::answer::one_line(&format!("{transport}:{}{selector}", path.display()), &[])
}

#[cfg(test)]
mod tests;
