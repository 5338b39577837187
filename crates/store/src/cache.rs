//! The layer cache as a whole: what is in it, and what goes when it is to be smaller.
//!
//! One bound holds for blobs and packs. What goes, the least recently used first, until the rest fits:
//!
//! 1. packs whose blob is there: they can be made again;
//! 2. blobs whose pack is complete: the pack serves as well;
//! 3. the rest, which is fetched again when it is needed again.
//!
//! Whoever opens a blob or a pack sets its mtime, which says when it was last used: times are compared with each other only,
//! and decide nothing but this order. What was used within [`GRACE`] stays.
//!
//! Builds on other hosts may be reading what goes. So it is renamed into `trash/cache/`, where open handles stay valid on NFS,
//! too, and unlinked by a later sweep, when it has lain there for [`GRACE`] by the file server's own clock. A local file system
//! has no other hosts: there it is unlinked at once, and its readers keep it ([`Removal`]).
//!
//! With the last file of a digest go the notes of what was seen of it: `<hex>.from/`, `<hex>.of/`.

use crate::durable::{self, Temp};
use crate::layout::TEMP_PREFIX;
use crate::packs::PART;
use crate::{Blobs, Error};
use siforge_reference::Digest;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Longer than any pause of a reader between two reads of a layer.
pub const GRACE: Duration = Duration::from_secs(600);

/// How the names of what is discarded begin; what follows is one writer's and occurs once.
const DISCARDED: &str = "gone-";

/// Magic numbers of `statfs(2)`: file systems that are this host's alone. For one that is not among them a removal takes
/// longer, no more. ext, XFS, btrfs, tmpfs, ZFS, F2FS, bcachefs, overlay.
const LOCAL: [u64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e, 0x794c_7630];

/// How files leave the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Unlinked: whoever reads them is on this host, and keeps them.
    AtOnce,
    /// By way of the trash: other hosts may be reading them.
    Later,
}

impl Removal {
    /// For a cache of one user, `own`, or of many, at whose directory nobody knows who reads.
    pub fn of(cache: &Blobs, own: bool) -> Self {
        let kind = rustix::fs::statfs(cache.dir()).map(|found| found.f_type as u64);
        let local = kind.is_ok_and(|magic| LOCAL.contains(&(magic & 0xffff_ffff)));
        if own && local { Self::AtOnce } else { Self::Later }
    }
}

/// What a file of the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Blob,
    Pack {
        /// Nothing is absent.
        complete: bool,
    },
}

/// One file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub what: What,
    /// The blob's digest, or the pack's diff_id.
    pub digest: Digest,
    /// Of a pack: the blobs that were seen to give its layer.
    pub blobs: Vec<Digest>,
    pub path: PathBuf,
    pub bytes: u64,
    /// When it was last used, by its user's clock.
    pub used: SystemTime,
}

/// Notes that the file is used; a reader without the right to do so uses it all the same.
pub(crate) fn used(file: File) -> File {
    let _ = file.set_modified(SystemTime::now());
    file
}

/// All blobs and packs. What appears or goes meanwhile may be among them or not.
pub fn entries(cache: &Blobs) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    for (dir, of) in [(cache.dir().to_owned(), false), (cache.packs().dir().to_owned(), true)] {
        let hashes = dir.join("sha256");
        for prefix in durable::list(&hashes)? {
            let dir = hashes.join(prefix);
            for name in durable::list(&dir)? {
                found.extend(entry(&dir, &name, of)?);
            }
        }
    }
    Ok(found)
}

/// None for what is neither a blob nor a pack.
fn entry(dir: &Path, name: &str, of_packs: bool) -> Result<Option<Entry>, Error> {
    let path = dir.join(name);
    let (hex, kind) = name.split_once('.').map_or((name, None), |(hex, kind)| (hex, Some(kind)));
    let what = match kind {
        None if !of_packs => What::Blob,
        Some(kind) if of_packs && kind != "of" => What::Pack { complete: !kind.ends_with(&format!(".{PART}")) },
        _ => return Ok(None),
    };
    let Some(digest) = digest(hex) else {
        return Ok(None);
    };
    let metadata = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("stat", &path))?,
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    let blobs = match what {
        What::Blob => Vec::new(),
        What::Pack { .. } => {
            durable::list(&dir.join(format!("{hex}.of")))?.iter().filter_map(|hex| self::digest(hex)).collect()
        }
    };
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Some(Entry { what, digest, blobs, path, bytes: metadata.len(), used }))
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

