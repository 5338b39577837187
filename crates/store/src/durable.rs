//! Files that are there whole or not at all, and stay after a crash.
//!
//! ```text
//! create:  temp in the same directory → write → fsync → link(temp, name) → fsync(directory) → unlink temp
//! replace: temp in the same directory → write → fsync → rename(temp, name) → fsync(directory)
//! ```

use crate::Error;
use crate::layout::TEMP_PREFIX;
use crate::writer::Writer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An unfinished file; removed when dropped.
#[derive(Debug)]
pub(crate) struct Temp {
    pub(crate) file: Arc<File>,
    path: PathBuf,
}

impl Temp {
    /// A new empty file, mode 0600, open for reading and writing.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(Writer::current().temp_name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Self { file: Arc::new(file), path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the mode and brings the bytes to the disk.
    pub(crate) fn seal(&self, mode: u32) -> Result<(), Error> {
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(Error::io("set the mode of", &self.path))?;
        self.file.sync_all().map_err(Error::io("fsync", &self.path))
    }

    /// Gives the file the name `target` unless that name is taken.
    pub(crate) fn link(&self, target: &Path) -> Result<Link, Error> {
        match std::fs::hard_link(&self.path, target) {
            Ok(()) => {}
            // A lost reply makes an NFS client send the call again, and the second answer is EEXIST: then the file has two names.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let links = self.file.metadata().map_err(Error::io("stat", &self.path))?.nlink();
                if !is_own_link(links, same_file(&self.path, target)) {
                    return Ok(Link::Taken);
                }
            }
            Err(error) => return Err(Error::io("link", target)(error)),
        }
        sync_parent(target)?;
        Ok(Link::Made)
    }

    /// Gives the file the name `target`, replacing what had it.
    pub(crate) fn rename(self, target: &Path) -> Result<(), Error> {
        std::fs::rename(&self.path, target).map_err(Error::io("rename to", target))?;
        sync_parent(target)
        // Drop tries to unlink the temporary name, which is gone: harmless.
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Gone already after a rename; else what cannot be unlinked is found by its name later.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Made,
    Taken,
}

/// After EEXIST: our own earlier call succeeded if our file has a second name and the target is that file.
pub(crate) fn is_own_link(links: u64, same_file: bool) -> bool {
    links >= 2 && same_file
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::symlink_metadata(a), std::fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Makes a directory and its parents; each new name is on the disk when this returns. A new directory is as open to others as its
/// parent, whatever the umask: agents must reach what the builder made, and a private cache stays private.
pub(crate) fn make_dirs(path: &Path) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Ok(()) => {
            open_as_parent(path)?;
            sync_parent(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let Some(parent) = parent else {
                return Err(Error::io("make directory", path)(error));
            };
            make_dirs(parent)?;
            match std::fs::create_dir(path) {
                Ok(()) => open_as_parent(path)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("make directory", path)(error)),
            }
            sync_parent(path)
        }
        Err(error) => Err(Error::io("make directory", path)(error)),
    }
}

fn open_as_parent(path: &Path) -> Result<(), Error> {
    let mode = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.mode()).map_err(Error::io("stat", path));
    // Read and search are taken over, writing is the owner's; a set-group-ID bit that mkdir gave stays.
    let wanted = mode(parent_of(path))? & 0o055 | 0o700 | mode(path)? & 0o7000;
    std::fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(Error::io("set the mode of", path))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = parent_of(path);
    let dir = File::open(parent).map_err(Error::io("open directory", parent))?;
    dir.sync_all().map_err(Error::io("fsync directory", parent))
}

/// Makes an empty file, whose name is all that it says, and its directory. Whoever removes old notes may take the directory away
/// meanwhile.
pub(crate) fn note(path: &Path) -> Result<(), Error> {
    let mut again = true;
    loop {
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if again && error.kind() == io::ErrorKind::NotFound => again = false,
            Err(error) => return Err(Error::io("create", path)(error)),
        }
    }
}

/// Unlinks; a missing file is fine.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("unlink", path)(error)),
    }
}

/// Opens for reading; None if there is no such file.
pub(crate) fn open_existing(path: &Path) -> Result<Option<File>, Error> {
    retry_stale(|| File::open(path)).map_or_else(
        |error| {
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(Error::io("open", path)(error)) }
        },
        |file| Ok(Some(file)),
    )
}

