//! A tree of files out of an image, made by whoever calls: an ordinary user, or root.
//!
//! ```text
//!  walk.rs   one thread: directories, empty files, links … in listing order    change.rs: modes, attributes, warnings
//!    │ jobs: an open file and some extents, a bounded queue
//!    ▼
//!  files.rs  threads: decompress, write; the last job of a file sets its mode and mtime
//! ```
//!
//! Everything is made beneath one directory descriptor, name by name, so that no symlink is ever followed. Directories
//! have mode 0700 until they are complete, the outermost to the very end: other users cannot reach in meanwhile,
//! whatever modes the image gives.

mod change;
mod files;
mod walk;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{Error, Reader};
use change::Named;
use walk::Walk;

pub use change::OWNER_XATTR;

/// Threads beyond this wait for the disk, and each holds two blocks.
const THREADS_MAX: usize = 16;
/// Jobs that wait. Each may hold an open file, and 1024 of these is a common limit.
const QUEUE: usize = 64;

/// A tree that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What differs from the image, at most one line of each kind.
    pub warnings: Vec<String>,
}

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// The caller's. Device nodes and the attributes `security.*` and `trusted.*` are left out; set-id bits stay only when root
    /// unpacks what belongs to id 0 in the image.
    #[default]
    Caller,
    /// As [`Self::Caller`], with the image's owners and modes in [`OWNER_XATTR`] of files and directories.
    Recorded,
    /// The image's, and so are modes, attributes and devices: for root.
    True,
}

/// How a tree is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    pub owners: Owners,
    /// Give the owner permissions where a mode shuts him out, unless owners are true.
    pub open: bool,
    /// Ends the work with [`Error::Stopped`] when it becomes true.
    pub stop: Option<&'a AtomicBool>,
}

/// Unpacks the whole image into the existing, empty directory `into`, which gets mode and mtime of the root. All is the caller's
/// and open to him. After an error `into` holds a part of the tree, and is accessible to its owner only.
pub fn unpack(reader: &Reader, into: &Path) -> Result<Unpacked, Error> {
    unpack_as(reader, into, &Options { open: true, ..Options::default() })
}

/// [`unpack`] in another way.
pub fn unpack_as(reader: &Reader, into: &Path, options: &Options<'_>) -> Result<Unpacked, Error> {
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let (jobs, queue) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let failure = Failure { stop: options.stop, ..Failure::default() };
    let (walked, panicked) = thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..threads {
            let (queue, failure) = (queue.clone(), &failure);
            let worker = thread::Builder::new()
                .name("unpack".into())
                .spawn_scoped(scope, move || files::work(reader, &queue, failure))
                .map_err(|source| Error::Spawn { source })?;
            workers.push(worker);
        }
        // When all workers are gone, so is the queue, and the walk ends.
        drop(queue);
        let walked = Walk::new(reader, jobs, &failure, options).run(into);
        let mut panicked = false;
        for worker in workers {
            panicked |= worker.join().is_err();
        }
        Ok((walked, panicked))
    })?;
    if failure.stopped() {
        return Err(Error::Stopped);
    }
    let (first, refused) = failure.into_parts();
    if let Some(error) = first {
        return Err(error);
    }
    let mut changes = walked?;
    changes.refused_xattrs.merge(refused);
    match panicked {
        true => Err(Error::Panicked),
        false => Ok(Unpacked { warnings: changes.warnings() }),
    }
}

/// What ends all: the first error of any worker, or the caller. And what workers have to tell.
#[derive(Default)]
struct Failure<'a> {
    any: AtomicBool,
    first: Mutex<Option<Error>>,
    stop: Option<&'a AtomicBool>,
    refused: Mutex<Named>,
}

impl Failure<'_> {
    fn set(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.any.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.any.load(Ordering::Relaxed) || self.stopped()
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// The file system did not take an attribute.
    fn refused(&self, name: impl FnOnce() -> String) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).add(name);
    }

    fn into_parts(self) -> (Option<Error>, Named) {
        let first = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        (first, self.refused.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
