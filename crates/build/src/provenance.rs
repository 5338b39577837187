//! Where an image came from, written into the image: the SIF's JSON object `provenance.json`.
//!
//! ```json
//! {"format":1,"source":{"repository":"lab/cow","manifest":"sha256:…","layers":["sha256:…"]},
//!  "recipe":"sha256:…","engineFormat":2}
//! ```
//!
//! It is part of what the image digest covers, so it names only what decides the bytes: the builder's version and the time
//! are the ref's to tell. Layers are named by diff_id, bottom first: the same from a registry and from an archive. Other
//! programs look for JSON objects by their names and pass over this one.

use crate::recipe::ENGINE_FORMAT;
use crate::source::Image;
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use siforge_sif::Sif;
use siforge_sif::format::DataType;
use siforge_sif::writer::Object;

/// Name of the SIF object.
const OBJECT_NAME: &str = "provenance.json";
/// Raised when a field changes its meaning.
const FORMAT: u32 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Provenance {
    format: u32,
    source: Source,
    /// The recipe key: SHA-256 of all that decides the bytes.
    recipe: String,
    engine_format: u32,
}

#[derive(Serialize)]
struct Source {
    /// Canonical, without tag or mirror.
    repository: String,
    /// The platform's manifest.
    manifest: String,
    /// diff_ids, bottom first.
    layers: Vec<String>,
}

/// Bytes of the object that are read.
const MAX: u64 = 1 << 20;

/// The digest of the manifest that a SIF of siforge's was made of; None: it is of another program, or says nothing.
pub fn manifest_of(sif: &Sif) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Provenance {
        source: Source,
    }
    #[derive(Deserialize)]
    struct Source {
        manifest: String,
    }
    let bytes = sif.object(sif.find(DataType::GenericJson, OBJECT_NAME)?, MAX).ok()?;
    serde_json::from_slice::<Provenance>(&bytes).ok()?.source.manifest.parse().ok()
}

pub(crate) fn object(image: &Image, recipe_key: &Digest) -> Object {
    let provenance = Provenance {
        format: FORMAT,
        source: Source {
            repository: image.name.key(),
            manifest: image.manifest_digest.to_string(),
            layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
        },
        recipe: recipe_key.to_string(),
        engine_format: ENGINE_FORMAT,
    };
    // A struct of strings and numbers always serialises.
    let mut bytes = serde_json::to_vec(&provenance).unwrap_or_default();
    bytes.push(b'\n');
    Object { datatype: DataType::GenericJson, name: OBJECT_NAME.to_owned(), bytes, extra: Vec::new() }
}