/// Reads a whole small file; None if there is none.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        // Nearly all are smaller: one read, and one that finds the end.
        let mut bytes = Vec::with_capacity(4096);
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match retry_stale(read) {
        Ok(bytes) if bytes.len() as u64 > limit => Err(Error::TooLarge { path: path.to_owned(), limit }),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// On NFS a file replaced by rename on another node turns ESTALE under an open handle: open it by name again.
fn retry_stale<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for pause in [0, 5, 20, 100] {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => {
                std::thread::sleep(Duration::from_millis(pause))
            }
            result => return result,
        }
    }
    act()
}

/// Reads JSON with a `format` number; None if there is no file. Unknown fields are tolerated, newer formats refused.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64, format: u32) -> Result<Option<T>, Error> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let Some(bytes) = read_small(path, limit)? else {
        return Ok(None);
    };
    let damaged = |error: serde_json::Error| Error::Damaged { path: path.to_owned(), reason: error.to_string() };
    let head: Head = serde_json::from_slice(&bytes).map_err(damaged)?;
    if head.format > format {
        return Err(Error::FileFormat { path: path.to_owned(), found: head.format, known: format });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// A sealed unfinished file that holds `value` as JSON.
pub(crate) fn json_temp<T: Serialize>(dir: &Path, value: &T, mode: u32) -> Result<Temp, Error> {
    let temp = Temp::create(dir)?;
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::io("encode", dir)(error.into()))?;
    bytes.push(b'\n');
    (&*temp.file).write_all(&bytes).map_err(Error::io("write", temp.path()))?;
    temp.seal(mode)?;
    Ok(temp)
}

/// The UTF-8 names in a directory, unfinished files left out; none if there is no such directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(Error::io("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        names.extend(name.into_string().ok().filter(|name| !name.starts_with(TEMP_PREFIX)));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eexist_after_a_lost_reply_is_our_own_link() {
        // What an NFS client does when the reply to LINK was lost: it sends the call again and gets EEXIST.
        let dir = tempfile::tempdir().unwrap();
        let temp = Temp::create(dir.path()).unwrap();
        let target = dir.path().join("name");
        std::fs::hard_link(temp.path(), &target).unwrap();
        assert_eq!(temp.link(&target).unwrap(), Link::Made);
    }

    #[test]
    fn eexist_of_anothers_file_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let temp = Temp::create(dir.path()).unwrap();
        let target = dir.path().join("name");
        std::fs::write(&target, "other").unwrap();
        assert_eq!(temp.link(&target).unwrap(), Link::Taken);
        // A second name elsewhere does not make the target ours.
        std::fs::hard_link(temp.path(), dir.path().join("elsewhere")).unwrap();
        assert_eq!(temp.link(&target).unwrap(), Link::Taken);
        assert_eq!(std::fs::read(&target).unwrap(), b"other");
    }

    #[test]
    fn whose_link_it_is() {
        for (links, same_file, expected) in
            [(1, false, false), (1, true, false), (2, false, false), (2, true, true), (3, true, true)]
        {
            assert_eq!(is_own_link(links, same_file), expected, "{links} {same_file}");
        }
    }

    #[test]
    fn stale_handles_are_opened_again() {
        let mut tries = 0;
        let result = retry_stale(|| {
            tries += 1;
            if tries < 3 { Err(io::ErrorKind::StaleNetworkFileHandle.into()) } else { Ok(tries) }
        });
        assert_eq!(result.unwrap(), 3);
        assert!(retry_stale(|| Err::<(), _>(io::ErrorKind::StaleNetworkFileHandle.into())).is_err());
    }

    #[test]
    fn json_is_bounded_and_versioned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let read = |limit| read_json::<serde_json::Value>(&path, limit, 1);
        assert!(read(10).unwrap().is_none());
        std::fs::write(&path, r#"{"format": 1, "later": [1]}"#).unwrap();
        assert!(read(100).unwrap().is_some());
        assert!(matches!(read(10), Err(Error::TooLarge { limit: 10, .. })));
        std::fs::write(&path, r#"{"format": 2}"#).unwrap();
        assert!(matches!(read(100), Err(Error::FileFormat { found: 2, .. })));
        for bad in ["", "{", "{}", "[]", "{\"format\": \"x\"}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(100), Err(Error::Damaged { .. })), "{bad}");
        }
    }
}
