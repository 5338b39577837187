//! What, besides the source, decides an image's bytes.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use std::collections::BTreeMap;

/// Raised whenever the same source and recipe would give other bytes: a codec crate whose output changed, another rule
/// for groups or inodes, other `.singularity.d` scripts. A golden-bytes test notices.
///
/// 1: the first. 2: the provenance object.
pub const ENGINE_FORMAT: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "name")]
pub enum Codec {
    Zstd {
        level: i32,
    },
    Gzip {
        level: i32,
    },
    /// Level 0: fast; 1–12: LZ4HC's.
    Lz4 {
        level: i32,
    },
    Xz {
        level: i32,
    },
    None,
}

/// Everything a user may choose that changes the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub codec: Codec,
    /// Bytes; a power of two, 64 KiB..=1 MiB.
    pub block_size: u32,
    /// Added to the image's own labels; wins over them.
    pub labels: BTreeMap<String, String>,
}

impl Default for Recipe {
    /// zstd level 3 in 256 KiB blocks: measured as the size of gzip-9 at a seventeenth of its cost.
    fn default() -> Self {
        Self { codec: Codec::Zstd { level: 3 }, block_size: 256 * 1024, labels: BTreeMap::new() }
    }
}

/// Bounds on what a source may make us do. They decide between success and an error, never the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Uncompressed bytes of all layers together.
    pub uncompressed_bytes: u64,
    /// Entries of all layers together.
    pub files: u64,
    /// Uncompressed : compressed, looked at once a layer has given [`RATIO_FREE_BYTES`].
    pub ratio: u64,
}

/// A layer may be as compressible as it likes up to this size: small layers of zeros are common and harmless.
pub(crate) const RATIO_FREE_BYTES: u64 = 256 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self { uncompressed_bytes: 1 << 40, files: 20_000_000, ratio: 250 }
    }
}

#[derive(Serialize)]
struct Key<'a> {
    engine_format: u32,
    manifest: String,
    repository: &'a str,
    codec: Codec,
    block_size: u32,
    labels: &'a BTreeMap<String, String>,
}

impl Recipe {
    /// SHA-256 over the canonical JSON of all inputs of the image digest: the name under which the result is
    /// remembered (`recipes/`) and claimed (`claims/`). `repository` is the canonical one, without tag or mirror.
    pub fn key(&self, manifest: &Digest, repository: &str) -> Digest {
        let key = Key {
            engine_format: ENGINE_FORMAT,
            manifest: manifest.to_string(),
            repository,
            codec: self.codec,
            block_size: self.block_size,
            labels: &self.labels,
        };
        // A struct of strings and numbers always serialises.
        let json = serde_json::to_vec(&key).unwrap_or_default();
        Digest::from_bytes(Sha256::digest(json).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_key_and_nothing_else_does() {
        let manifest = |n: u8| Digest::from_bytes([n; 32]);
        let base = Recipe::default();
        let mut seen = std::collections::HashSet::new();
        let mut check = |name: &str, key: Digest| assert!(seen.insert(key), "{name} does not change the key");
        check("base", base.key(&manifest(1), "lab/cow"));
        check("manifest", base.key(&manifest(2), "lab/cow"));
        check("repository", base.key(&manifest(1), "lab/owl"));
        let level = Recipe { codec: Codec::Zstd { level: 4 }, ..base.clone() };
        check("level", level.key(&manifest(1), "lab/cow"));
        let codec = Recipe { codec: Codec::Gzip { level: 3 }, ..base.clone() };
        check("codec", codec.key(&manifest(1), "lab/cow"));
        let block = Recipe { block_size: 128 * 1024, ..base.clone() };
        check("block size", block.key(&manifest(1), "lab/cow"));
        let labels = Recipe { labels: [("a".into(), "b".into())].into(), ..base.clone() };
        check("labels", labels.key(&manifest(1), "lab/cow"));
        assert_eq!(base.key(&manifest(1), "lab/cow"), base.clone().key(&manifest(1), "lab/cow"));
    }
}
