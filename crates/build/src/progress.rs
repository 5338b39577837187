//! What a build is doing, for whoever cares to look.
//!
//! The pipeline writes a few atomics; a progress bar or a status writer polls [`Progress::snapshot`] at its own pace. So
//! nothing on the hot path waits for a terminal or an API server.

use siforge_oci::Download;
use siforge_reference::Digest;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The step a build is in. Later steps compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for a free worker or for another build of the same recipe.
    Pending,
    /// Blobs are fetched and, behind them, converted.
    Converting,
    /// The finished SIF is hashed.
    Hashing,
    /// The artifact gets its final name.
    Publishing,
    Done,
}

const PHASES: [Phase; 5] = [Phase::Pending, Phase::Converting, Phase::Hashing, Phase::Publishing, Phase::Done];

/// One layer blob, as a progress bar shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobState {
    pub digest: Digest,
    /// Compressed bytes.
    pub total: u64,
    pub done: u64,
    /// It was in the cache: nothing is fetched ("skip repeat blob").
    pub cached: bool,
}

/// A consistent-enough view of a build at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub phase: Phase,
    /// Topmost layer first, the order in which they are fetched.
    pub blobs: Vec<BlobState>,
    /// Compressed bytes read by the converter.
    pub bytes_done: u64,
    pub bytes_total: u64,
}

impl Snapshot {
    /// 0–100. Conversion is nearly all of the work, so that hashing and publishing get the last 5 %.
    pub fn percent(&self) -> u8 {
        let converted = if self.bytes_total == 0 {
            95
        } else {
            (95.0 * self.bytes_done.min(self.bytes_total) as f64 / self.bytes_total as f64) as u8
        };
        match self.phase {
            Phase::Pending => 0,
            Phase::Converting => converted,
            Phase::Hashing => 95,
            Phase::Publishing => 98,
            Phase::Done => 100,
        }
    }
}

struct Blob {
    digest: Digest,
    total: u64,
    /// None: the blob came from the cache.
    download: Option<Arc<Download>>,
}

/// Shared between one build and its watchers.
#[derive(Default)]
pub struct Progress {
    phase: AtomicU8,
    bytes_done: AtomicU64,
    /// Of this pass alone.
    pass_done: AtomicU64,
    bytes_total: AtomicU64,
    blobs: Mutex<Vec<Blob>>,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn snapshot(&self) -> Snapshot {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            phase: PHASES[usize::from(self.phase.load(Ordering::Relaxed)).min(PHASES.len() - 1)],
            blobs: blobs
                .iter()
                .map(|blob| BlobState {
                    digest: blob.digest,
                    total: blob.total,
                    done: blob.download.as_ref().map_or(blob.total, |download| download.written()),
                    cached: blob.download.is_none(),
                })
                .collect(),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The blobs are known: digest, compressed bytes, and the download unless the blob came from the cache.
    pub(crate) fn begin(&self, total: u64, blobs: impl Iterator<Item = (Digest, u64, Option<Arc<Download>>)>) {
        *self.blobs.lock().unwrap_or_else(PoisonError::into_inner) =
            blobs.map(|(digest, total, download)| Blob { digest, total, download }).collect();
        self.bytes_total.store(total, Ordering::Relaxed);
        self.restart();
        self.enter(Phase::Converting);
    }

    /// The converter reads all of it again. What is shown does not go back; it stands until this pass is farther.
    pub(crate) fn restart(&self) {
        self.pass_done.store(0, Ordering::Relaxed);
    }

    /// The converter has read `bytes` more.
    pub(crate) fn add_done(&self, bytes: u64) {
        let done = self.pass_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes_done.fetch_max(done, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phase: Phase, done: u64, total: u64, percent: u8) {
        let snapshot = Snapshot { phase, blobs: vec![], bytes_done: done, bytes_total: total };
        assert_eq!(snapshot.percent(), percent, "{phase:?} {done}/{total}");
    }

    #[test]
    fn a_second_pass_shows_what_the_first_has_read() {
        let progress = Progress::new();
        progress.begin(100, std::iter::empty());
        let mut shown = vec![];
        for bytes in [40, 40] {
            progress.add_done(bytes);
            shown.push(progress.snapshot().bytes_done);
        }
        progress.restart();
        for bytes in [50, 50] {
            progress.add_done(bytes);
            shown.push(progress.snapshot().bytes_done);
        }
        assert_eq!(shown, [40, 80, 80, 100]);
    }

    #[test]
    fn percent_never_goes_back_and_ends_at_100() {
        check(Phase::Pending, 0, 0, 0);
        check(Phase::Converting, 0, 100, 0);
        check(Phase::Converting, 50, 100, 47);
        check(Phase::Converting, 200, 100, 95);
        check(Phase::Converting, 0, 0, 95);
        check(Phase::Hashing, 100, 100, 95);
        check(Phase::Publishing, 100, 100, 98);
        check(Phase::Done, 100, 100, 100);
    }
}
