//! The work behind reconcile: resolving and building, so that reconcile itself never waits for a registry.
//!
//! ```text
//!  resolve(object) ─▶ task (≤ 16 at once) ─▶ Found | Failed ─▶ wake(object)
//!  build(object) ─▶ a flight of this key runs: join it
//!                └▶ wait, fair between namespaces ─▶ flight (≤ workers at once) ─▶ Built | Failed ─▶ wake(all its members)
//! ```
//!
//! *Single flight*: objects whose recipe keys are equal share one build. Each has resolved the reference with its own
//! credentials before, so whoever shares the result was given it by the registry. When a flight fails for a reason that may
//! be its leader's own (credentials, network), the leader alone fails and the others try again, the next one leading.
//!
//! All state is in memory: after a restart every object is resolved again, and what the store has is not built again.

use crate::failure::{Failure, Reaction};
use crate::fair::Fair;
use crate::flight::{self, Flight, Job};
use crate::metrics::Metrics;
use crate::work::{Ask, Found, Sif, Stage, Work};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use siforge_build::Limits;
use siforge_crds::SingularityImage;
use siforge_crds::conditions::Reason;
use siforge_reference::Digest;
use siforge_store::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Resolving costs a few small requests; this many at once neither floods a registry nor lets one slow registry block all.
const RESOLVERS: usize = 16;

