//! One process of a user makes an image, the others wait and take what it made.
//!
//! ```text
//! <cache>/locks/<key>     flock(2) while the image of this key is made; who held it removes it
//! ```
//!
//! It saves work and guards nothing: two that make the same image at once do no harm. So where there are no locks (some NFS)
//! nobody waits, and nobody waits for ever.

use crate::cli::Global;
use siforge_reference::Digest;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What holds the lock longer than this may have been stopped.
const PATIENCE: Duration = Duration::from_secs(1800);
const PAUSE: Duration = Duration::from_millis(100);

/// Held while an image is made. Dropped, it is the next one's turn.
pub(crate) struct Turn {
    _held: Option<Held>,
}

struct Held {
    path: PathBuf,
    /// Unlocked when it is closed.
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before it is unlocked, so that the next one sees that its file has no name any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Turn {
    /// Waits until no other process makes what `key` stands for.
    pub(crate) async fn wait(global: &Global, cache: &Path, key: &Digest) -> Self {
        let path = cache.join("locks").join(key.hex());
        let (started, mut told) = (Instant::now(), false);
        while started.elapsed() < PATIENCE {
            match take(&path) {
                Ok(Some(file)) => {
                    sweep(&path);
                    return Self { _held: Some(Held { path, _file: file }) };
                }
                Ok(None) => {}
                Err(_) => break,
            }
            if !told && !global.is_quiet() {
                eprintln!("another process of yours is making this image: waiting for it");
            }
            told = true;
            // flock(2) knows no time-out.
            tokio::time::sleep(PAUSE).await;
        }
        Self { _held: None }
    }

    /// For what is not made in the cache.
    pub(crate) fn free() -> Self {
        Self { _held: None }
    }
}

/// None: another process has it.
fn take(path: &Path) -> io::Result<Option<File>> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Open for writing: NFS makes a lock of the server's out of it, which wants that.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The one before removed its name between our opening and locking: the lock is of a file that nobody finds.
    let named = std::fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
    Ok(named.then_some(file))
}

/// Removes what killed processes left beside `own`. Best effort: what stays is an empty file.
fn sweep(own: &Path) {
    let entries = own.parent().map(std::fs::read_dir);
    for entry in entries.into_iter().flatten().flatten().flatten() {
        let path = entry.path();
        if path != own
            && let Ok(Some(file)) = take(&path)
        {
            drop(Held { path, _file: file });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_no_file_stays() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("locks/key");
        let first = Held { _file: take(&path).expect("lock").expect("free"), path: path.clone() };
        assert!(take(&path).expect("lock").is_none());
        drop(first);
        assert!(!path.exists());
        assert!(take(&path).expect("lock").is_some());
        let held = dir.path().join("locks/held");
        let _held = take(&held).expect("lock").expect("free");
        sweep(&dir.path().join("locks/own"));
        assert!(held.exists() && !path.exists(), "what nobody holds goes");
        assert!(take(Path::new("/proc/locks/none/key")).is_err(), "where no file can be there is no lock");
    }
}
