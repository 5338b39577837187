//! The mount table: which images this node has mounted, and what to do next about each. Pure: `now` is passed in, nothing
//! is mounted here.
//!
//! ```text
//!                 begin              mounted
//!   (absent) ───────────▶ Mounting ───────────▶ Mounted ◀──┐ pin, unpin: a clone is being made
//!      ▲                     │ failed              │ ──────┘
//!      │     forget after    ▼                     │ expire, begin (evict): idle, unpinned, unleased
//!      ├──────────────── Failed ──begin──▶ …       ▼
//!      └─────────────────────────────────── Unmounting
//!                        unmounted
//! ```
//!
//! Single flight: whoever finds `Mounting` or `Unmounting` waits; all who waited for one attempt get that attempt's end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use siforge_reference::Digest;

/// Time since boot (CLOCK_BOOTTIME): comparable over a restart of the agent, and no clock adjustment moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// Time that has passed since `earlier`; zero when that lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Numbers the attempts at mounting, over all digests.
pub type Attempt = u64;

/// A failure is kept so long that every waiter has woken and read it.
const FAILURE_KEPT: Duration = Duration::from_secs(60);

/// What [`Table::begin`] tells a caller to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is mounted: pin it.
    Ready,
    /// The caller starts the one attempt, then waits for it.
    Start(Attempt),
    /// Someone else's attempt is under way.
    Wait(Attempt),
    /// It is being unmounted: ask again when the table changes.
    Again,
    /// The table is full; unmount this idle image (it is marked so already), then ask again.
    Evict(Digest),
    /// The table is full and everything in it is in use.
    Full,
}

/// How an attempt stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<F> {
    /// Still running.
    Pending,
    /// Mounted.
    Ready,
    /// It failed for this reason.
    Failed(F),
    /// It ended and nothing is known of it any more.
    Gone,
}

/// What can be said of one digest, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An attempt is under way.
    Mounting,
    /// There.
    Mounted,
    /// Going away.
    Unmounting,
    /// The last attempt failed lately.
    Failed,
}

#[derive(Debug)]
enum State<F> {
    Mounting(Attempt),
    Mounted { pins: u32, used: Moment },
    Unmounting,
    Failed { attempt: Attempt, why: F, at: Moment },
}

/// See the module. `F` is why an attempt failed.
#[derive(Debug)]
pub struct Table<F> {
    slots: BTreeMap<Digest, State<F>>,
    limit: usize,
    attempts: Attempt,
}

impl<F: Clone> Table<F> {
    /// A table of at most `limit` mounts.
    pub fn new(limit: usize) -> Self {
        Table { slots: BTreeMap::new(), limit, attempts: 0 }
    }

    /// Someone wants `digest` mounted. `leased` are the digests that must not be evicted.
    pub fn begin(&mut self, digest: &Digest, leased: &BTreeSet<Digest>) -> Begin {
        match self.slots.get(digest) {
            Some(State::Mounted { .. }) => return Begin::Ready,
            Some(State::Mounting(attempt)) => return Begin::Wait(*attempt),
            Some(State::Unmounting) => return Begin::Again,
            Some(State::Failed { .. }) | None => {}
        }
        if self.live() >= self.limit {
            if self.slots.values().any(|state| matches!(state, State::Unmounting)) {
                return Begin::Again;
            }
            return match self.longest_idle(leased) {
                Some(victim) => {
                    self.slots.insert(victim, State::Unmounting);
                    Begin::Evict(victim)
                }
                None => Begin::Full,
            };
        }
        self.attempts += 1;
        self.slots.insert(*digest, State::Mounting(self.attempts));
        Begin::Start(self.attempts)
    }

    /// The attempt succeeded.
    pub fn mounted(&mut self, digest: &Digest, attempt: Attempt, now: Moment) {
        if matches!(self.slots.get(digest), Some(State::Mounting(current)) if *current == attempt) {
            self.slots.insert(*digest, State::Mounted { pins: 0, used: now });
        }
    }

    /// The attempt failed.
    pub fn failed(&mut self, digest: &Digest, attempt: Attempt, why: F, now: Moment) {
        if matches!(self.slots.get(digest), Some(State::Mounting(current)) if *current == attempt) {
            self.slots.insert(*digest, State::Failed { attempt, why, at: now });
        }
    }

    /// How `attempt` stands, for who waits for it.
    pub fn outcome(&self, digest: &Digest, attempt: Attempt) -> Outcome<F> {
        match self.slots.get(digest) {
            Some(State::Mounting(current)) if *current == attempt => Outcome::Pending,
            Some(State::Mounted { .. }) => Outcome::Ready,
            Some(State::Failed { attempt: current, why, .. }) if *current == attempt => Outcome::Failed(why.clone()),
            _ => Outcome::Gone,
        }
    }

