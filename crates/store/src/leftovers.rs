//! What died in the middle: unfinished files, and whether they can go.
//!
//! On the machine where it was written, the writer's death can be seen. For other machines' files there is only the
//! [`Leftover::stamp`]: one that does not change for a grace period on the observer's own clock ([`crate::Watch`]) belongs to nobody.

use crate::layout::TEMP_PREFIX;
use crate::writer::{Liveness, Writer, start_time};
use crate::{Error, durable};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An unfinished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub path: PathBuf,
    pub liveness: Liveness,
    /// Bytes.
    pub len: u64,
    /// Changes whenever the file does: for [`crate::Watch::observe`], with the path as token. Not a time to compare with a clock.
    pub stamp: u64,
}

impl Leftover {
    /// Unlinks the file if it is still what was seen; false if it changed or is gone.
    pub fn remove(&self) -> Result<bool, Error> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) if stamp(&metadata) == self.stamp => durable::remove(&self.path),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("stat", &self.path)(error)),
        }
    }
}

/// Unfinished files in `dir` and `depth` levels below it.
pub(crate) fn find(dir: &Path, depth: usize) -> Result<Vec<Leftover>, Error> {
    let observer = Writer::current();
    let mut found = Vec::new();
    let mut directories = vec![(dir.to_owned(), depth)];
    while let Some((directory, depth)) = directories.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Error::io("list", &directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &directory))?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::io("stat", &entry.path()))?,
            };
            let name = entry.file_name();
            if metadata.is_dir() && depth > 0 {
                directories.push((entry.path(), depth - 1));
            } else if metadata.is_file() && name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes()) {
                let writer = name.to_str().and_then(Writer::of_temp_name);
                let liveness = writer.map_or(Liveness::Unknown, |writer| writer.liveness(&observer, start_time));
                found.push(Leftover { path: entry.path(), liveness, len: metadata.len(), stamp: stamp(&metadata) });
            }
        }
    }
    Ok(found)
}

pub(crate) fn remove_dead(found: &[Leftover]) -> Result<usize, Error> {
    let mut removed = 0;
    for leftover in found.iter().filter(|leftover| leftover.liveness == Liveness::Dead) {
        removed += usize::from(leftover.remove()?);
    }
    Ok(removed)
}

/// Length, times and inode mixed into one number (FNV-1a).
fn stamp(metadata: &std::fs::Metadata) -> u64 {
    let parts = [
        metadata.ino(),
        metadata.len(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ];
    parts
        .iter()
        .flat_map(|part| part.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
