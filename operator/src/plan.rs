//! What to do next. Pure: looks at [`Facts`], `now` among them, and gives steps.
//!
//! ```text
//! work                    steps                     outlook
//! idle, or older ask      resolve                   working: resolving
//!   … once, and published –                         settled
//! resolving               –                         working: resolving
//! found, ref says same    – (resolve, if due)       settled
//! found, ref has others   publish                   settled, if that works
//!   access or reference
//! found, other recipe     build                     working: queued
//! queued, building        –                         working: building
//! built                   publish                   settled, if that works
//! failed                  – (resolve, if due)       failed
//! ```

use crate::failure::Failure;
use crate::work::{Ask, Found, Progress, Sif, Stage, Work};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use siforge_crds::BuildPhase;
use siforge_reference::Digest;
use siforge_store::Access;
use std::time::Duration;

/// What the store's ref says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) reference: String,
    pub(crate) manifest: Digest,
    pub(crate) key: Digest,
    pub(crate) sif: Sif,
    pub(crate) access: Access,
}

/// All that planning looks at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What is asked for now, and what the queue worked for last.
    pub(crate) ask: Ask,
    pub(crate) worked_for: Ask,
    pub(crate) work: Work,
    /// None: the reference is resolved once.
    pub(crate) interval: Option<Duration>,
    /// Who may launch, by the spec.
    pub(crate) access: Access,
    /// None when there is no ref, or its artifact is gone.
    pub(crate) published: Option<Published>,
    /// The status says that this generation, asked for in this way, was published.
    pub(crate) was_ready: bool,
    /// Spreads the intervals of many objects.
    pub(crate) seed: u64,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the registry, with the object's own credentials.
    Resolve,
    /// Enqueue the build of what was found.
    Build,
    /// Make the store's ref say this.
    Publish(Found, Sif),
    /// Stop what goes on for the object.
    Forget,
}

/// What the status is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Published, as asked for; found is None when nothing was resolved in this process.
    Settled(Option<Found>),
    Working {
        found: Option<Found>,
        progress: Progress,
    },
    Failed {
        stage: Stage,
        failure: Failure,
        next: Option<Timestamp>,
    },
    Suspended,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) outlook: Outlook,
    /// When to look again if nothing else happens.
    pub(crate) wake_after: Option<Duration>,
}

impl Plan {
    fn new(steps: Vec<Step>, outlook: Outlook, wake_after: Option<Duration>) -> Self {
        Self { steps, outlook, wake_after }
    }

    /// For what fails before anything could be planned. When only a change helps, nothing goes on meanwhile.
    pub(crate) fn unready(failure: &Failure, seed: u64, now: Timestamp) -> Self {
        match failure.delay(1, seed) {
            Some(delay) => Self::retry(Stage::Inputs, failure.clone(), after(now, delay), now),
            None => Self { steps: vec![Step::Forget], ..Self::retry(Stage::Inputs, failure.clone(), None, now) },
        }
    }

    /// For a step that failed.
    pub(crate) fn retry(stage: Stage, failure: Failure, next: Option<Timestamp>, now: Timestamp) -> Self {
        Self::new(
            vec![],
            Outlook::Failed { stage, failure, next },
            next.map(|next| until(next, now).unwrap_or_default()),
        )
    }

    pub(crate) fn suspended() -> Self {
        Self::new(vec![Step::Forget], Outlook::Suspended, None)
    }
}

pub(crate) fn plan(facts: &Facts) -> Plan {
    if facts.ask != facts.worked_for || facts.work == Work::Idle {
        return begin(facts);
    }
    match &facts.work {
        // begin() was for idle.
        Work::Idle | Work::Resolving => Plan::new(vec![], working(None, BuildPhase::Resolving, facts), None),
        Work::Found(found) => compare(facts, found),
        Work::Queued(found) => Plan::new(vec![], working(Some(found), BuildPhase::Queued, facts), None),
        Work::Building(found, progress) => {
            Plan::new(vec![], Outlook::Working { found: Some(found.clone()), progress: progress.clone() }, None)
        }
        Work::Built(found, sif) => match says(facts, found) {
            Some(published) if published == sif => settled(facts, found),
            _ => publish(facts, found, sif),
        },
        Work::Failed { at, stage, failure, next } => failed(facts, *at, *stage, failure, *next),
    }
}

