//! Where a blob was fetched from, so that a private layer is not handed to whoever knows its digest.
//!
//! ```text
//! <dir>/sha256/ab/<hex>.from/<registry>     empty; the blob came from this registry (`127.0.0.1:5000`)
//! ```
//!
//! A registry's word that someone may read a blob counts only for blobs that came from that very registry: anyone can run a
//! registry that claims to hold any digest.

use crate::{Blobs, Error, durable};
use siforge_reference::Digest;
use std::path::PathBuf;

impl Blobs {
    /// Notes that the blob came from `registry`. Idempotent; losing the note costs a download.
    pub fn note_origin(&self, digest: &Digest, registry: &str) -> Result<(), Error> {
        let Some(path) = self.origin(digest, registry) else {
            return Ok(());
        };
        durable::note(&path)
    }

    /// Whether the blob once came from `registry`.
    pub fn came_from(&self, digest: &Digest, registry: &str) -> Result<bool, Error> {
        match self.origin(digest, registry) {
            Some(path) => path.try_exists().map_err(Error::io("stat", &path)),
            None => Ok(false),
        }
    }

    /// None for what cannot be a file name: then nothing is known, and the blob is fetched again.
    fn origin(&self, digest: &Digest, registry: &str) -> Option<PathBuf> {
        let named = !registry.is_empty()
            && registry.len() <= 255
            && !registry.starts_with('.')
            && !registry.contains(['/', '\0']);
        let mut dir = self.path(digest).into_os_string();
        dir.push(".from");
        named.then(|| PathBuf::from(dir).join(registry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_vouched_for_by_the_registry_it_came_from_alone() {
        let dir = tempfile::tempdir().expect("temp dir");
        let blobs = Blobs::at(dir.path()).expect("cache");
        let digest = Digest::from_bytes([7; 32]);
        let came_from = |registry: &str| blobs.came_from(&digest, registry).expect("came_from");
        assert!(!came_from("127.0.0.1:5000"));
        for _ in 0..2 {
            blobs.note_origin(&digest, "127.0.0.1:5000").expect("note");
        }
        assert!(came_from("127.0.0.1:5000"));
        for other in ["127.0.0.1:5001", "docker.io", "", ".", "..", "../x"] {
            assert!(!came_from(other), "{other:?}");
            blobs.note_origin(&digest, other).expect("note");
        }
        assert!(!came_from(".."));
        assert!(came_from("docker.io"));
    }
}
