//! This node's lease in the store: the artifacts that garbage collection must leave alone.
//!
//! A digest is in it *before* its artifact is opened, and until neither the mount table nor any loop device of the node uses it: a
//! launch keeps its copy of a mount, and with it the loop device, long after the agent let go. Loop devices are read from the
//! kernel, so that nothing a crash could forget is relied on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siforge_reference::Digest;
use siforge_store::{Error, LeaseWriter, Store};

use crate::loops;
use crate::table::Moment;

/// How often the counter is raised: a collector's time-to-live is a multiple of this.
const PERIOD: Duration = Duration::from_secs(30);

/// The one writer of this node's lease.
#[derive(Debug)]
pub struct NodeLease {
    writer: Mutex<Writer>,
    root: PathBuf,
}

#[derive(Debug)]
struct Writer {
    lease: LeaseWriter,
    written: Option<Moment>,
}

impl NodeLease {
    /// Takes up the lease with what an earlier agent left in it.
    pub fn open(store: &Store, node: &str) -> Result<Self, Error> {
        let lease = LeaseWriter::open(store, node)?;
        // Without symbolic links, as the kernel prints backing files.
        let root = std::fs::canonicalize(store.root()).unwrap_or_else(|_| store.root().to_owned());
        Ok(NodeLease { writer: Mutex::new(Writer { lease, written: None }), root })
    }

    /// Names a digest; on the store when this returns. The mount table must have it already, or [`NodeLease::tick`] may take it
    /// out again.
    pub fn add(&self, digest: &Digest) -> Result<(), Error> {
        self.lock().lease.add(digest)
    }

    /// Writes the lease when what is used has changed or the period is over. `mounted` gives what the mount table has; it is asked
    /// while the lease is locked, so that no [`NodeLease::add`] falls between.
    pub fn tick(&self, now: Moment, mounted: impl FnOnce() -> BTreeSet<Digest>) -> Result<(), Error> {
        let mut writer = self.lock();
        let mut used = mounted();
        match in_use(Path::new(loops::SYSFS), &self.root) {
            Ok(digests) => used.extend(digests),
            // Not knowing is no reason to give anything up.
            Err(error) => {
                tracing::warn!(%error, "list loop devices in {}", loops::SYSFS);
                used.extend(writer.lease.lease().digests.iter().copied());
            }
        }
        let overdue = writer.written.is_none_or(|written| now.since(written) >= PERIOD);
        if used != writer.lease.lease().digests {
            writer.lease.replace(used)?;
        } else if overdue {
            writer.lease.heartbeat()?;
        } else {
            return Ok(());
        }
        writer.written = Some(now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digests of all artifacts below `root` that loop devices use.
fn in_use(sysfs: &Path, root: &Path) -> std::io::Result<BTreeSet<Digest>> {
    let loops = loops::list(sysfs)?;
    let hexes = loops.iter().filter_map(|device| loops::artifact_hex(&device.file, root));
    Ok(hexes.filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(store: &Store) -> (u64, BTreeSet<Digest>) {
        let lease = store.read_lease("n1").unwrap().unwrap();
        (lease.counter, lease.digests)
    }

    #[test]
    fn it_is_written_on_change_and_by_period() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::init(directory.path(), None).unwrap();
        let lease = NodeLease::open(&store, "n1").unwrap();
        let digest = Digest::from_bytes([1; 32]);
        lease.add(&digest).unwrap();
        let (counter, digests) = read(&store);
        assert_eq!(digests, BTreeSet::from([digest]));

        let at = |seconds| Moment(Duration::from_secs(seconds));
        let cases =
            [(0, true, 1), (1, true, 1), (29, true, 1), (30, true, 2), (31, false, 3), (32, false, 3), (61, false, 4)];
        for (now, mounted, written) in cases {
            lease.tick(at(now), || if mounted { BTreeSet::from([digest]) } else { BTreeSet::new() }).unwrap();
            assert_eq!(read(&store).0, counter + written, "at {now}");
        }
        assert!(read(&store).1.is_empty());
    }

    #[test]
    fn loop_devices_count() {
        let sysfs = tempfile::tempdir().unwrap();
        let hex = "ab".repeat(32);
        for (name, file) in [("loop0", format!("/store/sif/sha256/ab/{hex}.sif\n")), ("loop1", "/other\n".to_owned())] {
            std::fs::create_dir_all(sysfs.path().join(name).join("loop")).unwrap();
            for (attribute, content) in [("loop/backing_file", file.as_str()), ("loop/offset", "0\n"), ("ro", "1\n")] {
                std::fs::write(sysfs.path().join(name).join(attribute), content).unwrap();
            }
        }
        let used = in_use(sysfs.path(), Path::new("/store")).unwrap();
        assert_eq!(used, BTreeSet::from([Digest::from_bytes([0xab; 32])]));
    }
}
