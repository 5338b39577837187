//! What `docker save` writes, in all its forms.
//!
//! ```text
//!   manifest.json   [ { "Config": NAME, "RepoTags": [ "cow:1" ] | null, "Layers": [ NAME, … ] } ]      bottom layer first
//!     NAME of a config   <hex>.json               | blobs/sha256/<hex>  (Docker 25 and later: an OCI layout beside it)
//!     NAME of a layer    <id>/layer.tar | <hex>.tar | blobs/sha256/<hex>
//! ```
//!
//! A layer is plain, or compressed: its first bytes tell, as the names do not. There is no manifest, so that Docker's
//! image id, the config's digest, stands for one: it covers the diff_ids, which cover the layers.

use super::files::{Extent, Files};
use super::layout::{Checked, same_number};
use super::unpack::{Sniffed, sniff};
use super::{Error, Image, Options};
use crate::client::{MAX_CONFIG, MAX_MANIFEST};
use crate::manifest::MAX_LAYERS;
use crate::{Compression, Download, Layer};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, ImageRef, Selector};
use std::sync::Arc;

const MANIFEST: &str = "manifest.json";
const MAX_SHOWN: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Entry {
    fn tags(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }

    /// Docker's image id, if the config is named by it: `<hex>.json`, `blobs/sha256/<hex>`, `sha256:<hex>`.
    fn id(&self) -> Option<Digest> {
        let name = self.config.rsplit('/').next().unwrap_or(&self.config);
        let name = name.strip_suffix(".json").unwrap_or(name);
        Digest::from_hex(name.strip_prefix("sha256:").unwrap_or(name)).ok()
    }
}

pub(super) fn open(files: &Files, selector: Option<&Selector>, options: &Options<'_>) -> Result<Image, Error> {
    let entries = entries(files)?;
    let (entry, name) = choose(files, &entries, selector)?;
    let bytes = files.read(&entry.config, "config size", MAX_CONFIG)?;
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    if entry.id().is_some_and(|id| id != digest) {
        let name = crate::answer::one_line(&entry.config, &[]);
        return Err(Error::Checksum { shown: files.shown.clone(), name, got: digest });
    }
    let config = Checked::new(files, "the config", bytes, options.platform)?;
    same_number(files, entry.layers.len(), config.diff_ids.len())?;
    if entry.layers.len() > MAX_LAYERS {
        let (actual, max) = (entry.layers.len() as u64, MAX_LAYERS as u64);
        return Err(Error::Limit { shown: files.shown.clone(), what: "number of layers", actual, max });
    }
    let (mut layers, mut blobs) = (Vec::new(), Vec::new());
    for (name, diff_id) in entry.layers.iter().zip(config.diff_ids) {
        let (layer, blob) = layer(files, name, diff_id)?;
        layers.push(layer);
        blobs.push(blob);
    }
    Ok(Image {
        shown: files.shown.clone(),
        name,
        manifest_digest: digest,
        platform: config.platform,
        layers,
        config: config.bytes,
        blobs,
    })
}

fn entries(files: &Files) -> Result<Vec<Entry>, Error> {
    let bytes = files.read(MANIFEST, "size of manifest.json", MAX_MANIFEST).map_err(|error| match error {
        Error::Missing { shown, .. } => {
            let hint = match files.find("index.json") {
                Ok(_) => "; it is an OCI archive: write oci-archive:FILE",
                Err(_) => "; archives of Docker before 1.10 are not read",
            };
            Error::Format { shown, detail: format!("no Docker archive: {MANIFEST} is missing{hint}") }
        }
        error => error,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| files.malformed(MANIFEST, error))
}

/// The image that is meant, and its name: the tag that was asked for, else its first.
fn choose<'a>(
    files: &Files,
    entries: &'a [Entry],
    selector: Option<&Selector>,
) -> Result<(&'a Entry, Option<ImageRef>), Error> {
    let parsed = |text: &String| text.parse::<ImageRef>().ok();
    let available = || {
        let shown = |entry: &Entry| match entry.tags().next() {
            Some(tag) => crate::answer::one_line(tag, &[]),
            None => entry.id().map_or_else(|| "an image without a name".to_owned(), |id| format!("@{id}")),
        };
        entries.iter().map(shown).take(MAX_SHOWN).collect()
    };
    let found = match selector {
        None if entries.len() > 1 => {
            return Err(Error::Several { shown: files.shown.clone(), available: available() });
        }
        None => entries.first(),
        Some(Selector::Index(number)) => entries.get(*number as usize),
        Some(Selector::Digest(digest)) => entries.iter().find(|entry| entry.id() == Some(*digest)),
        Some(Selector::Name(name)) => {
            // Both sides completed: `busybox` is `docker.io/library/busybox:latest`.
            let wanted = parsed(name);
            let is_meant = |tag: &String| tag == name || (wanted.is_some() && parsed(tag) == wanted);
            let found = entries.iter().find_map(|entry| entry.tags().find(|tag| is_meant(tag)).map(|tag| (entry, tag)));
            if let Some((entry, tag)) = found {
                return Ok((entry, parsed(tag)));
            }
            None
        }
    };
    let missing = || Error::NoSuchImage { shown: files.shown.clone(), available: available() };
    found.map(|entry| (entry, entry.tags().find_map(parsed))).ok_or_else(missing)
}

fn layer(files: &Files, name: &str, diff_id: Digest) -> Result<(Layer, Arc<Download>), Error> {
    let shown = || crate::answer::one_line(name, &[]);
    let extent = files.find(name)?;
    let (head, got) = files.head::<6>(&shown(), &extent)?;
    let compression = match sniff(&head[..got]) {
        Sniffed::Plain => Compression::None,
        Sniffed::Gzip => Compression::Gzip,
        Sniffed::Zstd => Compression::Zstd,
        Sniffed::Other(codec) => {
            let detail = format!("a layer compressed with {codec}");
            return Err(Error::Unsupported { shown: files.shown.clone(), name: shown(), detail });
        }
    };
    // Nothing in the archive names the bytes of a compressed layer; those of a plain one are what the config names.
    let digest = match compression {
        Compression::None => diff_id,
        _ => files.hash(&shown(), &extent)?,
    };
    let Extent { file, offset, size } = extent;
    Ok((Layer { digest, size, compression, diff_id, urls: Vec::new() }, Download::within(file, offset, size)))
}
