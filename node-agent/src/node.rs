//! One node's agent: the mount table with its threads, the leases, the store.
//!
//! ```text
//!   request ─ resolve ─ hold ──┬─ Ready ──▶ pinned: clone it
//!                              ├─ Start ──▶ thread: lease → open → verify → mount ──▶ all who wait wake
//!                              └─ Wait  ──▶ until that thread is done, or the caller's time is up (the thread goes on)
//!   housekeeper, every second: unmount what is idle
//!   lease keeper, every second: write the node's lease (apart: a dead file server stops nothing but this)
//! ```
//!
//! Locks: the lease's writer before the table; neither is held over a mount, a hash or a read of the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use siforge_agent_api::MountStatus;
use siforge_reference::{Context, Digest, Reference, StoreRef};
use siforge_store::{Caller, Ref, Store};

use crate::authorise::{self, Denied, Granted};
use crate::config::Config;
use crate::idmap::IdMaps;
use crate::integrity::Verifier;
use crate::leases::{self, Leases};
use crate::mounts::{self, Mounts};
use crate::nearest::nearest;
use crate::node_lease::NodeLease;
use crate::state_file;
use crate::table::{Attempt, Begin, Moment, Outcome, Phase, Table};

/// Pace of the housekeeper.
const TICK: Duration = Duration::from_secs(1);
/// How many images are hashed and mounted at the same time: more only makes all of them later.
const MOUNTING: usize = 4;
/// How many near names are looked up in the store, until one is found that the caller may see.
const NEAREST: usize = 8;
/// The part of all mounts that one user's leases may hold: a fourth.
const USERS_SHARE: u32 = 4;
/// Stack of a mounting thread.
const STACK: usize = 256 * 1024;

/// The agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store is not there or not one.
    #[error("open the store {root}: {source}", root = root.display())]
    Store { root: PathBuf, source: siforge_store::Error },
    /// The node's lease can't be written.
    #[error("take up the lease of node {node}: {source}")]
    Lease { node: String, source: siforge_store::Error },
    /// The mounts' directory can't be made, or what an earlier agent left can't be cleaned.
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
    /// No thread for what is done every second.
    #[error("start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// An image can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference does not follow the grammar.
    #[error("{source}")]
    Reference { source: siforge_reference::ParseError },
    /// It names something other than an image of the store.
    #[error("{reference} does not name an image of the store: the agent mounts sif://NAMESPACE/NAME alone")]
    NotStore { reference: String },
    /// No such name.
    #[error("no image {image} in the store")]
    Unknown { image: String, nearest: Option<String> },
    /// The name never pointed at this digest.
    #[error("{image} has no revision with digest {digest}")]
    OtherDigest { image: String, digest: Digest },
    /// The access rules do not name the caller.
    #[error("{caller} may not use the image {image}: ask its owner for access")]
    NotAllowed { image: String, caller: String },
    /// The store can't be read.
    #[error("read the ref of {image}: {source}")]
    Store { image: String, source: siforge_store::Error },
    /// Mounting failed.
    #[error("{0}")]
    Mount(Arc<mounts::Error>),
    /// Not done in time; it goes on.
    #[error("image {digest} is not mounted yet after {} s; that goes on: ask again", waited.as_secs())]
    TimedOut { digest: Digest, waited: Duration },
    /// No room.
    #[error("{limit} images are mounted on this node and all are in use: release some or raise max-mounts")]
    Full { limit: u32 },
    /// The lease was not granted.
    #[error(transparent)]
    Lease(#[from] leases::Error),
    /// The leases could not be saved.
    #[error("save the leases: {0}")]
    State(#[from] state_file::Error),
}

#[derive(Debug)]
struct Inner {
    table: Table<Arc<mounts::Error>>,
    leases: Leases,
    mounting: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    config: Config,
    store: Store,
    mounts: Mounts,
    verifier: Verifier,
    lease: NodeLease,
    /// Helper namespaces for id-mapped copies.
    pub idmaps: IdMaps,
    inner: Mutex<Inner>,
    changed: Condvar,
    leases_path: PathBuf,
}

/// A mount that stays while this lives.
#[derive(Debug)]
pub struct Pinned<'a> {
    node: &'a Node,
    digest: Digest,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.node.lock().table.unpin(&self.digest, now());
    }
}

