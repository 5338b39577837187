//! Waiting on a condition with a deadline.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition: short against what is waited for (daemons take 100 ms and more to start).
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` after `deadline`.
pub fn wait_until(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(holds_within(deadline, &mut condition), "not within {deadline:?}: {what}");
}

/// Waits until `attempt` gives a value; panics with `what` and the last error after `deadline`.
pub fn wait_for<T>(deadline: Duration, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}: {error}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether `condition` held at some moment before `deadline`.
pub fn holds_within(deadline: Duration, condition: &mut dyn FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}
