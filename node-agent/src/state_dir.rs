//! The state directory and its lock: one agent at a time. On a local file system, so flock(2) is what it says, and the kernel ends it
//! with its holder however that ends.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// Someone else could put mounts, leases or a memo of verified files there.
    #[error("state directory {path} may be changed by others (owner {uid}, mode {mode:04o}): give one that only root can write", path = path.display())]
    Foreign { path: PathBuf, uid: u32, mode: u32 },
    /// An agent is running.
    #[error("another agent runs on the state directory {path}: stop it first, or give this one its own --state-dir", path = path.display())]
    Locked { path: PathBuf },
}

/// The locked directory; unlocked when dropped.
#[derive(Debug)]
pub struct StateDir {
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory if need be, and locks it without waiting.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let failed = |operation, path: &Path, source| Error::Io { operation, path: path.to_owned(), source };
        // Open to all: the socket is in it by default.
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(|source| failed("create", path, source))?;
        let metadata = std::fs::metadata(path).map_err(|source| failed("stat", path, source))?;
        let mode = metadata.mode() & 0o7777;
        let others = mode & 0o002 != 0 || (mode & 0o020 != 0 && metadata.gid() != 0);
        if metadata.uid() != nix::unistd::geteuid().as_raw() || others {
            return Err(Error::Foreign { path: path.to_owned(), uid: metadata.uid(), mode });
        }
        let file_path = path.join("agent.lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file_path);
        let file = file.map_err(|source| failed("open", &file_path, source))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(StateDir { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::Locked { path: path.to_owned() }),
            Err((_, errno)) => Err(failed("lock", &file_path, errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let held = StateDir::lock(&path).unwrap();
        let error = StateDir::lock(&path).unwrap_err().to_string();
        assert!(error.contains("another agent runs on the state directory"), "{error}");
        drop(held);
        StateDir::lock(&path).unwrap();
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o700, true), (0o755, true), (0o1777, false), (0o757, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), permissions).unwrap();
            let locked = StateDir::lock(directory.path());
            assert_eq!(locked.is_ok(), good, "{mode:o}: {locked:?}");
        }
    }
}
