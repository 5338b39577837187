//! The layer cache: blobs by digest. Used by the operator's store and by the CLI's per-user cache directory.
//!
//! ```text
//! <dir>/sha256/ab/<hex>            complete and verified: whoever commits has hashed it
//! <dir>/sha256/ab/.tmp-<writer>    being downloaded
//! ```

use crate::durable::{self, Temp};
use crate::{Error, Packs, cache, layout, leftovers};
use siforge_reference::Digest;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Private images' layers lie here too: only the builder (and its group) reads blobs.
const MODE: u32 = 0o640;

/// A blob cache at a directory. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blobs {
    dir: PathBuf,
}

/// A blob that is being downloaded. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct PendingBlob {
    temp: Temp,
    target: PathBuf,
}

impl Blobs {
    /// The cache at `dir`, which is made if it is not there.
    pub fn at(dir: &Path) -> Result<Self, Error> {
        durable::make_dirs(&dir.join("sha256"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The packs beside these blobs: `packs` in the same directory.
    pub fn packs(&self) -> Packs {
        Packs::at(&self.dir.with_file_name("packs"))
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        layout::blob(&self.dir, digest)
    }

    /// Opens a complete blob for reading; None if the cache has it not. Counts as use.
    pub fn open(&self, digest: &Digest) -> Result<Option<File>, Error> {
        Ok(durable::open_existing(&self.path(digest))?.map(cache::used))
    }

    /// The directory of the blobs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn begin(&self, digest: &Digest) -> Result<PendingBlob, Error> {
        let target = self.path(digest);
        // The layout gives every blob a directory of its own hash prefix.
        let dir = target.parent().unwrap_or(&self.dir);
        durable::make_dirs(dir)?;
        Ok(PendingBlob { temp: Temp::create(dir)?, target })
    }

    /// Removes a blob, for instance one that turned out damaged; false if it was not there. Open handles stay valid.
    pub fn remove(&self, digest: &Digest) -> Result<bool, Error> {
        durable::remove(&self.path(digest))
    }

    /// Removes what dead builds of this machine left, of blobs and of packs, and returns how many; and what left the cache long
    /// enough ago.
    pub fn sweep_dead(&self) -> Result<usize, Error> {
        cache::sweep(self)?;
        let blobs = leftovers::remove_dead(&leftovers::find(&self.dir.join("sha256"), 1)?)?;
        Ok(blobs + self.packs().sweep_dead()?)
    }
}

impl PendingBlob {
    /// Open for reading and writing, empty. Shared, not duplicated: an image may have some hundred blobs, and a process some
    /// thousand descriptors.
    pub fn file(&self) -> &Arc<File> {
        &self.temp.file
    }

    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Gives the blob its name. The caller has checked length and digest: what has a name here is trusted by its readers.
    /// One that is there already stays, and ours goes.
    pub fn commit(self) -> Result<(), Error> {
        self.temp.seal(MODE)?;
        self.temp.link(&self.target).map(|_| ())
    }
}
