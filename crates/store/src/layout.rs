//! Every path under the store's root is made here and nowhere else.
//!
//! ```text
//! <store>/siforge-store                              format version, agent group
//!   sif/sha256/ab/<hex>.sif                          artifacts, immutable, named by image digest
//!   shadows/<hex>.json                               what an artifact's image in a pod is made of
//!   recipes/sha256/ab/<hex>.json                     recipe key → image digest
//!   refs/<namespace>/<name>/<revision>.json, current what a name points at
//!   blobs/sha256/ab/<hex>                            layer cache
//!   packs/sha256/ab/<diff_id>.<kind>                 the same layers as squashfs blocks
//!   claims/<recipe hex>.json                         "I am building this"
//!   leases/<node>.json                               digests a node uses, one writer per file
//!   tmp/  trash/  trash/cache/                        unfinished, and about to go
//! ```
//!
//! Unfinished files start with `.tmp-` and name their writer ([`crate::writer`]); no reader takes one for finished.

use crate::Error;
use crate::names;
use siforge_reference::Digest;
use std::path::{Path, PathBuf};

/// The file that makes a directory a store.
pub const FORMAT_FILE: &str = "siforge-store";
/// Format of the layout itself; each JSON file has a format of its own besides.
pub const FORMAT: u32 = 1;
/// Most bytes of the format file that are read.
pub(crate) const FORMAT_FILE_LIMIT: u64 = 64 << 10;
/// Prefix of every unfinished file.
pub const TEMP_PREFIX: &str = ".tmp-";

/// Paths of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn format_file(&self) -> PathBuf {
        self.root.join(FORMAT_FILE)
    }

    /// `sif/sha256`: artifacts are written here, then linked into the directory of their digest.
    pub fn artifacts(&self) -> PathBuf {
        self.root.join("sif/sha256")
    }

    pub fn artifact(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.artifacts().join(&hex[..2]).join(format!("{hex}.sif"))
    }

    pub fn shadows(&self) -> PathBuf {
        self.root.join("shadows")
    }

    /// What stands for the artifact in a pod.
    pub fn shadow(&self, digest: &Digest) -> PathBuf {
        self.shadows().join(format!("{}.json", digest.hex()))
    }

    pub fn recipe(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.root.join("recipes/sha256").join(&hex[..2]).join(format!("{hex}.json"))
    }

    pub fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    /// The directory of one ref.
    pub fn ref_dir(&self, namespace: &str, name: &str) -> Result<PathBuf, Error> {
        names::check_namespace(namespace)?;
        names::check_name(name)?;
        Ok(self.refs().join(namespace).join(name))
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub fn claim(&self, recipe: &Digest) -> PathBuf {
        self.root.join("claims").join(format!("{}.json", recipe.hex()))
    }

    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub fn lease(&self, node: &str) -> Result<PathBuf, Error> {
        names::check_node(node)?;
        Ok(self.leases().join(format!("{node}.json")))
    }

    /// Below `import/`: archives that an administrator put there.
    pub fn import(&self, namespace: &str) -> Result<PathBuf, Error> {
        names::check_namespace(namespace)?;
        Ok(self.root.join("import").join(namespace))
    }

    pub fn temp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Where unfinished files can lie: directories, and how many levels below them.
    pub(crate) fn unfinished(&self) -> Vec<(PathBuf, usize)> {
        let below = |directory: &str, depth| (self.root.join(directory), depth);
        vec![
            (self.root.clone(), 0),
            below("sif/sha256", 0),
            below("shadows", 0),
            below("recipes/sha256", 1),
            below("refs", 2),
            below("blobs/sha256", 1),
            below("packs/sha256", 1),
            below("claims", 0),
            below("leases", 0),
            below("tmp", 0),
            below("trash/cache", 0),
        ]
    }

    /// The directories of an empty store.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        [
            "sif",
            "sif/sha256",
            "shadows",
            "recipes",
            "recipes/sha256",
            "refs",
            "blobs",
            "blobs/sha256",
            "claims",
            "leases",
            "tmp",
            "trash",
        ]
        .iter()
        .map(|directory| self.root.join(directory))
        .collect()
    }
}

/// `<dir>/sha256/ab/<hex>`: where a blob cache at `dir` keeps a blob.
pub(crate) fn blob(dir: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    dir.join("sha256").join(&hex[..2]).join(hex)
}

/// `<revision>.json` in a ref's directory, and `current`.
pub(crate) fn revision(ref_dir: &Path, revision: u64) -> PathBuf {
    ref_dir.join(format!("{revision}.json"))
}

pub(crate) fn current(ref_dir: &Path) -> PathBuf {
    ref_dir.join("current")
}
