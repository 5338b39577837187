//! Images unpacked for an ordinary user on a host without an agent.
//!
//! ```text
//! <cache>/unpacked/<key>/          complete: renamed into place
//! <cache>/unpacked/.tmp-<pid>-…/   being unpacked; a killed one is removed by the next
//! ```
//!
//! The key is the file's identity (device, inode, size, mtime, ctime): a changed SIF is unpacked anew. A file without a name
//! (`--disable-cache`) never comes a second time, so for it the key is what is in it. All owners become
//! the user; what only root could make (device nodes) is left out with one warning.

use crate::error::Error;
use sha2::{Digest as _, Sha256};
use siforge_sif::Partition;
use siforge_squashfs::read::{Reader, unpack};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TEMP_PREFIX: &str = ".tmp-";

/// The unpacked root of the squashfs `partition` of `file` (at `path`, for messages).
pub(crate) fn open(
    cache: &Path,
    path: &Path,
    file: File,
    partition: &Partition,
    note: impl Fn(std::fmt::Arguments<'_>),
) -> Result<PathBuf, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let dir = cache.join("unpacked");
    // Before anything in it is believed.
    crate::files::make_private(cache)?;
    crate::files::make_private(&dir)?;
    let target = dir.join(key(&file).map_err(read_error)?);
    if target.is_dir() {
        note(format_args!("{}: unpacked at {}", path.display(), target.display()));
        return Ok(target);
    }
    note(format_args!("{}: unpacking to {}, as only root can mount it", path.display(), target.display()));
    sweep(&dir);
    let temp = tempfile::Builder::new()
        .prefix(&format!("{TEMP_PREFIX}{}-", std::process::id()))
        .tempdir_in(&dir)
        .map_err(|source| Error::Unpack { path: dir.clone(), source })?;
    let squashfs_error = |source| Error::Squashfs { path: path.to_owned(), source };
    let reader = Reader::open(Arc::new(file), partition.offset, partition.size).map_err(squashfs_error)?;
    let unpacked = unpack(&reader, temp.path()).map_err(squashfs_error)?;
    for warning in unpacked.warnings {
        eprintln!("warning: {}: {warning}", path.display());
    }
    match std::fs::rename(temp.path(), &target) {
        Ok(()) => {
            // It has its name now: nothing is left to remove.
            let _ = temp.keep();
            Ok(target)
        }
        // Another process of this user was first.
        Err(_) if target.is_dir() => Ok(target),
        Err(source) => Err(Error::Unpack { path: target, source }),
    }
}

fn key(mut file: &File) -> io::Result<String> {
    let meta = file.metadata()?;
    if meta.nlink() == 0 {
        file.rewind()?;
        return Ok(crate::verified::hash(&mut file)?.0.hex());
    }
    let identity = format!(
        "{}:{}:{}:{}.{}:{}.{}",
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    let hash = Sha256::digest(identity);
    Ok(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// Removes what dead processes left. Best effort: what stays is only a waste.
fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(TEMP_PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
