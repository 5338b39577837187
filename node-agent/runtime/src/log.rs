//! Errors, as runc tells them: a line of its log file's form, which container engines read back, and one on stderr.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::arguments::Invocation;

/// Tells an error. What cannot be told cannot be helped: the exit code says it.
pub(crate) fn report(invocation: &Invocation, message: &str) {
    let message = format!("siforge: {message}");
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if let Some(path) = &invocation.log
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = file.write_all(line(invocation.log_is_json, &message, &rfc3339(seconds)).as_bytes());
    }
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
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

fn line(json: bool, message: &str, time: &str) -> String {
    match json {
        true => format!("{}\n", serde_json::json!({"level": "error", "msg": message, "time": time})),
        false => format!("time=\"{time}\" level=error msg={message:?}\n"),
    }
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days since 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day + 2) / 153;
    let day = day - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn lines() {
        assert_eq!(line(true, "a \"b\"\n", "T"), "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\n\",\"time\":\"T\"}\n");
        assert_eq!(line(false, "a \"b\"\n", "T"), "time=\"T\" level=error msg=\"a \\\"b\\\"\\n\"\n");
    }
}
