//! Where a launch takes the root file system from.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::image::{IMAGE_ATTRIBUTES, mount_unlocked};
use crate::syscall::ATTR_RDONLY;
use crate::{Error, syscall};

/// The root file system of a launch.
#[derive(Debug)]
pub enum RootFs {
    /// A detached mount with its attributes set, such as the agent sends.
    Detached(OwnedFd),
    /// A squashfs in a file; root only.
    Squashfs {
        /// The file, open for reading.
        file: File,
        /// Its name, for messages and losetup.
        path: PathBuf,
        /// Where the squashfs begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// A directory: unpacked in a cache, or a sandbox.
    Directory(PathBuf),
}

impl RootFs {
    /// The detached mount, in the mount namespace of the launch. Inode numbers and contents are the source's. `writable`:
    /// of a directory, which alone can be.
    pub(crate) fn into_mount(self, writable: bool) -> Result<OwnedFd, Error> {
        match self {
            RootFs::Detached(_) | RootFs::Squashfs { .. } if writable => Err(Error::NotWritable),
            RootFs::Detached(mount) => Ok(mount),
            RootFs::Squashfs { file, path, offset, size } => mount_unlocked(file.as_fd(), &path, offset, size),
            RootFs::Directory(path) => {
                // Recursive: the kernel refuses to show what lies under another user's mounts.
                let flags =
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
                let mount = rustix::mount::open_tree(CWD, &path, flags).map_err(Error::path("open image", &path))?;
                let attributes = if writable { IMAGE_ATTRIBUTES & !ATTR_RDONLY } else { IMAGE_ATTRIBUTES };
                syscall::mount_setattr(mount.as_fd(), attributes, true, None)
                    .map_err(Error::path("set mount attributes of", &path))?;
                Ok(mount)
            }
        }
    }
}