/// Nothing is known for this ask: after a restart or a change. What is resolved once and published needs no second answer.
fn begin(facts: &Facts) -> Plan {
    let once = facts.interval.is_none();
    if once && facts.was_ready && facts.published.as_ref().is_some_and(|published| published.access == facts.access) {
        return Plan::new(vec![], Outlook::Settled(None), None);
    }
    Plan::new(vec![Step::Resolve], working(None, BuildPhase::Resolving, facts), None)
}

fn compare(facts: &Facts, found: &Found) -> Plan {
    if says(facts, found).is_some() {
        return settled(facts, found);
    }
    match &facts.published {
        Some(published) if published.key == found.key => publish(facts, found, &published.sif),
        _ => Plan::new(vec![Step::Build], working(Some(found), BuildPhase::Queued, facts), None),
    }
}

/// The artifact, if the ref says all that it should.
fn says<'a>(facts: &'a Facts, found: &Found) -> Option<&'a Sif> {
    let published = facts.published.as_ref()?;
    let same =
        published.key == found.key && published.reference == found.reference && published.manifest == found.manifest;
    (same && published.access == facts.access).then_some(&published.sif)
}

fn publish(facts: &Facts, found: &Found, sif: &Sif) -> Plan {
    let wake = match due(facts, found.at) {
        Due::Now => Some(Duration::ZERO),
        Due::In(left) => Some(left),
        Due::Never => None,
    };
    Plan::new(vec![Step::Publish(found.clone(), sif.clone())], Outlook::Settled(Some(found.clone())), wake)
}

fn settled(facts: &Facts, found: &Found) -> Plan {
    let outlook = Outlook::Settled(Some(found.clone()));
    resolve_when(due(facts, found.at), outlook)
}

/// A failure that may pass is tried again at its time; one that stalls, at the interval, as a moved tag would be.
fn failed(facts: &Facts, at: Timestamp, stage: Stage, failure: &Failure, next: Option<Timestamp>) -> Plan {
    let outlook = Outlook::Failed { stage, failure: failure.clone(), next };
    let due = match next {
        Some(next) => until(next, facts.now).map_or(Due::Now, Due::In),
        None => due(facts, at),
    };
    resolve_when(due, outlook)
}

/// When the registry is to be asked again.
enum Due {
    Now,
    In(Duration),
    Never,
}

/// An interval after `since`, when it was asked last.
fn due(facts: &Facts, since: Timestamp) -> Due {
    match facts.interval {
        None => Due::Never,
        Some(interval) => {
            let end = after(since, spread(interval, facts.seed)).unwrap_or(Timestamp::MAX);
            until(end, facts.now).map_or(Due::Now, Due::In)
        }
    }
}

fn resolve_when(due: Due, outlook: Outlook) -> Plan {
    match due {
        Due::Now => Plan::new(vec![Step::Resolve], outlook, None),
        Due::In(left) => Plan::new(vec![], outlook, Some(left)),
        Due::Never => Plan::new(vec![], outlook, None),
    }
}

fn working(found: Option<&Found>, phase: BuildPhase, facts: &Facts) -> Outlook {
    let bytes_total = found.map_or(0, |found| found.bytes);
    Outlook::Working {
        found: found.cloned(),
        progress: Progress { phase, bytes_done: 0, bytes_total, percent: 0, started_at: facts.now },
    }
}

/// Up to a tenth longer, so that objects that were resolved together drift apart.
fn spread(interval: Duration, seed: u64) -> Duration {
    interval + interval.mul_f64((seed % 1024) as f64 / 10240.0)
}

fn after(from: Timestamp, delay: Duration) -> Option<Timestamp> {
    from.checked_add(SignedDuration::try_from(delay).ok()?).ok()
}

/// None when it is over.
fn until(then: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(then.duration_since(now)).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