/// What goes so that at most `bound` bytes stay; see the module's docs.
pub fn surplus(mut entries: Vec<Entry>, bound: u64, now: SystemTime) -> Vec<Entry> {
    entries.sort_by_key(|entry| entry.used);
    let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut blobs: HashSet<Digest> = HashSet::new();
    let mut packed: HashSet<Digest> = HashSet::new();
    for entry in &entries {
        match entry.what {
            What::Blob => drop(blobs.insert(entry.digest)),
            What::Pack { complete: true } => packed.extend(entry.blobs.iter().copied()),
            What::Pack { complete: false } => {}
        }
    }
    // A clock that is ahead of ours does not make a file immortal: it is looked at by the order alone.
    let resting = |entry: &Entry| now.duration_since(entry.used).is_ok_and(|age| age >= GRACE);
    let mut gone = Vec::new();
    for tier in 1..=3 {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for entry in entries {
            let goes = match (tier, entry.what) {
                (1, What::Pack { .. }) => entry.blobs.iter().any(|blob| blobs.contains(blob)),
                (2, What::Blob) => packed.contains(&entry.digest),
                (3, _) => true,
                _ => false,
            };
            if left > bound && goes && resting(&entry) {
                left -= entry.bytes;
                taken.push(entry);
            } else {
                kept.push(entry);
            }
        }
        if tier == 1 {
            // Other kinds of the same layer may have stayed.
            packed = kept
                .iter()
                .filter(|entry| entry.what == What::Pack { complete: true })
                .flat_map(|entry| entry.blobs.iter().copied())
                .collect();
        }
        gone.append(&mut taken);
        entries = kept;
    }
    gone
}

/// Moves the file out of the cache; false if it was gone. Its space is free after a later [`sweep`].
pub fn discard(cache: &Blobs, entry: &Entry) -> Result<bool, Error> {
    let trash = trash(cache);
    durable::make_dirs(&trash)?;
    let name = crate::writer::Writer::current().temp_name();
    let target = trash.join(name.replacen(TEMP_PREFIX, DISCARDED, 1));
    match std::fs::rename(&entry.path, &target) {
        Ok(()) => {
            forget(entry)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("rename to", &target)(error)),
    }
}

/// Removes the file at once. Readers on this host keep it; those on other hosts fetch it again.
pub fn remove(entry: &Entry) -> Result<bool, Error> {
    let removed = durable::remove(&entry.path)?;
    forget(entry)?;
    Ok(removed)
}

/// Removes the notes of a digest of which no file is left. A note that someone makes meanwhile may be lost with them: that costs
/// a download or a decoding.
fn forget(entry: &Entry) -> Result<(), Error> {
    let (hex, Some(dir)) = (entry.digest.hex(), entry.path.parent()) else {
        return Ok(());
    };
    let notes = match entry.what {
        What::Blob => format!("{hex}.from"),
        What::Pack { .. } => {
            let other = |name: &String| name.starts_with(&format!("{hex}.")) && !name.ends_with(".of");
            if durable::list(dir)?.iter().any(other) {
                return Ok(());
            }
            format!("{hex}.of")
        }
    };
    let notes = dir.join(notes);
    match std::fs::remove_dir_all(&notes) {
        // Whoever notes something meanwhile wins.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io("remove", &notes)(error))
        }
        _ => Ok(()),
    }
}

/// A file that left the cache, and whose space is not free yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    pub path: PathBuf,
    pub bytes: u64,
    /// When it was last used, by its user's clock.
    pub used: SystemTime,
}

/// What waits for a [`sweep`].
pub fn discarded(cache: &Blobs) -> Result<Vec<Discarded>, Error> {
    let trash = trash(cache);
    let of = |name: String| {
        let path = trash.join(name);
        let metadata = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Discarded { path, bytes: metadata.len(), used })
    };
    Ok(names(&trash)?.into_iter().filter_map(of).collect())
}

fn names(trash: &Path) -> Result<Vec<String>, Error> {
    let mut names = durable::list(trash)?;
    names.retain(|name| name.starts_with(DISCARDED));
    Ok(names)
}

/// Unlinks what was discarded at least [`GRACE`] ago; the bytes.
pub fn sweep(cache: &Blobs) -> Result<u64, Error> {
    let trash = trash(cache);
    let names = names(&trash)?;
    if names.is_empty() {
        return Ok(0);
    }
    // The server's clock gives the new file its time, as it gave the renamed ones theirs.
    let probe = Temp::create(&trash)?;
    let now = probe.file.metadata().map_err(Error::io("stat", probe.path()))?.ctime();
    let mut freed = 0;
    for name in names {
        let path = trash.join(name);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_file() && now.saturating_sub(metadata.ctime()) >= GRACE.as_secs() as i64 {
            freed += if durable::remove(&path)? { metadata.len() } else { 0 };
        }
    }
    Ok(freed)
}

/// Brings the cache below `bound` bytes; what went.
pub fn enforce(cache: &Blobs, bound: u64, removal: Removal) -> Result<Vec<Entry>, Error> {
    sweep(cache)?;
    let mut gone = surplus(entries(cache)?, bound, SystemTime::now());
    let mut error = None;
    let go = |entry: &Entry| match removal {
        Removal::AtOnce => remove(entry),
        Removal::Later => discard(cache, entry),
    };
    gone.retain(|entry| match go(entry) {
        Ok(went) => went,
        Err(failure) => {
            error = Some(failure);
            false
        }
    });
    error.map_or(Ok(gone), Err)
}

fn trash(cache: &Blobs) -> PathBuf {
    // The store has damaged artifacts beside it.
    cache.dir().with_file_name("trash").join("cache")
}

#[cfg(test)]
mod tests;
