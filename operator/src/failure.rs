//! What went wrong, named by the reaction that it needs.
//!
//! ```text
//! Stalled     the user must act          looked at again when the object or an input changes, or at its interval
//! Waiting     something is missing       woken when the Secret or ConfigMap appears
//! Transient   it may pass by itself      tried again after a delay: doubled each time, spread by jitter, never before
//!                                        the registry's Retry-After
//! ```

use siforge_build::chain;
use siforge_crds::conditions::Reason;
use std::time::Duration;

/// The first delay; a registry that restarts is back within a few of these.
const FIRST_DELAY: Duration = Duration::from_secs(2);
/// No delay is longer: an image should be there minutes after its registry is.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// A server may ask for more patience than we have; beyond this we ask again anyway.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What the reader of an error must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Stalled,
    Waiting,
    Transient { retry_after: Option<Duration> },
}

/// An error as a condition shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reaction: Reaction,
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self { reaction: Reaction::Stalled, reason, message: message.into() }
    }

    pub(crate) fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self { reaction: Reaction::Waiting, reason, message: message.into() }
    }

    pub(crate) fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self { reaction: Reaction::Transient { retry_after: None }, reason, message: message.into() }
    }

    /// How long to wait before attempt number `failures` + 1, `failures` ≥ 1; None when only a change helps.
    pub(crate) fn delay(&self, failures: u32, seed: u64) -> Option<Duration> {
        match self.reaction {
            Reaction::Stalled | Reaction::Waiting => None,
            Reaction::Transient { retry_after } => {
                let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                Some(back_off(failures, seed).max(asked))
            }
        }
    }
}

/// 2 s, 4 s, 8 s … 5 min, each spread by ±25 %. `seed` tells objects apart, so that what failed together does not come
/// back together; equal seeds give equal delays, so that tests can say what they expect.
fn back_off(failures: u32, seed: u64) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let mixed = seed.wrapping_add(u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let spread = 0.75 + 0.5 * (mixed as f64 / f64::from(u32::MAX));
    doubled.min(LONGEST_DELAY).mul_f64(spread)
}

impl From<&siforge_oci::Error> for Failure {
    fn from(error: &siforge_oci::Error) -> Self {
        use siforge_oci::Kind;
        let reason = match error.kind() {
            Kind::InvalidReference => Reason::InvalidReference,
            Kind::Setup => Reason::InvalidSpec,
            Kind::NotFound => Reason::NotFound,
            Kind::Unauthorized | Kind::Forbidden => Reason::Unauthorized,
            Kind::Certificate => Reason::CertificateInvalid,
            Kind::Unreachable | Kind::Server | Kind::Interrupted => Reason::RegistryUnavailable,
            Kind::RateLimited => Reason::RateLimited,
            Kind::UnknownPlatform => Reason::PlatformNotFound,
            Kind::Protocol | Kind::Unsupported | Kind::Limit => Reason::SourceInvalid,
            Kind::Integrity => Reason::DigestMismatch,
            Kind::Local => Reason::StoreFailed,
        };
        let reaction = match error.reaction() {
            siforge_oci::Reaction::Stall => Reaction::Stalled,
            siforge_oci::Reaction::Retry { after } => Reaction::Transient { retry_after: after },
        };
        Self { reaction, reason, message: chain(error) }
    }
}

impl From<&siforge_oci::local::Error> for Failure {
    fn from(error: &siforge_oci::local::Error) -> Self {
        use siforge_oci::local::Error;
        match error {
            // An administrator may still be copying it.
            Error::Io { .. } | Error::Truncated { .. } => Self::transient(Reason::NotFound, chain(error)),
            Error::NoSuchImage { .. } => Self::stalled(Reason::NotFound, chain(error)),
            Error::UnknownPlatform { .. } => Self::stalled(Reason::PlatformNotFound, chain(error)),
            Error::Checksum { .. } => Self::stalled(Reason::DigestMismatch, chain(error)),
            _ => Self::stalled(Reason::SourceInvalid, chain(error)),
        }
    }
}

impl From<&siforge_store::Error> for Failure {
    fn from(error: &siforge_store::Error) -> Self {
        match error {
            siforge_store::Error::Name { .. } => Self::stalled(Reason::InvalidSpec, chain(error)),
            siforge_store::Error::Fenced { .. } => Self::transient(Reason::LeadershipLost, chain(error)),
            _ => Self::transient(Reason::StoreFailed, chain(error)),
        }
    }
}

impl From<&siforge_build::Error> for Failure {
    fn from(error: &siforge_build::Error) -> Self {
        use siforge_build::Error;
        match error {
            Error::Oci(error) => Self::from(error),
            Error::Local(error) => Self::from(error),
            Error::Store(error) => Self::from(error),
            // The operator's machine is at fault, not the image.
            error if error.is_local() => Self::transient(Reason::StoreFailed, chain(error)),
            Error::Decode { .. } | Error::DiffId { .. } | Error::Damaged { .. } => {
                Self::stalled(Reason::SourceInvalid, chain(error))
            }
            _ => Self::stalled(Reason::BuildFailed, chain(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_are_spread() {
        let failure = Failure::transient(Reason::RegistryUnavailable, "down");
        for (failures, about) in [(1, 2.0), (2, 4.0), (3, 8.0), (8, 256.0), (9, 300.0), (200, 300.0)] {
            for seed in 0..50 {
                let delay = failure.delay(failures, seed).unwrap().as_secs_f64();
                assert!(
                    (about * 0.749..=about * 1.251).contains(&delay),
                    "{failures} failures, seed {seed}: {delay} s"
                );
            }
        }
        assert_ne!(failure.delay(1, 1), failure.delay(1, 2));
        assert_eq!(failure.delay(1, 1), failure.delay(1, 1));
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        let asked = |seconds| Failure {
            reaction: Reaction::Transient { retry_after: Some(Duration::from_secs(seconds)) },
            reason: Reason::RateLimited,
            message: String::new(),
        };
        assert_eq!(asked(600).delay(1, 0), Some(Duration::from_secs(600)));
        assert_eq!(asked(1_000_000).delay(1, 0), Some(LONGEST_RETRY_AFTER));
        assert!(asked(0).delay(1, 0).unwrap() > Duration::from_secs(1));
    }

    #[test]
    fn only_transient_failures_are_tried_again() {
        assert_eq!(Failure::stalled(Reason::NotFound, "x").delay(1, 0), None);
        assert_eq!(Failure::waiting(Reason::SecretNotFound, "x").delay(1, 0), None);
    }
}
