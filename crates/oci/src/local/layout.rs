//! OCI image layouts, in a folder or an archive.
//!
//! ```text
//!   oci-layout                 {"imageLayoutVersion":"1.0.0"}
//!   index.json                 { "manifests": [ { mediaType, digest, size, platform, annotations } ] }
//!   blobs/sha256/<hex>         indexes, manifests, configs, layers
//!
//!   annotations  org.opencontainers.image.ref.name   the name that a selector gives: a tag, or a whole reference
//!                io.containerd.image.name            the whole reference, by containerd and BuildKit
//! ```

use super::files::{Extent, Files};
use super::{Error, Image, Options};
use crate::client::{MAX_CONFIG, MAX_INDEX_DEPTH, MAX_MANIFEST, serves};
use crate::manifest::{self, Blob, Entry, Manifest, Unusable};
use crate::media;
use crate::{Compression, Download, Layer, Platform};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef, Selector};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const INDEX: &str = "index.json";
const MARKER: &str = "oci-layout";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Names that an error lists.
const MAX_SHOWN: usize = 20;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Named>,
}

#[derive(Clone, Deserialize)]
struct Named {
    #[serde(flatten)]
    entry: Entry,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Named {
    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        [REF_NAME, CONTAINERD_NAME].into_iter().filter_map(|key| self.annotation(key))
    }

    /// What a user can select it by.
    fn shown(&self) -> String {
        let name = self.names().next().map(|name| crate::answer::one_line(name, &[]));
        name.unwrap_or_else(|| format!("@{}", self.entry.descriptor.digest))
    }

    /// A name that says which image this is wherever it lies; a bare tag does not.
    fn reference(&self) -> Option<ImageRef> {
        let whole = |name: &str| name.contains('/').then(|| name.parse().ok()).flatten();
        [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| self.annotation(key)).find_map(whole)
    }
}

pub(super) fn open(files: &Files, selector: Option<&Selector>, options: &Options<'_>) -> Result<Image, Error> {
    let index = index(files)?;
    let chosen = choose(files, &index, selector, options.platform)?;
    let (image, manifest_digest) = follow(files, chosen.entry.clone(), options.platform)?;
    let config_name = blob_name(&image.config.digest);
    let config = document(files, &image.config.digest, Some(image.config.size), "config size", MAX_CONFIG)?;
    let config = Checked::new(files, &config_name, config, options.platform)?;
    let (layers, blobs) = layers(files, image.layers, config.diff_ids)?;
    Ok(Image {
        shown: files.shown.clone(),
        name: chosen.reference(),
        manifest_digest,
        platform: config.platform,
        layers,
        config: config.bytes,
        blobs,
    })
}

fn index(files: &Files) -> Result<Vec<Named>, Error> {
    #[derive(Deserialize)]
    struct Layout {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let no_layout = |error| match error {
        Error::Missing { shown, name } => {
            Error::Format { shown, detail: format!("no OCI image layout: {name} is missing") }
        }
        Error::Io { shown, name, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::Format { shown, detail: format!("no OCI image layout: {name} is missing") }
        }
        error => error,
    };
    let marker = files.read(MARKER, "size of oci-layout", MAX_MANIFEST).map_err(no_layout)?;
    let layout: Layout = serde_json::from_slice(&marker).map_err(|error| files.malformed(MARKER, error))?;
    if !layout.version.starts_with("1.") {
        let detail = format!("version {:?} of image layouts, 1.0.0 is", crate::answer::one_line(&layout.version, &[]));
        return Err(Error::Unsupported { shown: files.shown.clone(), name: MARKER.to_owned(), detail });
    }
    let bytes = files.read(INDEX, "size of index.json", MAX_MANIFEST).map_err(no_layout)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| files.malformed(INDEX, error))?;
    Ok(index.manifests)
}

/// The entry that the selector names. Without one, and where several have the name, they must be one image: of several
/// platforms, say.
fn choose(files: &Files, index: &[Named], selector: Option<&Selector>, platform: &Platform) -> Result<Named, Error> {
    let available = || index.iter().map(Named::shown).collect::<BTreeSet<_>>().into_iter().take(MAX_SHOWN).collect();
    let missing = || Error::NoSuchImage { shown: files.shown.clone(), available: available() };
    let named: Vec<&Named> = match selector {
        None => index.iter().filter(|entry| !is_attestation(entry)).collect(),
        Some(Selector::Name(name)) => index.iter().filter(|entry| entry.names().any(|known| known == name)).collect(),
        Some(Selector::Index(number)) => index.get(*number as usize).into_iter().collect(),
        Some(Selector::Digest(digest)) => {
            let listed = index.iter().find(|entry| entry.entry.descriptor.digest == *digest);
            // One of an index's, which index.json does not list itself.
            return Ok(listed.cloned().unwrap_or_else(|| Named::unlisted(*digest)));
        }
    };
    match named.as_slice() {
        [] => Err(missing()),
        [one] => Ok((*one).clone()),
        several => {
            let names: BTreeSet<String> =
                several.iter().map(|entry| entry.names().next().unwrap_or_default().to_owned()).collect();
            if names.len() > 1 || several.iter().any(|entry| entry.entry.platform.is_none()) {
                return Err(Error::Several { shown: files.shown.clone(), available: available() });
            }
            let entries: Vec<Entry> = several.iter().map(|entry| entry.entry.clone()).collect();
            let best = manifest::choose(&entries, platform).map_err(|available| unknown(files, platform, available))?;
            let position = entries.iter().position(|entry| entry == best).unwrap_or_default();
            Ok(several[position].clone())
        }
    }
}