    /// A mount that an earlier agent left and this one found good.
    pub fn adopt(&mut self, digest: &Digest, now: Moment) {
        self.slots.insert(*digest, State::Mounted { pins: 0, used: now });
    }

    /// Holds the mount while a clone is made; false when it is not mounted.
    pub fn pin(&mut self, digest: &Digest, now: Moment) -> bool {
        match self.slots.get_mut(digest) {
            Some(State::Mounted { pins, used }) => {
                *pins += 1;
                *used = now;
                true
            }
            _ => false,
        }
    }

    /// Ends [`Table::pin`]; the time of last use is now.
    pub fn unpin(&mut self, digest: &Digest, now: Moment) {
        if let Some(State::Mounted { pins, used }) = self.slots.get_mut(digest) {
            *pins = pins.saturating_sub(1);
            *used = now;
        }
    }

    /// The time of last use is now: a lease on it ended.
    pub fn touch(&mut self, digest: &Digest, now: Moment) {
        if let Some(State::Mounted { used, .. }) = self.slots.get_mut(digest) {
            *used = now;
        }
    }

    /// The mounts to undo now: unleased, unpinned and unused for `linger`. They are marked `Unmounting`.
    pub fn expire(&mut self, now: Moment, linger: Duration, leased: &BTreeSet<Digest>) -> Vec<Digest> {
        self.slots.retain(|_, state| !matches!(state, State::Failed { at, .. } if now.since(*at) >= FAILURE_KEPT));
        let mut due = Vec::new();
        for (digest, state) in &mut self.slots {
            match state {
                State::Mounted { pins: 0, used } if now.since(*used) >= linger && !leased.contains(digest) => {
                    *state = State::Unmounting;
                    due.push(*digest);
                }
                _ => {}
            }
        }
        due
    }

    /// An unmount is done, or was not needed.
    pub fn unmounted(&mut self, digest: &Digest) {
        if matches!(self.slots.get(digest), Some(State::Unmounting)) {
            self.slots.remove(digest);
        }
    }

    /// An unmount failed: the mount is still there, and is tried again after the next linger.
    pub fn still_mounted(&mut self, digest: &Digest, now: Moment) {
        if let Some(state @ State::Unmounting) = self.slots.get_mut(digest) {
            *state = State::Mounted { pins: 0, used: now };
        }
    }

    /// Every digest and where it stands.
    pub fn phases(&self) -> impl Iterator<Item = (&Digest, Phase)> {
        self.slots.iter().map(|(digest, state)| {
            let phase = match state {
                State::Mounting(_) => Phase::Mounting,
                State::Mounted { .. } => Phase::Mounted,
                State::Unmounting => Phase::Unmounting,
                State::Failed { .. } => Phase::Failed,
            };
            (digest, phase)
        })
    }

    fn live(&self) -> usize {
        self.slots.values().filter(|state| !matches!(state, State::Failed { .. })).count()
    }

