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
use walk::Walk;

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

/// Unpacks the whole image into the existing, empty directory `into`, which gets mode and mtime of the root.
///
/// Owners are not changed; device nodes and the attributes `security.*` and `trusted.*` are left out. Set-id bits stay
/// only when root unpacks what belongs to id 0 in the image. After an error `into` holds a part of the tree, and is
/// accessible to its owner only.
pub fn unpack(reader: &Reader, into: &Path) -> Result<Unpacked, Error> {
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX));
    let (jobs, queue) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let failure = Failure::default();
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
        let walked = Walk::new(reader, jobs, &failure).run(into);
        let mut panicked = false;
        for worker in workers {
            panicked |= worker.join().is_err();
        }
        Ok((walked, panicked))
    })?;
    if let Some(error) = failure.into_first() {
        return Err(error);
    }
    let warnings = walked?;
    match panicked {
        true => Err(Error::Panicked),
        false => Ok(Unpacked { warnings }),
    }
}

/// The first error of any worker; ends the others and the walk.
#[derive(Default)]
struct Failure {
    any: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    fn set(&self, error: Error) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.any.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn into_first(self) -> Option<Error> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
