//! Contents of files, written by several threads at once.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::Failure;
use super::walk::Place;
use crate::read::data::Extent;
use crate::read::{Error, Reader, Xattr};

/// A file that is being written. Whoever drops the last handle finishes it.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) directory: Arc<Place>,
    pub(super) name: Box<[u8]>,
    pub(super) last: Last,
}

/// What a file or directory gets when its contents are complete.
pub(super) struct Last {
    /// None: the caller's.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: u32,
    pub(super) mtime: u32,
    /// Attributes that a change of contents or owner would take away again.
    pub(super) xattrs: Vec<Xattr>,
}

/// Some extents of a file, none of them a hole.
pub(super) struct Job {
    pub(super) target: Arc<Target>,
    pub(super) extents: Vec<Extent>,
}

impl Target {
    /// Gives back one handle.
    pub(super) fn release(target: Arc<Self>, failure: &Failure) -> Result<(), Error> {
        let Some(last) = Arc::into_inner(target) else {
            return Ok(());
        };
        seal(&last.file, &last.last, failure, || last.directory.path(&last.name)).map_err(|error| last.error(error))
    }

    pub(super) fn error(&self, error: Error) -> Error {
        error.at(|| self.directory.path(&self.name))
    }
}

/// The final owner, mode, attributes and mtime; nothing is written afterwards. (Writing takes set-uid bits and capabilities, and so
/// does a change of owner.)
pub(super) fn seal(fd: impl AsFd, last: &Last, failure: &Failure, name: impl Fn() -> String) -> Result<(), Error> {
    if let Some((uid, gid)) = last.owner {
        rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|errno| create("set the owner", errno))?;
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(last.mode)).map_err(|errno| create("set the mode", errno))?;
    for xattr in &last.xattrs {
        let set = rustix::fs::fsetxattr(&fd, &*xattr.name, &xattr.value, XattrFlags::empty());
        if !taken(set)? {
            failure.refused(&name);
        }
    }
    rustix::fs::futimens(&fd, &timestamps(last.mtime)).map_err(|errno| create("set the modification time", errno))
}

/// Whether the file system took the attribute.
pub(super) fn taken(set: Result<(), Errno>) -> Result<bool, Error> {
    match set {
        Ok(()) => Ok(true),
        // No attributes at all, none so large, no room beside the inode: as file systems differ.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::TOOBIG | Errno::RANGE | Errno::NOSPC | Errno::DQUOT) => Ok(false),
        Err(errno) => Err(create("set an extended attribute", errno)),
    }
}

pub(super) fn timestamps(mtime: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.into(), tv_nsec: 0 },
    }
}

pub(super) fn create(operation: &'static str, error: impl Into<io::Error>) -> Error {
    Error::Create { operation, source: error.into() }
}

/// Takes jobs until there are no more. After a failure they are only taken, so that the walk does not wait.
pub(super) fn work(reader: &Reader, queue: &Mutex<Receiver<Job>>, failure: &Failure) {
    let mut buffer = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        if failure.is_set() {
            continue;
        }
        if let Err(error) = write(reader, job, failure, &mut buffer) {
            failure.set(error);
        }
    }
}

fn write(reader: &Reader, job: Job, failure: &Failure, buffer: &mut Vec<u8>) -> Result<(), Error> {
    let Job { target, extents } = job;
    for extent in &extents {
        let write = |data: &[u8]| {
            target.file.write_all_at(data, extent.at).map_err(|error| create("write the contents", error))
        };
        reader.extent(extent, buffer, write).map_err(|error| target.error(error))?;
    }
    Target::release(target, failure)
}