/// An object, by the uid that no later object of the same name has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Owner {
    fn object(&self) -> ObjectRef<SingularityImage> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// A number that tells objects apart, the same after a restart.
    pub(crate) fn seed(&self) -> u64 {
        // FNV-1a: spreading delays needs no more.
        self.uid
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

struct Entry {
    owner: Owner,
    ask: Ask,
    work: Work,
    /// Consecutive failures.
    failures: u32,
    /// Number of the resolve that runs; the answer to an older one is dropped.
    turn: Option<u64>,
    job: Option<Arc<Job>>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    waiting: Fair<String>,
    flights: HashMap<Digest, Flight>,
    turns: u64,
    draining: bool,
}

/// Shared by all reconciles; cheap to clone.
#[derive(Clone)]
pub(crate) struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    resolvers: Semaphore,
    workers: usize,
    store: Store,
    wake: mpsc::UnboundedSender<ObjectRef<SingularityImage>>,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// At most `workers` builds at once; objects that have news are sent to `wake`.
    pub(crate) fn new(
        store: Store,
        workers: usize,
        wake: mpsc::UnboundedSender<ObjectRef<SingularityImage>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = Mutex::default();
        Self { inner: Arc::new(Inner { state, resolvers: Semaphore::new(RESOLVERS), workers, store, wake, metrics }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it half-changed; a poisoned lock must not stop all later reconciles.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, owner: &Owner) {
        // The receiver lives as long as the controller; afterwards nobody needs waking.
        let _ = self.inner.wake.send(owner.object());
    }

    /// What is known of an object, and for which ask.
    pub(crate) fn look(&self, uid: &str) -> (Ask, Work) {
        let state = self.state();
        let Some(entry) = state.entries.get(uid) else {
            return (Ask::default(), Work::Idle);
        };
        let work = match &entry.work {
            Work::Building(found, _) => match state.flights.get(&found.key) {
                Some(flight) => Work::Building(found.clone(), flight.progress()),
                None => entry.work.clone(),
            },
            work => work.clone(),
        };
        (entry.ask.clone(), work)
    }

    /// Asks the registry. Until the answer comes, an object that was resolved for the same ask before stays as it is, so that
    /// nothing is seen of it in the status; and it keeps its place in a flight, which may turn out to be the right one.
    pub(crate) fn resolve(&self, owner: &Owner, ask: &Ask, job: Job) {
        let job = Arc::new(job);
        let turn = {
            let mut state = self.state();
            let new = Entry {
                owner: owner.clone(),
                ask: ask.clone(),
                work: Work::Resolving,
                failures: 0,
                turn: None,
                job: None,
            };
            state.turns += 1;
            let turn = state.turns;
            let entry = state.entries.entry(owner.uid.clone()).or_insert(new);
            if entry.ask != *ask {
                entry.ask = ask.clone();
                entry.work = Work::Resolving;
                entry.failures = 0;
            } else if entry.turn.is_some() {
                return;
            }
            entry.turn = Some(turn);
            entry.job = Some(job.clone());
            state.waiting.take(|uid| *uid == owner.uid);
            turn
        };
        let queue = self.clone();
        let uid = owner.uid.clone();
        tokio::spawn(async move {
            let answer = {
                // The semaphore is never closed.
                let _permit = queue.inner.resolvers.acquire().await;
                job.resolve().await
            };
            queue.inner.metrics.resolved(answer.is_ok());
            queue.resolved(&uid, turn, answer);
        });
    }

    fn resolved(&self, uid: &str, turn: u64, answer: Result<Found, Failure>) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(uid).filter(|entry| entry.turn == Some(turn)) else {
            return;
        };
        entry.turn = None;
        match answer {
            Ok(found) => {
                entry.work = Work::Found(found.clone());
                leave_flights(&mut state, uid, Some(&found.key));
            }
            Err(failure) => {
                entry.fail(Stage::Resolve, failure, Timestamp::now());
                leave_flights(&mut state, uid, None);
            }
        }
        drop(state);
        self.wake_uid(uid);
    }

    /// Builds what was found, or joins the build that runs.
    pub(crate) fn build(&self, uid: &str) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        let Work::Found(found) = &entry.work else {
            return;
        };
        let found = found.clone();
        let namespace = entry.owner.namespace.clone();
        entry.work = Work::Queued(found.clone());
        match state.flights.get_mut(&found.key) {
            Some(flight) => {
                flight.join(uid);
                board(&mut state, uid, &found.key);
            }
            None => state.waiting.push(&namespace, uid.to_owned()),
        }
        drop(state);
        self.pump();
        self.wake_uid(uid);
    }

    /// Starts flights while there are workers and somebody waits.
    fn pump(&self) {
        let mut state = self.state();
        while !state.draining && state.flights.len() < self.inner.workers {
            let Some(uid) = state.waiting.pop() else {
                break;
            };
            let Some(Entry { work: Work::Queued(found), job: Some(job), .. }) = state.entries.get(&uid) else {
                continue;
            };
            let (key, job) = (found.key, job.clone());
            if let Some(flight) = state.flights.get_mut(&key) {
                flight.join(&uid);
                board(&mut state, &uid, &key);
                continue;
            }
            let State { waiting, entries, .. } = &mut *state;
            let same = waiting.take(
                |other| matches!(entries.get(other), Some(Entry { work: Work::Queued(found), .. }) if found.key == key),
            );
            let mut flight = Flight::new(&uid, job.limits(), Timestamp::now());
            same.iter().for_each(|member| flight.join(member));
            let progress = flight.watch();
            let queue = self.clone();
            let store = self.inner.store.clone();
            let task = tokio::spawn(async move {
                let result = flight::fly(&store, &job, progress, || queue.wake_members(&key)).await;
                queue.landed(&key, result);
            });
            flight.started(task.abort_handle());
            state.flights.insert(key, flight);
            std::iter::once(&uid).chain(&same).for_each(|member| board(&mut state, member, &key));
        }
        self.inner.metrics.queue(state.flights.len(), state.waiting.len());
    }

    fn landed(&self, key: &Digest, result: Result<Sif, Failure>) {
        let mut state = self.state();
        let Some(flight) = state.flights.remove(key) else {
            return;
        };
        self.inner.metrics.built(result.is_ok(), flight.elapsed(Timestamp::now()));
        for uid in flight.members() {
            let Some(entry) = state.entries.get_mut(uid) else {
                continue;
            };
            let Work::Building(found, _) = &entry.work else {
                continue;
            };
            let found = found.clone();
            match &result {
                Ok(sif) => {
                    entry.failures = 0;
                    entry.work = Work::Built(found, sif.clone());
                }
                Err(failure) if concerns(failure, flight.is_leader(uid), entry.limits() == Some(flight.limits())) => {
                    entry.fail(Stage::Build, failure.clone(), Timestamp::now());
                }
                Err(_) => {
                    entry.work = Work::Queued(found);
                    let namespace = entry.owner.namespace.clone();
                    state.waiting.push(&namespace, uid.clone());
                }
            }
        }
        drop(state);
        flight.members().iter().for_each(|uid| self.wake_uid(uid));
        self.pump();
    }

    /// Publishing failed; tells when it is tried again.
    pub(crate) fn unpublished(&self, uid: &str, failure: Failure) -> Option<Timestamp> {
        self.state().entries.get_mut(uid).and_then(|entry| entry.fail(Stage::Publish, failure, Timestamp::now()))
    }

    /// The next failure is the first again.
    pub(crate) fn published(&self, uid: &str) {
        if let Some(entry) = self.state().entries.get_mut(uid) {
            entry.failures = 0;
        }
    }

    /// Forgets an object that is gone or suspended; a build that nobody else wants is stopped.
    pub(crate) fn forget(&self, uid: &str) {
        {
            let mut state = self.state();
            state.entries.remove(uid);
            state.waiting.take(|waiting| waiting == uid);
            leave_flights(&mut state, uid, None);
        }
        self.pump();
    }

    /// No new builds; waits for those that run, at most `patience`, then stops them.
    pub(crate) async fn drain(&self, patience: Duration) {
        self.state().draining = true;
        let deadline = tokio::time::Instant::now() + patience;
        while !self.state().flights.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (_, flight) in self.state().flights.drain() {
            flight.abort();
        }
    }

    fn wake_uid(&self, uid: &str) {
        if let Some(owner) = self.state().entries.get(uid).map(|entry| entry.owner.clone()) {
            self.wake(&owner);
        }
    }

    fn wake_members(&self, key: &Digest) {
        let members = self.state().flights.get(key).map(|flight| flight.members().to_vec()).unwrap_or_default();
        members.iter().for_each(|uid| self.wake_uid(uid));
    }
}