impl Node {
    /// Takes up what an earlier agent left. The caller holds the state directory's lock.
    pub fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let root = config.store.clone();
        let store = Store::open(&root).map_err(|source| StartError::Store { root, source })?;
        let state_dir = config.local.state_dir.clone();
        // The lease first, with what an earlier agent had in it: no mount is without one for a moment.
        let lease = NodeLease::open(&store, &config.node_name)
            .map_err(|source| StartError::Lease { node: config.node_name.clone(), source })?;
        let mounts = Mounts::new(&state_dir);
        mounts.prepare()?;
        let adopted: BTreeSet<Digest> = mounts.adopt(store.layout())?.into_iter().collect();
        let mut table = Table::new(config.max_mounts as usize);
        adopted.iter().for_each(|digest| table.adopt(digest, now()));
        let leases_path = state_dir.join("leases.json");
        let mut leases = restore_leases(&leases_path);
        for gone in leases.leased().difference(&adopted) {
            leases.forget(gone);
        }
        tracing::info!(store = %store.root().display(), adopted = adopted.len(), "agent of node {}", config.node_name);
        let node = Arc::new(Node {
            verifier: Verifier::new(config.integrity, state_dir.join("verified.json")),
            idmaps: IdMaps::default(),
            inner: Mutex::new(Inner { table, leases, mounting: 0 }),
            changed: Condvar::new(),
            config,
            store,
            mounts,
            lease,
            leases_path,
        });
        node.every_tick("housekeeper", Node::keep_house)?;
        node.every_tick("lease", Node::keep_lease)?;
        Ok(node)
    }

    fn every_tick(self: &Arc<Self>, name: &str, act: fn(&Node)) -> Result<(), StartError> {
        let node = Arc::clone(self);
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let run = move || loop {
            std::thread::sleep(TICK);
            act(&node);
        };
        thread.spawn(run).map(drop).map_err(StartError::Thread)
    }

    /// What `reference` stands for, if `caller` may have it.
    pub fn resolve(&self, reference: &str, caller: &Caller) -> Result<(StoreRef, Granted), Error> {
        // Nothing exists: a path means nothing in another process's directory.
        let context = Context { default_namespace: &self.config.local.default_namespace, exists: &|_| false };
        let parsed = Reference::parse(reference, &context).map_err(|source| Error::Reference { source })?;
        let Reference::Store(name) = parsed else {
            return Err(Error::NotStore { reference: reference.to_owned() });
        };
        let image = format!("{}/{}", name.namespace, name.name);
        let failed = |source| Error::Store { image: image.clone(), source };
        let current = self.store.read_ref(&name.namespace, &name.name).map_err(failed)?;
        let history = || self.store.history(&name.namespace, &name.name);
        match authorise::decide(current.as_ref(), name.digest.as_ref(), caller, history).map_err(failed)? {
            Ok(granted) => Ok((name, granted)),
            Err(Denied::Unknown) => Err(Error::Unknown { nearest: self.nearest(&image, caller), image }),
            Err(Denied::NotAllowed) => Err(Error::NotAllowed { image, caller: shown(caller) }),
            Err(Denied::OtherDigest) => match name.digest {
                Some(digest) => Err(Error::OtherDigest { image, digest }),
                None => Err(Error::Unknown { image, nearest: None }),
            },
        }
    }

    /// Mounts `digest` if it is not, and holds it; waits until `deadline` at most.
    pub fn hold(self: &Arc<Self>, digest: &Digest, deadline: Instant) -> Result<Pinned<'_>, Error> {
        let begun = Instant::now();
        let mut inner = self.lock();
        loop {
            let leased = inner.leases.leased();
            match inner.table.begin(digest, &leased) {
                Begin::Ready => {
                    inner.table.pin(digest, now());
                    return Ok(Pinned { node: self, digest: *digest });
                }
                Begin::Start(attempt) => {
                    self.start_mounting(&mut inner, *digest, attempt);
                    inner = self.wait_for(inner, digest, attempt, deadline)?;
                }
                Begin::Wait(attempt) => inner = self.wait_for(inner, digest, attempt, deadline)?,
                Begin::Again => inner = self.wait(inner, deadline),
                Begin::Evict(victim) => {
                    drop(inner);
                    self.unmount(&victim);
                    inner = self.lock();
                }
                Begin::Full => {
                    self.forget(&mut inner, digest);
                    return Err(Error::Full { limit: self.config.max_mounts });
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::TimedOut { digest: *digest, waited: begun.elapsed() });
            }
        }
    }

    /// Takes a lease on an image that is mounted or about to be.
    pub fn take_lease(&self, owner: u32, name: &str, digest: &Digest) -> Result<(), Error> {
        let mut inner = self.lock();
        let share = (self.config.max_mounts / USERS_SHARE).max(1) as usize;
        if inner.leases.take(owner, name, digest, share, now())? {
            self.save(&inner)?;
        }
        Ok(())
    }

    /// Ends a lease; the images it held linger on from now.
    pub fn release(&self, caller: u32, name: &str) -> Result<(), Error> {
        leases::check_name(name)?;
        let mut inner = self.lock();
        let released = inner.leases.release(caller, name);
        if !released.is_empty() {
            released.iter().for_each(|digest| inner.table.touch(digest, now()));
            self.save(&inner)?;
        }
        Ok(())
    }

    /// What is mounted and which leases `viewer` may see.
    pub fn status(&self, viewer: u32) -> (Vec<MountStatus>, Vec<String>) {
        let inner = self.lock();
        let mounted = inner.table.phases().filter(|(_, phase)| *phase == Phase::Mounted);
        let mounts = mounted
            .map(|(digest, _)| MountStatus {
                digest: digest.to_string(),
                path: self.mounts.path(digest).display().to_string(),
                leases: inner.leases.names_of(digest, viewer),
            })
            .collect();
        (mounts, inner.leases.all_names(viewer))
    }

    /// The places of this node's mounts.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, deadline: Instant) -> MutexGuard<'a, Inner> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait_for<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        digest: &Digest,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, Inner>, Error> {
        loop {
            match inner.table.outcome(digest, attempt) {
                Outcome::Pending if Instant::now() < deadline => inner = self.wait(inner, deadline),
                Outcome::Failed(why) => return Err(Error::Mount(why)),
                Outcome::Pending | Outcome::Ready | Outcome::Gone => return Ok(inner),
            }
        }
    }

    fn start_mounting(self: &Arc<Self>, inner: &mut Inner, digest: Digest, attempt: Attempt) {
        let node = Arc::clone(self);
        let thread = std::thread::Builder::new().name("mount".to_owned()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            let mut end = AttemptEnd { node: &node, digest, attempt, outcome: Err(mounts::Error::Panicked { digest }) };
            end.outcome = node.mount(&digest);
        });
        if let Err(source) = spawned {
            self.end(inner, digest, attempt, Err(mounts::Error::Thread { digest, source }));
        }
    }

    /// Lease, open, verify, mount; a few at a time.
    fn mount(&self, digest: &Digest) -> Result<(), mounts::Error> {
        let _slot = Slot::take(self);
        let begun = Instant::now();
        self.lease.add(digest).map_err(|source| mounts::Error::Lease { digest: *digest, source })?;
        self.mounts.mount(&self.store, digest, &self.verifier)?;
        tracing::info!(%digest, ms = begun.elapsed().as_millis(), "mounted");
        Ok(())
    }

    fn end(&self, inner: &mut Inner, digest: Digest, attempt: Attempt, outcome: Result<(), mounts::Error>) {
        match outcome {
            Ok(()) => inner.table.mounted(&digest, attempt, now()),
            Err(error) => {
                tracing::warn!(%digest, error = chain(&error), "not mounted");
                inner.table.failed(&digest, attempt, Arc::new(error), now());
                self.forget(inner, &digest);
            }
        }
        self.changed.notify_all();
    }

    /// An image that is not mounted has no leases.
    fn forget(&self, inner: &mut Inner, digest: &Digest) {
        if inner.leases.forget(digest)
            && let Err(error) = self.save(inner)
        {
            tracing::warn!(%error, "the leases are not saved");
        }
    }

    /// Unmounts what the table has marked so.
    fn unmount(&self, digest: &Digest) {
        let outcome = self.mounts.unmount(digest);
        let mut inner = self.lock();
        match outcome {
            Ok(()) => {
                inner.table.unmounted(digest);
                tracing::info!(%digest, "unmounted");
            }
            Err(error) => {
                inner.table.still_mounted(digest, now());
                tracing::warn!(%digest, %error, "still mounted");
            }
        }
        self.changed.notify_all();
    }

    fn save(&self, inner: &Inner) -> Result<(), state_file::Error> {
        state_file::write(&self.leases_path, &inner.leases.saved())
    }

    /// The name that exists, that `caller` may use, and that is nearest to a `namespace/name`.
    pub fn nearest(&self, wanted: &str, caller: &Caller) -> Option<String> {
        let names = self.store.list_refs().ok()?;
        let names: Vec<String> = names.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        let visible = |name: &&str| {
            let (namespace, name) = name.split_once('/')?;
            let found: Option<Ref> = self.store.read_ref(namespace, name).ok()?;
            found.filter(|found| found.allows(caller))
        };
        let near = nearest(wanted, names.iter().map(String::as_str), NEAREST);
        near.into_iter().find(|name| visible(name).is_some()).map(str::to_owned)
    }

    fn keep_house(&self) {
        let due = {
            let mut inner = self.lock();
            let ended = inner.leases.expire(now());
            if !ended.is_empty() {
                tracing::info!(images = ended.len(), "leases ended that nobody released");
                if let Err(error) = self.save(&inner) {
                    tracing::warn!(%error, "the leases are not saved");
                }
            }
            let leased = inner.leases.leased();
            inner.table.expire(now(), self.config.linger, &leased)
        };
        due.iter().for_each(|digest| self.unmount(digest));
    }

    fn keep_lease(&self) {
        if let Err(error) = self.lease.tick(now(), || self.used()) {
            tracing::warn!(error = chain(&error), "the node's lease is not written");
        }
    }

    /// What the table has or is about to have.
    fn used(&self) -> BTreeSet<Digest> {
        self.lock().table.phases().filter(|(_, phase)| *phase != Phase::Failed).map(|(digest, _)| *digest).collect()
    }
}

