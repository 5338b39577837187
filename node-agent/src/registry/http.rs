//! As much of HTTP/1.1 as a registry that is only read needs: one request a connection, no body. Pure.
//!
//! The status line's reason phrase carries the reason: container runtimes ask with HEAD, whose answer has no body, and what they
//! report of a failure is the status line.

use std::fmt::Write;

/// Most bytes of a request's head.
pub const HEAD_LIMIT: usize = 16 * 1024;
/// Most bytes of a reason phrase.
const REASON_LIMIT: usize = 200;

/// What of a request counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// HEAD: the answer's head alone is wanted.
    pub head_only: bool,
    /// Without the query.
    pub path: String,
    /// The whole value.
    pub authorization: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// For people; sanitised when written.
    pub reason: String,
    pub media_type: &'static str,
    /// `Docker-Content-Digest`.
    pub digest: Option<String>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads a request's head, up to and including its empty line.
    pub fn parse(head: &[u8]) -> Result<Self, Response> {
        let bad = |reason: &str| Response::failure(400, reason);
        let text = std::str::from_utf8(head).map_err(|_| bad("the request is no text"))?;
        let mut lines = text.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(bad("the request line has not three words"));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(bad("only HTTP/1 is spoken here"));
        }
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err(Response::failure(405, "images are made by a SingularityImage, not pushed")),
        };
        let headers = lines.filter_map(|line| line.split_once(':'));
        let mut authorizations =
            headers.filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).map(|(_, value)| value.trim());
        let authorization = authorizations.next().map(str::to_owned);
        let path = target.split('?').next().unwrap_or_default().to_owned();
        Ok(Request { head_only, path, authorization })
    }
}

impl Response {
    pub fn found(media_type: &'static str, digest: Option<String>, body: Vec<u8>) -> Self {
        Response { status: 200, reason: "OK".to_owned(), media_type, digest, body }
    }

    /// A failure in the distribution specification's form, its message also in the reason phrase.
    pub fn failure(status: u16, reason: &str) -> Self {
        let code = match status {
            401 => "UNAUTHORIZED",
            403 => "DENIED",
            404 | 410 => "MANIFEST_UNKNOWN",
            405 => "UNSUPPORTED",
            _ => "UNAVAILABLE",
        };
        let body = serde_json::json!({"errors": [{"code": code, "message": reason}]}).to_string().into_bytes();
        Response { status, reason: reason.to_owned(), media_type: "application/json", digest: None, body }
    }

    /// The answer's bytes. HEAD gets the length that GET would.
    pub fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, sanitised(&self.reason));
        // Writing to a String never fails.
        let _ = write!(head, "Content-Type: {}\r\nContent-Length: {}\r\n", self.media_type, self.body.len());
        if let Some(digest) = &self.digest {
            let _ = write!(head, "Docker-Content-Digest: {digest}\r\n");
        }
        if self.status == 401 {
            head.push_str("WWW-Authenticate: Bearer realm=\"siforge-agent\"\r\n");
        }
        head.push_str("Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n");
        let mut bytes = head.into_bytes();
        if !head_only {
            bytes.extend(&self.body);
        }
        bytes
    }
}

/// A reason as one short line of printable ASCII.
fn sanitised(reason: &str) -> String {
    let plain = |letter: char| match letter {
        ' '..='~' => letter,
        letter if letter.is_whitespace() || letter.is_control() => ' ',
        _ => '?',
    };
    let text: String = reason.chars().map(plain).take(REASON_LIMIT + 1).collect();
    match text.len() > REASON_LIMIT {
        true => format!("{}...", &text[..REASON_LIMIT - 3]),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: Result<(bool, &str, Option<&str>), u16>) {
        let parsed = Request::parse(head.as_bytes());
        let seen = parsed.as_ref().map_err(|response| response.status);
        let seen = seen.map(|request| (request.head_only, request.path.as_str(), request.authorization.as_deref()));
        assert_eq!(seen, expected, "{head:?}");
    }

    #[test]
    fn requests_are_read() {
        check("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", Ok((false, "/v2/", None)));
        check("HEAD /v2/a/b/manifests/c?ns=x HTTP/1.1\r\n\r\n", Ok((true, "/v2/a/b/manifests/c", None)));
        check("GET / HTTP/1.0\r\nauthorization:  Bearer x \r\n\r\n", Ok((false, "/", Some("Bearer x"))));
        check("PUT /v2/ HTTP/1.1\r\n\r\n", Err(405));
        for bad in ["", "\r\n", "GET /\r\n\r\n", "GET / HTTP/2\r\n", "GET / x HTTP/1.1\r\n"] {
            check(bad, Err(400));
        }
        assert_eq!(Request::parse(b"GET /\xff HTTP/1.1\r\n\r\n").unwrap_err().status, 400);
    }

    #[test]
    fn a_reason_is_one_short_line() {
        for (reason, expected) in [
            ("no image lab/cow", "no image lab/cow".to_owned()),
            ("a\r\nSet-Cookie: x\tb", "a  Set-Cookie: x b".to_owned()),
            ("Jörg\u{7f}", "J?rg ".to_owned()),
            (&"x".repeat(200), "x".repeat(200)),
            (&"é".repeat(300), format!("{}...", "?".repeat(197))),
        ] {
            assert_eq!(sanitised(reason), expected);
        }
    }

    #[test]
    fn answers_have_a_length_and_end_the_connection() {
        let response = Response::found("text/x", Some("sha256:0".into()), b"body".to_vec());
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 4\r\nDocker-Content-Digest: sha256:0\r\nDocker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(response.bytes(true)).unwrap(), head);
        assert_eq!(String::from_utf8(response.bytes(false)).unwrap(), format!("{head}body"));
        let failure = String::from_utf8(Response::failure(503, "later\n").bytes(false)).unwrap();
        assert!(failure.starts_with("HTTP/1.1 503 later \r\n"), "{failure}");
        assert!(failure.ends_with(r#"{"errors":[{"code":"UNAVAILABLE","message":"later\n"}]}"#), "{failure}");
    }
}