    fn longest_idle(&self, leased: &BTreeSet<Digest>) -> Option<Digest> {
        self.slots
            .iter()
            .filter_map(|(digest, state)| match state {
                State::Mounted { pins: 0, used } if !leased.contains(digest) => Some((*used, digest)),
                _ => None,
            })
            .min()
            .map(|(_, digest)| *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    const LINGER: Duration = Duration::from_secs(10);

    fn none() -> BTreeSet<Digest> {
        BTreeSet::new()
    }

    fn mounted(table: &mut Table<&'static str>, n: u8, now: u64) {
        let Begin::Start(attempt) = table.begin(&digest(n), &none()) else { panic!("not started") };
        table.mounted(&digest(n), attempt, at(now));
    }

    #[test]
    fn one_starts_and_the_others_wait() {
        let mut table = Table::<&str>::new(4);
        assert_eq!(table.begin(&digest(1), &none()), Begin::Start(1));
        assert_eq!(table.begin(&digest(1), &none()), Begin::Wait(1));
        assert_eq!(table.begin(&digest(2), &none()), Begin::Start(2));
        assert_eq!(table.outcome(&digest(1), 1), Outcome::Pending);
        table.mounted(&digest(1), 1, at(0));
        assert_eq!(table.outcome(&digest(1), 1), Outcome::Ready);
        assert_eq!(table.begin(&digest(1), &none()), Begin::Ready);
    }

    #[test]
    fn a_failure_reaches_its_waiters_and_the_next_caller_tries_again() {
        let mut table = Table::new(4);
        assert_eq!(table.begin(&digest(1), &none()), Begin::Start(1));
        table.failed(&digest(1), 1, "damaged", at(0));
        assert_eq!(table.outcome(&digest(1), 1), Outcome::Failed("damaged"));
        assert_eq!(table.begin(&digest(1), &none()), Begin::Start(2));
        // A late word of the first attempt changes nothing.
        table.mounted(&digest(1), 1, at(1));
        assert_eq!(table.outcome(&digest(1), 2), Outcome::Pending);
        assert_eq!(table.outcome(&digest(1), 1), Outcome::Gone);
        table.failed(&digest(1), 2, "again", at(1));
        assert!(table.expire(at(62), LINGER, &none()).is_empty());
        assert_eq!(table.outcome(&digest(1), 2), Outcome::Gone);
    }

    #[test]
    fn only_idle_mounts_expire() {
        struct Case {
            name: &'static str,
            now: u64,
            pinned: bool,
            leased: bool,
            due: bool,
        }
        let base = Case { name: "idle", now: 10, pinned: false, leased: false, due: true };
        let cases = [
            Case { name: "used lately", now: 9, due: false, ..base },
            Case { name: "pinned", pinned: true, due: false, ..base },
            Case { name: "leased", leased: true, due: false, ..base },
            base,
        ];
        for case in cases {
            let mut table = Table::new(4);
            mounted(&mut table, 1, 0);
            if case.pinned {
                assert!(table.pin(&digest(1), at(0)));
            }
            let leased = if case.leased { BTreeSet::from([digest(1)]) } else { none() };
            let expected = if case.due { vec![digest(1)] } else { vec![] };
            assert_eq!(table.expire(at(case.now), LINGER, &leased), expected, "{}", case.name);
        }
    }

    #[test]
    fn nobody_gets_a_mount_that_is_going() {
        let mut table = Table::new(4);
        mounted(&mut table, 1, 0);
        assert_eq!(table.expire(at(10), LINGER, &none()), [digest(1)]);
        assert!(!table.pin(&digest(1), at(10)));
        assert_eq!(table.begin(&digest(1), &none()), Begin::Again);
        table.unmounted(&digest(1));
        assert!(matches!(table.begin(&digest(1), &none()), Begin::Start(_)));
    }

    #[test]
    fn a_failed_unmount_is_tried_again_later() {
        let mut table = Table::new(4);
        mounted(&mut table, 1, 0);
        assert_eq!(table.expire(at(10), LINGER, &none()).len(), 1);
        table.still_mounted(&digest(1), at(10));
        assert!(table.expire(at(19), LINGER, &none()).is_empty());
        assert_eq!(table.expire(at(20), LINGER, &none()).len(), 1);
    }

    #[test]
    fn a_full_table_evicts_the_longest_idle() {
        let mut table = Table::new(3);
        for (n, used) in [(1, 5), (2, 3), (3, 4)] {
            mounted(&mut table, n, used);
        }
        let leased = BTreeSet::from([digest(2)]);
        assert_eq!(table.begin(&digest(9), &leased), Begin::Evict(digest(3)));
        assert_eq!(table.begin(&digest(9), &leased), Begin::Again);
        table.unmounted(&digest(3));
        assert!(matches!(table.begin(&digest(9), &leased), Begin::Start(_)));

        let mut table = Table::new(1);
        mounted(&mut table, 1, 0);
        assert!(table.pin(&digest(1), at(0)));
        assert_eq!(table.begin(&digest(9), &none()), Begin::Full);
        table.unpin(&digest(1), at(1));
        assert_eq!(table.begin(&digest(9), &none()), Begin::Evict(digest(1)));
    }

    #[test]
    fn a_use_or_a_lease_that_ended_starts_the_linger_anew() {
        let mut table = Table::new(4);
        mounted(&mut table, 1, 0);
        assert!(table.pin(&digest(1), at(8)));
        table.unpin(&digest(1), at(9));
        assert!(table.expire(at(18), LINGER, &none()).is_empty());
        table.touch(&digest(1), at(18));
        assert!(table.expire(at(27), LINGER, &none()).is_empty());
        assert_eq!(table.expire(at(28), LINGER, &none()), [digest(1)]);
    }

    #[test]
    fn adopted_mounts_are_ready() {
        let mut table = Table::<&str>::new(1);
        table.adopt(&digest(1), at(0));
        assert_eq!(table.begin(&digest(1), &none()), Begin::Ready);
        assert_eq!(table.phases().collect::<Vec<_>>(), [(&digest(1), Phase::Mounted)]);
    }
}
