//! Answers that are not the wanted document: status and error body → [`Error`]. Pure.
//!
//! A registry explains itself in JSON (distribution spec, "Error Codes"), a token server or proxy in other ways:
//!
//! ```text
//!   {"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"nosuch"}}]}
//!   {"details":"incorrect username or password"}        auth.docker.io
//!   {"error":"invalid_grant","error_description":"…"}   OAuth 2 (RFC 6749, 5.2)
//! ```

use crate::error::{Error, Missing};
use crate::operation::Operation;
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// Bytes of an error body that are read at most.
pub(crate) const MAX_ERROR_BODY: u64 = 64 << 10;
/// Characters of it that an error shows.
const MAX_DETAIL: usize = 300;

const PROXY: &str = "the proxy wants a user name and a password, or did not accept those in HTTP_PROXY or HTTPS_PROXY";

/// An answer with a status other than success.
pub(crate) struct Refusal<'a> {
    pub operation: Operation,
    pub status: u16,
    /// As the header has it: seconds or a date.
    pub retry_after: Option<&'a str>,
    /// What `retry_after`'s date is compared with.
    pub now: SystemTime,
    pub body: &'a [u8],
    /// What an unauthorized caller can do.
    pub hint: String,
    /// Strings that must not be shown should the other side echo them.
    pub secrets: &'a [&'a str],
}

impl Refusal<'_> {
    pub(crate) fn into_error(self) -> Error {
        let retry_after = self.retry_after.and_then(|text| retry_after(text, self.now));
        let detail = detail(self.body, self.secrets);
        let Self { operation, status, hint, .. } = self;
        let described = || match detail.is_empty() {
            true => format!("status {status}"),
            false => detail.clone(),
        };
        match status {
            401 => Error::Unauthorized { operation, detail: described(), hint },
            403 => Error::Forbidden { operation, detail: described(), hint },
            404 => not_found(operation, detail),
            // Its explanation could echo the proxy's password, which nothing here knows.
            407 => Error::Status { operation, status, detail: PROXY.to_owned() },
            429 => Error::RateLimited { operation, detail: described(), retry_after },
            500.. => Error::Server { operation, status, detail: described(), retry_after },
            _ => Error::Status { operation, status, detail: described() },
        }
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which may be past.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(http_date(text)?.duration_since(now).unwrap_or_default()),
    }
}

/// RFC 9110, 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`. The two obsolete forms are sent by nobody.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, time, "GMT"] = date.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let [hour, minute, second] = time.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?[..]
    else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (year, day) = (year.parse::<u64>().ok()?, day.parse::<u64>().ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 0000-03-01, so that a leap day is the last of its year; 719,468 of them were before 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (days.checked_sub(719_468)? * 24 + hour) * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn not_found(operation: Operation, detail: String) -> Error {
    let missing = match &operation {
        Operation::Manifest { .. } | Operation::Referrers { .. } => Missing::Manifest { detail },
        Operation::Blob { .. } | Operation::Config { .. } | Operation::Foreign { .. } => Missing::Blob { detail },
        Operation::Tags { .. } => Missing::Repository,
        Operation::Ping { .. }
        | Operation::Token { .. }
        | Operation::Login { .. }
        | Operation::Push { .. }
        | Operation::Key { .. }
        | Operation::GiveKey { .. }
        | Operation::Download { .. } => {
            return Error::Status { operation, status: 404, detail };
        }
    };
    Error::NotFound { operation, missing }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    #[serde(default, alias = "error_description", alias = "message")]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the other side says, on one line, short, without `secrets`.
fn detail(body: &[u8], secrets: &[&str]) -> String {
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(Body { errors, details }) if !errors.is_empty() || details.is_some() => {
            errors.iter().map(Item::text).chain(details).collect::<Vec<_>>().join("; ")
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    one_line(&text, secrets)
}

impl Item {
    fn text(&self) -> String {
        match (self.message.as_str(), self.code.as_str()) {
            ("", code) => code.to_owned(),
            (message, _) => message.to_owned(),
        }
    }
}

/// Printable, short, without `secrets`: whatever was sent to us and is shown to people goes through here.
pub(crate) fn one_line(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    let printable = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = printable.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    if printable.chars().count() > MAX_DETAIL {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Reaction};

    fn refusal(status: u16, body: &str) -> Error {
        let operation = Operation::Manifest { selector: "latest".to_owned(), name: "host/x".to_owned() };
        Refusal {
            operation,
            status,
            retry_after: Some("7"),
            now: SystemTime::UNIX_EPOCH,
            body: body.as_bytes(),
            hint: "log in".to_owned(),
            secrets: &["hunter2"],
        }
        .into_error()
    }

    #[test]
    fn when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(retry_after(text, now), expect.map(Duration::from_secs), "{text}");
        };
        check(" 120 ", Some(120));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Thu, 29 Feb 1996 00:00:00 GMT", Some(825_552_000 - 784_111_777));
        for wrong in
            ["", "-1", "soon", "Sun, 06 Nov 1994", "Sun, 06 Now 1994 08:49:37 GMT", "x, 00 Jan 1970 00:00:00 GMT"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn statuses() {
        let check = |status, body: &str, kind, text: &str| {
            let error = refusal(status, body);
            assert_eq!((error.kind(), error.to_string()), (kind, format!("reading manifest latest in host/x: {text}")));
        };
        let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
        let unauthorized = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#;
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        let denied_text = "access denied: requested access to the resource is denied; log in";
        check(403, denied, Kind::Forbidden, denied_text);
        let required = "authentication required: authentication required; log in";
        check(401, unauthorized, Kind::Unauthorized, required);
        check(404, unknown, Kind::NotFound, "manifest unknown");
        check(404, "404 page not found\n", Kind::NotFound, "manifest unknown: 404 page not found");
        check(
            401,
            r#"{"details":"wrong password"}"#,
            Kind::Unauthorized,
            "authentication required: wrong password; log in",
        );
        check(401, "you sent hunter2", Kind::Unauthorized, "authentication required: you sent ***; log in");
        check(503, "<html>\n\tBad\u{7} gateway", Kind::Server, "server error 503: <html> Bad gateway");
        check(502, "", Kind::Server, "server error 502: status 502");
        check(429, "slow down", Kind::RateLimited, "toomanyrequests: slow down; the registry asks to wait 7 s");
        check(407, "hunter3", Kind::Protocol, &format!("unexpected status 407: {PROXY}"));
        check(400, "{}", Kind::Protocol, "unexpected status 400: {}");
        check(400, "[1,", Kind::Protocol, "unexpected status 400: [1,");
        assert_eq!(refusal(429, "").reaction(), Reaction::Retry { after: Some(Duration::from_secs(7)) });
        assert!(refusal(500, &"x".repeat(10_000)).to_string().len() < 400);
    }
}
