//! Manifests, indexes and image configs: bytes → checked values. Pure.
//!
//! ```text
//!   index    { "manifests": [ { "mediaType", "digest", "size", "platform": { "os", "architecture", "variant" } } ] }
//!   manifest { "config": { "mediaType", "digest", "size" }, "layers": [ { "mediaType", "digest", "size" } ] }
//!   config   { "os", "architecture", "variant", "rootfs": { "diff_ids": [ … ] } }
//! ```
//! OCI image spec 1.1 (`image-index.md`, `manifest.md`, `config.md`); Docker's forms have the same members. A document
//! that is both index and manifest is refused: readers that disagree on what it is would run different images
//! (CVE-2021-41190).

use crate::media::{self, Compression, Document};
use crate::platform::Platform;
use serde::Deserialize;
use siforge_reference::Digest;

/// Layers of an image: overlay stops at 500, Docker at 127.
pub(crate) const MAX_LAYERS: usize = 512;

/// Places of a foreign layer that are tried.
const MAX_URLS: usize = 8;
/// Manifests and indexes need 5 levels, configs 6; annotations and histories hold no more.
pub(crate) const MAX_DEPTH: usize = 32;

/// What a manifest URL answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    Index(Vec<Entry>),
    Image(Image),
}

/// An image manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Blob>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub digest: Digest,
    pub size: u64,
    pub compression: Compression,
    /// Where else than in the registry a foreign layer is.
    pub urls: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub urls: Vec<String>,
}

/// An index's entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub descriptor: Descriptor,
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// Why a document is of no use; the caller adds the operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Malformed(String),
    Unsupported(String),
    TooManyLayers(usize),
    TooDeep(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// Reads a document of the type that the HTTP answer gives; one without a known type is what it looks like.
pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, Unusable> {
    // Schema 1 has other members of the same names, so its number is looked at first.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        schema_version: Option<u64>,
    }
    check_depth(bytes)?;
    let version = serde_json::from_slice::<Version>(bytes).ok().and_then(|v| v.schema_version);
    let of_header = content_type.and_then(media::document);
    if of_header == Some(Document::SchemaOne) || version == Some(1) {
        return Err(Unusable::Unsupported(
            "Docker image manifest version 2, schema 1; push the image again with a current docker, podman or skopeo"
                .to_owned(),
        ));
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| Unusable::Malformed(error.to_string()))?;
    if raw.schema_version != Some(2) {
        return Err(Unusable::Malformed("schemaVersion is not 2".to_owned()));
    }
    let of_body = raw.media_type.as_deref().and_then(media::document);
    match (of_header.or(of_body), raw) {
        (_, Raw { manifests: Some(_), config, layers, .. }) if config.is_some() || layers.is_some() => {
            Err(Unusable::Malformed("both an index and a manifest (CVE-2021-41190)".to_owned()))
        }
        (Some(Document::Index) | None, Raw { manifests: Some(entries), .. }) => Ok(Manifest::Index(entries)),
        (Some(Document::Manifest) | None, Raw { config: Some(config), layers: Some(layers), .. }) => {
            image(config, &layers).map(Manifest::Image)
        }
        (_, Raw { media_type, .. }) => Err(Unusable::Malformed(format!(
            "neither an index nor an image manifest (media type {:?})",
            content_type.or(media_type.as_deref()).unwrap_or_default()
        ))),
    }
}

/// Brackets that are open at once, those in strings left out. Parsers differ in what they bear, and members that we skip
/// are not bounded by ours.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), Unusable> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Unusable::TooDeep(depth));
        }
    }
    Ok(())
}

fn image(config: Descriptor, layers: &[Descriptor]) -> Result<Image, Unusable> {
    // Docker's own registry tools leave the type out nowhere; artifacts (Helm charts, SIFs, signatures) have their own.
    if !media::is_image_config(&config.media_type) {
        let instead = match config.media_type.as_str() {
            "application/vnd.sylabs.sif.config.v1+json" => "; it is a SIF: use oras://",
            _ => "",
        };
        return Err(Unusable::Unsupported(format!(
            "not a container image: its config has media type {:?}{instead}",
            config.media_type
        )));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Unusable::TooManyLayers(layers.len()));
    }
    let layers = layers.iter().map(|layer| {
        let compression = media::compression(&layer.media_type).map_err(Unusable::Unsupported)?;
        let urls = match media::is_foreign(&layer.media_type) {
            true => layer.urls.iter().take(MAX_URLS).cloned().collect(),
            false => Vec::new(),
        };
        Ok(Blob { digest: layer.digest, size: layer.size, compression, urls })
    });
    Ok(Image { config, layers: layers.collect::<Result<_, _>>()? })
}

/// The entry for a platform: the best match, the first among equals. One that names no platform serves when no other
/// does (its image's config decides). Else the platforms that there are.
pub(crate) fn choose<'a>(entries: &'a [Entry], wanted: &Platform) -> Result<&'a Entry, Vec<String>> {
    let rank = |entry: &Entry| match &entry.platform {
        Some(platform) => platform.rank(wanted),
        None => Some(0),
    };
    let mut best: Option<(u8, &Entry)> = None;
    for entry in entries {
        if let Some(rank) = rank(entry)
            && best.is_none_or(|(best, _)| rank > best)
        {
            best = Some((rank, entry));
        }
    }
    match best {
        Some((_, entry)) => Ok(entry),
        // Build attestations are entries of the platform unknown/unknown.
        None => Err(entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .map(|platform| crate::answer::one_line(&platform.to_string(), &[]))
            .take(64)
            .collect()),
    }
}

/// What resolving needs of an image config.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub platform: Platform,
    pub diff_ids: Vec<Digest>,
}

pub(crate) fn config(bytes: &[u8]) -> Result<Config, Unusable> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(flatten)]
        platform: Platform,
        rootfs: Rootfs,
    }
    #[derive(Deserialize)]
    struct Rootfs {
        #[serde(default)]
        diff_ids: Option<Vec<Digest>>,
    }
    check_depth(bytes)?;
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| Unusable::Malformed(error.to_string()))?;
    Ok(Config { platform: raw.platform, diff_ids: raw.rootfs.diff_ids.unwrap_or_default() })
}

#[cfg(test)]
mod tests;