impl Named {
    fn unlisted(digest: Digest) -> Self {
        let descriptor = manifest::Descriptor { media_type: String::new(), digest, size: 0, urls: Vec::new() };
        Self { entry: Entry { descriptor, platform: None }, annotations: None }
    }
}

/// What BuildKit says of its builds lies beside them, as an image of no platform.
fn is_attestation(entry: &Named) -> bool {
    entry.entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// Through nested indexes to the platform's manifest.
fn follow(files: &Files, mut entry: Entry, platform: &Platform) -> Result<(manifest::Image, Digest), Error> {
    for _ in 0..=MAX_INDEX_DEPTH {
        let descriptor = &entry.descriptor;
        let name = blob_name(&descriptor.digest);
        let size = (descriptor.size > 0).then_some(descriptor.size);
        let bytes = document(files, &descriptor.digest, size, "manifest size", MAX_MANIFEST)?;
        let media_type = media::document(&descriptor.media_type).map(|_| descriptor.media_type.as_str());
        let parsed = manifest::parse(&bytes, media_type).map_err(|error| unusable(files, &name, error))?;
        entry = match parsed {
            Manifest::Image(image) => return Ok((image, descriptor.digest)),
            Manifest::Index(entries) => {
                let best = manifest::choose(&entries, platform);
                best.map_err(|available| unknown(files, platform, available))?.clone()
            }
        };
    }
    let (actual, max) = (MAX_INDEX_DEPTH as u64 + 1, MAX_INDEX_DEPTH as u64);
    Err(Error::Limit { shown: files.shown.clone(), what: "depth of image indexes", actual, max })
}

/// A blob that is read whole: size and digest are checked.
fn document(files: &Files, digest: &Digest, size: Option<u64>, what: &'static str, max: u64) -> Result<Vec<u8>, Error> {
    let name = blob_name(digest);
    let bytes = files.read(&name, what, max).map_err(missing)?;
    check_size(files, &name, bytes.len() as u64, size.unwrap_or(bytes.len() as u64))?;
    let got = Digest::from_bytes(Sha256::digest(&bytes).into());
    match got == *digest {
        true => Ok(bytes),
        false => Err(Error::Checksum { shown: files.shown.clone(), name, got }),
    }
}

/// A blob's file that is not there is a blob that is missing, in a folder too.
fn missing(error: Error) -> Error {
    match error {
        Error::Io { shown, name, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::Missing { shown, name }
        }
        error => error,
    }
}

fn check_size(files: &Files, name: &str, got: u64, want: u64) -> Result<(), Error> {
    match got == want {
        true => Ok(()),
        false => Err(Error::Size { shown: files.shown.clone(), name: name.to_owned(), got, want }),
    }
}

/// An image config with what resolving needs of it.
pub(super) struct Checked {
    pub(super) bytes: Vec<u8>,
    pub(super) platform: Platform,
    pub(super) diff_ids: Vec<Digest>,
}

impl Checked {
    pub(super) fn new(files: &Files, name: &str, bytes: Vec<u8>, wanted: &Platform) -> Result<Self, Error> {
        let parsed = manifest::config(&bytes).map_err(|error| unusable(files, name, error))?;
        match serves(&parsed.platform, wanted) {
            true => Ok(Self { bytes, platform: parsed.platform, diff_ids: parsed.diff_ids }),
            false => {
                let available = vec![crate::answer::one_line(&parsed.platform.to_string(), &[])];
                Err(unknown(files, wanted, available))
            }
        }
    }
}

type Layers = (Vec<Layer>, Vec<Arc<Download>>);

fn layers(files: &Files, blobs: Vec<Blob>, diff_ids: Vec<Digest>) -> Result<Layers, Error> {
    same_number(files, blobs.len(), diff_ids.len())?;
    let mut made = (Vec::new(), Vec::new());
    for (blob, diff_id) in blobs.into_iter().zip(diff_ids) {
        let name = blob_name(&blob.digest);
        let Extent { file, offset, size } = files.find(&name).map_err(missing)?;
        check_size(files, &name, size, blob.size)?;
        let Blob { digest, compression, urls, .. } = blob;
        // A plain layer is hashed for its diff_id in any case.
        let vouched = compression == Compression::None && digest == diff_id;
        made.1.push(match vouched {
            true => Download::within(file, offset, size),
            false => Download::unverified(file, offset, size, digest),
        });
        made.0.push(Layer { digest, size, compression, diff_id, urls });
    }
    Ok(made)
}

pub(super) fn same_number(files: &Files, layers: usize, diff_ids: usize) -> Result<(), Error> {
    match layers == diff_ids {
        true => Ok(()),
        false => Err(files.malformed("the image", format!("{layers} layers, but {diff_ids} diff_ids in the config"))),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn unknown(files: &Files, wanted: &Platform, available: Vec<String>) -> Error {
    Error::UnknownPlatform { shown: files.shown.clone(), wanted: wanted.to_string(), available }
}

fn unusable(files: &Files, name: &str, error: Unusable) -> Error {
    let shown = files.shown.clone();
    match error {
        Unusable::Malformed(detail) => files.malformed(name, detail),
        Unusable::Unsupported(detail) => {
            Error::Unsupported { shown, name: name.to_owned(), detail: crate::answer::one_line(&detail, &[]) }
        }
        Unusable::TooManyLayers(count) => {
            let max = manifest::MAX_LAYERS as u64;
            Error::Limit { shown, what: "number of layers", actual: count as u64, max }
        }
        Unusable::TooDeep(depth) => {
            let max = manifest::MAX_DEPTH as u64;
            Error::Limit { shown, what: "depth of the JSON", actual: depth as u64, max }
        }
    }
}
