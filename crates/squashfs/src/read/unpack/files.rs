//! Contents of files, written by several threads at once.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT};

use super::Failure;
use super::walk::Place;
use crate::read::data::Extent;
use crate::read::{Error, Reader};

/// A file that is being written. Whoever drops the last handle finishes it.
pub(super) struct Target {
    pub(super) file: File,
    pub(super) directory: Arc<Place>,
    pub(super) name: Box<[u8]>,
    pub(super) mode: u32,
    pub(super) mtime: u32,
}

/// Some extents of a file, none of them a hole.
pub(super) struct Job {
    pub(super) target: Arc<Target>,
    pub(super) extents: Vec<Extent>,
}

impl Target {
    /// Gives back one handle.
    pub(super) fn release(target: Arc<Self>) -> Result<(), Error> {
        match Arc::into_inner(target) {
            Some(last) => seal(&last.file, last.mode, last.mtime).map_err(|error| last.error(error)),
            None => Ok(()),
        }
    }

    pub(super) fn error(&self, error: Error) -> Error {
        error.at(|| self.directory.path(&self.name))
    }
}

/// The final mode and mtime; nothing is written afterwards. (Writing would take the set-uid bit again.)
pub(super) fn seal(fd: impl AsFd, mode: u32, mtime: u32) -> Result<(), Error> {
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|errno| create("set the mode", errno))?;
    rustix::fs::futimens(&fd, &timestamps(mtime)).map_err(|errno| create("set the modification time", errno))
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
        if let Err(error) = write(reader, job, &mut buffer) {
            failure.set(error);
        }
    }
}

fn write(reader: &Reader, job: Job, buffer: &mut Vec<u8>) -> Result<(), Error> {
    let Job { target, extents } = job;
    for extent in &extents {
        let write = |data: &[u8]| {
            target.file.write_all_at(data, extent.at).map_err(|error| create("write the contents", error))
        };
        reader.extent(extent, buffer, write).map_err(|error| target.error(error))?;
    }
    Target::release(target)
}
