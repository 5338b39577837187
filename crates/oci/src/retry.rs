//! How often, and after what pause, a request is tried again.

use crate::error::{Error, Reaction};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// Tries in a row that may fail: enough for a registry's restart (3 s of pauses), few enough that a person waits.
pub(crate) const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Tries that take long (connect and idle timeouts) are not repeated as often: a host that does not answer at all is
/// given up after this time.
const PATIENCE: Duration = Duration::from_secs(15);
/// A registry that asks for a longer pause gets its wish from the caller, who knows when the image is needed.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// The failures in a row of one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    failures: u32,
    tries: u32,
    since: Instant,
}

impl Attempts {
    /// At most `tries` in a row.
    pub(crate) fn new(tries: u32) -> Self {
        Self { failures: 0, tries, since: Instant::now() }
    }

    /// Waits before the next try, or gives the error back when there is to be none.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= self.tries {
            return Err(error);
        }
        let Some(pause) = pause(self.failures, self.since.elapsed(), error.reaction(), jitter()) else {
            return Err(error);
        };
        tracing::debug!(%error, failures = self.failures, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The request got on before it failed: the next failure is the first of a new row.
    pub(crate) fn progress(&mut self) {
        *self = Self::new(self.tries);
    }
}

/// The pause after the `failures`th failure in a row, `elapsed` after its first try began; `jitter` is from 0 to 1, so that clients that failed together do
/// not come back together.
fn pause(failures: u32, elapsed: Duration, reaction: Reaction, jitter: f64) -> Option<Duration> {
    let Reaction::Retry { after } = reaction else {
        return None;
    };
    if after.is_some_and(|after| after > LONGEST_WISH) {
        return None;
    }
    // Waiting as asked is no sign of a dead host.
    if after.is_none() && elapsed >= PATIENCE {
        return None;
    }
    let full = FIRST_PAUSE.saturating_mul(1 << (failures - 1)).min(LONGEST_PAUSE);
    let jittered = full.mul_f64(0.5 + jitter / 2.0);
    Some(after.map_or(jittered, |after| after + FIRST_PAUSE.mul_f64(jitter)))
}

/// The standard library's per-process random keys, hashed once more: good enough to spread clients.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let retry = |after: Option<u64>| Reaction::Retry { after: after.map(Duration::from_secs) };
        let check = |failures, seconds, reaction, jitter, expect: Option<u64>| {
            let expect = expect.map(Duration::from_millis);
            let elapsed = Duration::from_secs(seconds);
            assert_eq!(pause(failures, elapsed, reaction, jitter), expect, "{failures} {seconds} {reaction:?}");
        };
        check(1, 0, retry(None), 1.0, Some(400));
        check(1, 0, retry(None), 0.0, Some(200));
        check(2, 1, retry(None), 1.0, Some(800));
        check(4, 2, retry(None), 1.0, Some(3200));
        check(5, 5, retry(None), 1.0, Some(6400));
        check(1, 10, retry(None), 1.0, Some(400));
        check(2, 20, retry(None), 1.0, None);
        check(1, 0, Reaction::Stall, 1.0, None);
        check(1, 0, retry(Some(7)), 0.0, Some(7000));
        check(1, 0, retry(Some(7)), 1.0, Some(7400));
        check(3, 99, retry(Some(7)), 1.0, Some(7400));
        check(1, 0, retry(Some(61)), 0.0, None);
        assert!((0.0..=1.0).contains(&jitter()));
    }

    #[tokio::test]
    async fn tries_are_counted_anew_after_progress() {
        let operation = crate::Operation::Tags { name: "host/x".to_owned() };
        let error = || Error::Interrupted { operation: operation.clone(), written: 3 };
        let mut attempts = Attempts::new(2);
        for _ in 0..2 {
            assert!(attempts.pause(error()).await.is_ok());
            attempts.progress();
        }
        assert!(attempts.pause(error()).await.is_ok() && attempts.pause(error()).await.is_err());
        assert!(Attempts::new(1).pause(error()).await.is_err());
    }
}
