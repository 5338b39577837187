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
use std::time::Duration;

/// Bytes of an error body that are read at most.
pub(crate) const MAX_ERROR_BODY: u64 = 64 << 10;
/// Characters of it that an error shows.
const MAX_DETAIL: usize = 300;

/// An answer with a status other than success.
pub(crate) struct Refusal<'a> {
    pub operation: Operation,
    pub status: u16,
    /// Seconds, as the header has it (the form with a date is not used by registries).
    pub retry_after: Option<&'a str>,
    pub body: &'a [u8],
    /// What an unauthorized caller can do.
    pub hint: String,
    /// Strings that must not be shown should the other side echo them.
    pub secrets: &'a [&'a str],
}

impl Refusal<'_> {
    pub(crate) fn into_error(self) -> Error {
        let retry_after = self.retry_after.and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
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
            429 => Error::RateLimited { operation, detail: described(), retry_after },
            500.. => Error::Server { operation, status, detail: described(), retry_after },
            _ => Error::Status { operation, status, detail: described() },
        }
    }
}

fn not_found(operation: Operation, detail: String) -> Error {
    let missing = match &operation {
        Operation::Manifest { .. } => Missing::Manifest { detail },
        Operation::Blob { .. } | Operation::Config { .. } => Missing::Blob { detail },
        Operation::Tags { .. } => Missing::Repository,
        Operation::Ping { .. } | Operation::Token { .. } => {
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
            body: body.as_bytes(),
            hint: "log in".to_owned(),
            secrets: &["hunter2"],
        }
        .into_error()
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
        check(400, "{}", Kind::Protocol, "unexpected status 400: {}");
        check(400, "[1,", Kind::Protocol, "unexpected status 400: [1,");
        assert_eq!(refusal(429, "").reaction(), Reaction::Retry { after: Some(Duration::from_secs(7)) });
        assert!(refusal(500, &"x".repeat(10_000)).to_string().len() < 400);
    }
}
