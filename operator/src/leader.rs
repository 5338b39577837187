//! Leader election by a `coordination.k8s.io/v1` Lease, as client-go does it (tools/leaderelection/leaderelection.go).
//!
//! ```text
//! spec.holderIdentity        who leads; empty: given back
//! spec.renewTime             changes with each renewal; compared with itself only, never with our clock
//! spec.leaseDurationSeconds  a lease that was not seen to change for so long may be taken
//! spec.leaseTransitions      counts holders: the leader's generation
//! ```
//!
//! A lease does not fence: a leader that sleeps past its lease does not know. So every status patch carries a resource version,
//! and every ref in the store the generation, which refuses a lower one.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lease {lease} is held by {holder} now")]
    Lost { lease: String, holder: String },
    #[error("the lease {lease} could not be renewed for {seconds} s")]
    Expired { lease: String, seconds: u64, source: Box<kube::Error> },
    #[error("the lease {lease} could not be renewed for {seconds} s: the API server does not answer")]
    Silent { lease: String, seconds: u64 },
}

#[derive(Clone)]
pub(crate) struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
}

/// What to do about a lease that was read. Pure.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Create,
    /// Take it over; it becomes ours with this number of transitions.
    Take(i32),
    Renew,
    Wait,
}

/// `unchanged`: for how long the lease was seen as it is.
fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Move {
    let Some(spec) = spec else {
        return Move::Create;
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder == identity {
        return Move::Renew;
    }
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    if holder.is_empty() || unchanged >= Duration::from_secs(seconds) {
        return Move::Take(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    Move::Wait
}

impl Elector {
    /// `identity` must be this process's alone: it tells a restarted leader from the one before.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: String, duration: Duration) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, duration }
    }

    fn period(&self) -> Duration {
        self.duration / 5
    }

    /// Waits until this process leads; gives its generation, which is 1 for the first leader ever.
    pub(crate) async fn lead(&self) -> u64 {
        let mut seen: Option<(Option<LeaseSpec>, Instant)> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(Some(transitions)) => return u64::try_from(transitions).unwrap_or(0) + 1,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "asking for the lease failed")
                }
            }
            sleep(self.period()).await;
        }
    }

    async fn attempt(&self, seen: &mut Option<(Option<LeaseSpec>, Instant)>) -> Result<Option<i32>, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone());
        let since = match seen {
            Some((before, since)) if *before == spec => *since,
            _ => Instant::now(),
        };
        *seen = Some((spec.clone(), since));
        let transitions = match decide(spec.as_ref(), &self.identity, since.elapsed()) {
            Move::Wait => return Ok(None),
            Move::Create => 0,
            Move::Take(transitions) => transitions,
            Move::Renew => spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0),
        };
        let metadata = lease.map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata,
        );
        let now = Some(MicroTime(Timestamp::now()));
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            lease_transitions: Some(transitions),
            acquire_time: now.clone(),
            renew_time: now,
            ..LeaseSpec::default()
        };
        self.write(Lease { metadata, spec: Some(spec) }).await.map(|won| won.then_some(transitions))
    }

    /// False when somebody else was first.
    async fn write(&self, lease: Lease) -> Result<bool, kube::Error> {
        let written = match lease.metadata.resource_version {
            Some(_) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            None => self.api.create(&PostParams::default(), &lease).await,
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renews until the lease is lost; returns then.
    ///
    /// Others count from when they saw a renewal; we count from when we sent it, which was before, and give up after nine
    /// tenths of the duration, also in the middle of a request: so that we stop before another may begin.
    pub(crate) async fn keep(&self) -> Error {
        let mut renewed = Instant::now();
        loop {
            sleep(self.period()).await;
            let sent = Instant::now();
            let end = renewed + self.duration * 9 / 10;
            let Ok(answer) = timeout_at(end, self.renew()).await else {
                return Error::Silent { lease: self.name.clone(), seconds: renewed.elapsed().as_secs() };
            };
            match answer {
                Ok(None) => renewed = sent,
                Ok(Some(holder)) => {
                    return Error::Lost { lease: self.name.clone(), holder };
                }
                // The next attempt would come too late.
                Err(error) if Instant::now() + self.period() >= end => {
                    return Error::Expired {
                        lease: self.name.clone(),
                        seconds: renewed.elapsed().as_secs(),
                        source: Box::new(error),
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "renewing the lease failed; trying again")
                }
            }
        }
    }

    /// The new holder, if there is one.
    async fn renew(&self) -> Result<Option<String>, kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity {
            return Ok(Some(holder));
        }
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        // Lost races are seen at the next renewal.
        self.write(lease).await.map(|_| None)
    }

    /// Gives the lease back, so that the next leader need not wait.
    pub(crate) async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.write(lease).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_take_the_lease() {
        let spec = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        };
        let check = |spec: Option<LeaseSpec>, unchanged, expect| {
            assert_eq!(decide(spec.as_ref(), "me", Duration::from_secs(unchanged)), expect)
        };
        check(None, 0, Move::Create);
        check(Some(spec("me")), 0, Move::Renew);
        check(Some(spec("")), 0, Move::Take(5));
        check(Some(spec("other")), 14, Move::Wait);
        check(Some(spec("other")), 15, Move::Take(5));
        check(Some(LeaseSpec { lease_duration_seconds: None, ..spec("other") }), 0, Move::Take(5));
    }
}