impl Entry {
    fn fail(&mut self, stage: Stage, failure: Failure, at: Timestamp) -> Option<Timestamp> {
        self.failures += 1;
        let next = failure
            .delay(self.failures, self.owner.seed())
            .and_then(|delay| at.checked_add(SignedDuration::try_from(delay).ok()?).ok());
        self.work = Work::Failed { at, stage, failure, next };
        next
    }

    fn limits(&self) -> Option<Limits> {
        self.job.as_ref().map(|job| job.limits())
    }
}

/// Whether a flight's failure is this member's too: what lies in the image's bytes is everyone's who has the same limits,
/// credentials and connection are the leader's.
fn concerns(failure: &Failure, leader: bool, same_limits: bool) -> bool {
    let in_the_bytes = failure.reaction == Reaction::Stalled
        && matches!(failure.reason, Reason::BuildFailed | Reason::SourceInvalid | Reason::DigestMismatch);
    leader || (in_the_bytes && same_limits)
}

/// A queued object becomes one whose build runs, if the flight is there.
fn board(state: &mut State, uid: &str, key: &Digest) {
    let Some(progress) = state.flights.get(key).map(Flight::progress) else {
        return;
    };
    let Some(entry) = state.entries.get_mut(uid) else {
        return;
    };
    if let Work::Queued(found) = &entry.work {
        entry.work = Work::Building(found.clone(), progress);
    }
}

/// Takes the object out of every flight but `keep`'s; a flight without members is stopped.
fn leave_flights(state: &mut State, uid: &str, keep: Option<&Digest>) {
    state.flights.retain(|key, flight| {
        if Some(key) == keep || !flight.leave(uid) {
            return true;
        }
        flight.abort();
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_failure_it_is() {
        let bytes = Failure::stalled(Reason::BuildFailed, "bomb");
        let login = Failure::stalled(Reason::Unauthorized, "no");
        let network = Failure::transient(Reason::RegistryUnavailable, "down");
        for (failure, leader, same_limits, expect) in [
            (&bytes, true, true, true),
            (&bytes, false, true, true),
            (&bytes, false, false, false),
            (&login, true, true, true),
            (&login, false, true, false),
            (&network, true, false, true),
            (&network, false, true, false),
        ] {
            assert_eq!(
                concerns(failure, leader, same_limits),
                expect,
                "{failure:?} leader {leader} same limits {same_limits}"
            );
        }
    }
}
