//! Leases: "this node uses these artifacts". One file per node, written by its agent alone.
//!
//! The lease names a digest *before* its artifact is opened, and for as long as a live loop device or mount of the node uses it. The
//! counter moves with every write and heartbeat; a collector takes a lease for dead only when its counter has stood still for the
//! time-to-live on the collector's own monotonic clock ([`crate::Watch::observe`]), and more besides.

use crate::durable;
use crate::writer::Writer;
use crate::{Error, Store};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use std::collections::BTreeSet;
use std::path::PathBuf;

const FORMAT: u32 = 1;
/// Most bytes of a lease that are read: some hundred thousand digests.
const LIMIT: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub format: u32,
    pub node: String,
    /// Which process writes it: changes with every start of the agent.
    pub token: String,
    /// Goes on over restarts.
    pub counter: u64,
    pub digests: BTreeSet<Digest>,
}

/// The one writer of a node's lease.
#[derive(Debug)]
pub struct LeaseWriter {
    path: PathBuf,
    dir: PathBuf,
    lease: Lease,
}

impl LeaseWriter {
    /// Takes up the node's lease with the digests that an earlier agent left in it: its mounts may still be there. Written at once.
    pub fn open(store: &Store, node: &str) -> Result<Self, Error> {
        let path = store.layout().lease(node)?;
        let token = Writer::current().temp_name();
        let lease = match store.read_lease(node) {
            Ok(Some(earlier)) => Lease { token, ..earlier },
            Ok(None) => Lease { format: FORMAT, node: node.to_owned(), token, counter: 0, digests: BTreeSet::new() },
            Err(error) => return Err(error),
        };
        let mut writer = Self { path, dir: store.layout().leases(), lease };
        writer.heartbeat()?;
        Ok(writer)
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Names a digest; on the disk when this returns. To be called before the artifact is opened.
    pub fn add(&mut self, digest: &Digest) -> Result<(), Error> {
        self.change(|digests| digests.insert(*digest))
    }

    /// Gives a digest up, after its last mount is gone.
    pub fn remove(&mut self, digest: &Digest) -> Result<(), Error> {
        self.change(|digests| digests.remove(digest))
    }

    /// Names exactly these, in one write: after a restart, what the agent found mounted.
    pub fn replace(&mut self, digests: BTreeSet<Digest>) -> Result<(), Error> {
        self.change(|own| std::mem::replace(own, digests.clone()) != digests)
    }

    /// Raises the counter.
    pub fn heartbeat(&mut self) -> Result<(), Error> {
        self.change(|_| true)
    }

    /// Writes what `change` made of the digests, if it says so; on failure the lease in memory stays as it was.
    fn change(&mut self, change: impl FnOnce(&mut BTreeSet<Digest>) -> bool) -> Result<(), Error> {
        let mut lease = self.lease.clone();
        if !change(&mut lease.digests) {
            return Ok(());
        }
        lease.counter += 1;
        durable::json_temp(&self.dir, &lease, 0o644)?.rename(&self.path)?;
        self.lease = lease;
        Ok(())
    }
}

impl Store {
    pub fn read_lease(&self, node: &str) -> Result<Option<Lease>, Error> {
        durable::read_json(&self.layout().lease(node)?, LIMIT, FORMAT)
    }

    /// The nodes that have a lease, sorted; from a listing, which may be stale.
    pub fn list_leases(&self) -> Result<Vec<String>, Error> {
        let names = durable::list(&self.layout().leases())?;
        let mut nodes: Vec<String> =
            names.iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
        nodes.retain(|node| crate::names::check_node(node).is_ok());
        nodes.sort_unstable();
        Ok(nodes)
    }
}