/// A caller in messages.
fn shown(caller: &Caller) -> String {
    match &caller.namespace {
        Some(namespace) => format!("a pod of the namespace {namespace}"),
        None => format!("uid {}", caller.uid),
    }
}

/// Tells the table how an attempt ended, even if its thread panicked.
struct AttemptEnd<'a> {
    node: &'a Node,
    digest: Digest,
    attempt: Attempt,
    outcome: Result<(), mounts::Error>,
}

impl Drop for AttemptEnd<'_> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        let mut inner = self.node.lock();
        self.node.end(&mut inner, self.digest, self.attempt, outcome);
    }
}

/// One of [`MOUNTING`] places.
struct Slot<'a>(&'a Node);

impl<'a> Slot<'a> {
    fn take(node: &'a Node) -> Self {
        let inner = node.lock();
        let full = |inner: &mut Inner| inner.mounting >= MOUNTING;
        let mut inner = node.changed.wait_while(inner, full).unwrap_or_else(PoisonError::into_inner);
        inner.mounting += 1;
        Slot(node)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.mounting = inner.mounting.saturating_sub(1);
        self.0.changed.notify_all();
    }
}

/// Leases that can't be read are forgotten: their images linger and are unmounted, which disturbs nobody.
fn restore_leases(path: &Path) -> Leases {
    match state_file::read(path) {
        Ok(saved) => Leases::restored(saved.unwrap_or_default(), now()),
        Err(error) => {
            tracing::warn!(%error, "starting without the earlier agent's leases");
            Leases::default()
        }
    }
}

/// Time since boot, suspended or not.
fn now() -> Moment {
    // CLOCK_BOOTTIME is there since Linux 2.6.39; were it not, time would stand still and nothing expire.
    Moment(clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default())
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
