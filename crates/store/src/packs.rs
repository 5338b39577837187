//! The other half of the layer cache: layers as squashfs blocks, beside the blobs.
//!
//! ```text
//! <dir>/sha256/ab/<diff_id>.<kind>        a complete pack; kind: what besides the layer decides it (`zstd-3-256k.2`)
//! <dir>/sha256/ab/<diff_id>.<kind>.part   a pack in which something is absent
//! <dir>/sha256/ab/<diff_id>.of/<blob>     empty; this blob was seen to decode to the diff_id
//! <dir>/sha256/ab/.tmp-<writer>           being written
//! ```
//!
//! A pack checks itself when it is read, so nobody trusts a name here. It is named by what the layer decodes to, and that is
//! not what a registry vouches for: who was given blob B may use the packs of what B was *seen* to decode to, and no other, else
//! an image config that claims a foreign diff_id would be given that layer.

use crate::durable::{self, Temp};
use crate::{Error, cache, layout, leftovers};
use siforge_reference::Digest;
use std::fs::File;
use std::path::{Path, PathBuf};

/// As blobs: private images' layers lie here too.
const MODE: u32 = 0o640;

/// A cache of packs at a directory. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packs {
    dir: PathBuf,
}

/// A pack that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct PendingPack {
    temp: Temp,
    target: PathBuf,
}

impl Packs {
    /// The cache at `dir`, which is made when something is put into it.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, diff_id: &Digest, kind: &str, complete: bool) -> PathBuf {
        let path = with_suffix(&layout::blob(&self.dir, diff_id), kind);
        if complete { path } else { with_suffix(&path, PART) }
    }

    /// Opens a pack for reading, a complete one rather than one that is not; None if there is none. Counts as use.
    pub fn open(&self, diff_id: &Digest, kind: &str) -> Result<Option<File>, Error> {
        match durable::open_existing(&self.path(diff_id, kind, true))? {
            Some(file) => Ok(Some(cache::used(file))),
            None => Ok(durable::open_existing(&self.path(diff_id, kind, false))?.map(cache::used)),
        }
    }

    pub fn begin(&self, diff_id: &Digest, kind: &str) -> Result<PendingPack, Error> {
        let target = self.path(diff_id, kind, true);
        // The layout gives every pack a directory of its own hash prefix.
        let dir = target.parent().unwrap_or(&self.dir);
        durable::make_dirs(dir)?;
        Ok(PendingPack { temp: Temp::create(dir)?, target })
    }

    /// An empty file without a name, for what a build puts aside.
    pub fn scratch(&self) -> Result<File, Error> {
        let dir = self.dir.join("sha256");
        durable::make_dirs(&dir)?;
        let temp = Temp::create(&dir)?;
        temp.file.try_clone().map_err(Error::io("duplicate the descriptor of", temp.path()))
    }

    /// Removes a pack, for instance a damaged one; false if it was not there. Open handles stay valid.
    pub fn remove(&self, diff_id: &Digest, kind: &str) -> Result<bool, Error> {
        let complete = durable::remove(&self.path(diff_id, kind, true))?;
        Ok(durable::remove(&self.path(diff_id, kind, false))? || complete)
    }

    /// Notes that `blob` was decoded and gave the layer of `diff_id`. Idempotent; losing the note costs a decoding.
    pub fn note_blob(&self, diff_id: &Digest, blob: &Digest) -> Result<(), Error> {
        durable::note(&self.seen(diff_id, blob))
    }

    /// Whether `blob` was seen to decode to the layer of `diff_id`.
    pub fn is_of_blob(&self, diff_id: &Digest, blob: &Digest) -> Result<bool, Error> {
        let path = self.seen(diff_id, blob);
        path.try_exists().map_err(Error::io("stat", &path))
    }

    /// Removes what dead builds of this machine left; returns how many.
    pub fn sweep_dead(&self) -> Result<usize, Error> {
        leftovers::remove_dead(&leftovers::find(&self.dir.join("sha256"), 1)?)
    }

    fn seen(&self, diff_id: &Digest, blob: &Digest) -> PathBuf {
        with_suffix(&layout::blob(&self.dir, diff_id), "of").join(blob.hex())
    }
}

/// Suffix of packs in which something is absent.
pub(crate) const PART: &str = "part";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

impl PendingPack {
    /// Open for reading and writing, empty.
    pub fn file(&self) -> &File {
        &self.temp.file
    }

    /// Gives the pack its name. One that is there already stays; a complete one ends those that are not: who has one open
    /// keeps it.
    pub fn commit(self, complete: bool) -> Result<(), Error> {
        self.temp.seal(MODE)?;
        let part = with_suffix(&self.target, PART);
        if complete {
            self.temp.link(&self.target)?;
            durable::remove(&part).map(|_| ())
        } else {
            self.temp.link(&part).map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn packs_appear_whole_and_only_a_fuller_one_replaces() {
        let dir = tempfile::tempdir().expect("temp dir");
        let packs = Packs::at(&dir.path().join("packs"));
        let layer = Digest::from_bytes([7; 32]);
        let put = |text: &str, complete| {
            let pending = packs.begin(&layer, "zstd-3-256k.2").expect("begin");
            pending.file().write_all(text.as_bytes()).expect("write");
            pending.commit(complete).expect("commit");
        };
        let get = || {
            let file = packs.open(&layer, "zstd-3-256k.2").expect("open");
            file.map(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).map(|_| text).expect("read")
            })
        };
        assert_eq!(get(), None);
        drop(packs.begin(&layer, "zstd-3-256k.2").expect("begin"));
        assert_eq!(get(), None);
        for (text, complete, expect) in [
            ("one", false, "one"),
            ("two", false, "one"),
            ("three", true, "three"),
            ("four", true, "three"),
            ("five", false, "three"),
        ] {
            put(text, complete);
            assert_eq!(get().as_deref(), Some(expect));
        }
        assert!(packs.open(&layer, "gzip-9-256k.2").expect("open").is_none());
        assert!(packs.remove(&layer, "zstd-3-256k.2").expect("remove"));
        assert_eq!(get(), None);
        let mut scratch = packs.scratch().expect("scratch");
        scratch.write_all(b"x").expect("write");
        let names = std::fs::read_dir(packs.dir().join("sha256")).expect("list");
        assert_eq!(names.count(), 1, "the prefix directory alone");
    }

    #[test]
    fn a_pack_is_of_the_blobs_that_were_seen_to_give_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let packs = Packs::at(dir.path());
        let [layer, blob, other] = [1, 2, 3].map(|byte| Digest::from_bytes([byte; 32]));
        let is_of = |blob| packs.is_of_blob(&layer, blob).expect("is_of_blob");
        assert!(!is_of(&blob));
        for _ in 0..2 {
            packs.note_blob(&layer, &blob).expect("note");
        }
        assert!(is_of(&blob) && !is_of(&other));
    }
}
