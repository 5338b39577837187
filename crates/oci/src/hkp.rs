//! HKP: PGP keys of key servers, over HTTP.
//!
//! ```text
//! GET  /pks/lookup?op=get&options=mr&exact=on&search=0x<fingerprint>   armored keys, or 404
//! GET  /pks/lookup?op=index&options=mr&fingerprint=on&search=<text>    a line for each key and user ID, or 404:
//!        info:<version>:<count>
//!        pub:<fingerprint>:<algorithm>:<bits>:<created>:<expires>:<flags>[:…]     flags: r revoked, d disabled, e expired
//!        uid:<percent-encoded user ID>:<created>:<expires>:<flags>
//! POST /pks/add    keytext=<armored keys>, as a form
//! ```
//! draft-gallagher-openpgp-hkp sections 3 to 5. `hkp://` is HTTP on port 11371, `hkps://` HTTPS. What a server says is bounded
//! and trusted for nothing: whoever takes a key from it checks that it is the one that was asked for.

use crate::answer::one_line;
use crate::transport::{Get, Transport, refusal, without_query};
use crate::{Error, Operation, Tls};
use reqwest::{Response, StatusCode, Url};
use siforge_reference::ParseError;

/// Most bytes of an answer: a much-certified key has some hundred kB.
const MAX_ANSWER: u64 = 8 << 20;
/// Most keys that are taken from a list.
const MAX_FOUND: usize = 1000;
const PORT: u16 = 11371;

/// A key that a server has. Everything but the fingerprint may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Lower-case hex; of servers that do not know better, its last 16 or 8 digits.
    pub fingerprint: String,
    /// RFC 9580 section 9.1.
    pub algorithm: Option<u8>,
    pub bits: Option<u32>,
    /// Unix seconds.
    pub created: Option<i64>,
    pub expires: Option<i64>,
    pub revoked: bool,
    pub users: Vec<String>,
}

#[derive(Debug)]
pub struct KeyServer {
    transport: Transport,
    url: Url,
}

impl KeyServer {
    /// `url`: http, https, hkp or hkps; a path is one of a server that has its `/pks` beneath it.
    pub fn new(url: &str, tls: &Tls) -> Result<Self, Error> {
        let url = address(url).ok_or_else(|| ParseError::Url { value: one_line(url, &[]) })?;
        let tls = Tls { plain_http: url.scheme() == "http", ..tls.clone() };
        let transport = Transport::new(url.host_str().unwrap_or_default(), &url, &tls, &tls)?;
        Ok(Self { transport, url })
    }

    /// The server, for people.
    pub fn name(&self) -> String {
        without_query(&self.url)
    }

    /// The keys with this fingerprint (hex), armored; none when there is none.
    pub async fn get(&self, fingerprint: &str) -> Result<Option<Vec<u8>>, Error> {
        let query = [("op", "get"), ("options", "mr"), ("exact", "on"), ("search", &format!("0x{fingerprint}"))];
        self.lookup(&format!("key {fingerprint}"), &query).await
    }

    /// The keys that the server finds for a text.
    pub async fn search(&self, text: &str) -> Result<Vec<Found>, Error> {
        let query = [("op", "index"), ("options", "mr"), ("fingerprint", "on"), ("search", text)];
        let answer = self.lookup("list of keys", &query).await?;
        Ok(answer.map_or_else(Vec::new, |answer| index(&String::from_utf8_lossy(&answer))))
    }

    /// Gives the server armored keys.
    pub async fn add(&self, armored: &str) -> Result<(), Error> {
        let url = self.pks("add");
        let operation = Operation::GiveKey { server: self.name() };
        let get = Get { operation: operation.clone(), url, accept: "*/*", from: 0, digest_known: false };
        let form = crate::auth::form([("keytext", armored)].into_iter());
        let response = self.transport.post(&get, &form).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refusal(operation, response).await),
        }
    }

    fn pks(&self, what: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/pks/{what}", self.url.path().trim_end_matches('/')));
        url
    }

    async fn lookup(&self, what: &str, query: &[(&str, &str)]) -> Result<Option<Vec<u8>>, Error> {
        let mut url = self.pks("lookup");
        url.query_pairs_mut().extend_pairs(query);
        let operation = Operation::Key { what: what.to_owned(), server: self.name() };
        let get = Get { operation: operation.clone(), url, accept: "*/*", from: 0, digest_known: false };
        let response = self.transport.get(&get, None).await?;
        match response.status() {
            StatusCode::OK => self.transport.body(&operation, response, "its answer", MAX_ANSWER).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(operation, response).await),
        }
    }

    async fn refusal(&self, operation: Operation, response: Response) -> Error {
        refusal(operation, response, "is it a key server?".to_owned(), &[]).await
    }
}

/// The HTTP address of a server.
fn address(url: &str) -> Option<Url> {
    let (scheme, rest) = url.split_once("://")?;
    let (scheme, port) = match scheme {
        "http" | "https" => (scheme, None),
        "hkp" => ("http", Some(PORT)),
        "hkps" => ("https", None),
        _ => return None,
    };
    let mut parsed = Url::parse(&format!("{scheme}://{rest}")).ok()?;
    let names_a_user = !parsed.username().is_empty() || parsed.password().is_some();
    if names_a_user || parsed.query().is_some() || parsed.fragment().is_some() {
        return None;
    }
    // A port that is HTTP's own is not in the parsed URL.
    let (_, last) = rest.split('/').next()?.rsplit_once(':').unwrap_or_default();
    let names_a_port = !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit());
    if let Some(port) = port.filter(|_| !names_a_port) {
        parsed.set_port(Some(port)).ok()?;
    }
    Some(parsed)
}

/// Lines of kinds that are not known are passed over, as the draft wants.
fn index(text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some("pub") if found.len() < MAX_FOUND => found.extend(key(fields)),
            Some("pub") => break,
            Some("uid") => {
                if let (Some(key), Some(user)) = (found.last_mut(), fields.next()) {
                    key.users.push(one_line(&decoded(user), &[]));
                }
            }
            _ => {}
        }
    }
    found
}

fn key<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<Found> {
    let fingerprint = fields.next()?.to_ascii_lowercase();
    let fingerprint = fingerprint.strip_prefix("0x").unwrap_or(&fingerprint).to_owned();
    if !(8..=64).contains(&fingerprint.len()) || !fingerprint.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut field = || fields.next().unwrap_or_default();
    Some(Found {
        fingerprint,
        algorithm: field().parse().ok(),
        bits: field().parse().ok(),
        created: field().parse().ok(),
        expires: field().parse().ok(),
        revoked: field().contains('r'),
        users: Vec::new(),
    })
}

/// Percent-encoding, as in URLs; what is no such code stays.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.filter(|_| first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |url, expect: Option<&str>| assert_eq!(address(url).as_ref().map(Url::as_str), expect, "{url}");
        check("https://keys.openpgp.org", Some("https://keys.openpgp.org/"));
        check("http://host:8080/sub", Some("http://host:8080/sub"));
        check("hkp://host", Some("http://host:11371/"));
        check("hkp://host:80", Some("http://host/"));
        check("hkp://[::1]/x:80", Some("http://[::1]:11371/x:80"));
        check("hkps://host", Some("https://host/"));
        check("host", None);
        check("ftp://host", None);
        check("https://me:secret@host", None);
        check("https://host/?x=y", None);
    }

    #[test]
    fn lists_of_keys() {
        let print = "ab".repeat(20);
        let one = Found { fingerprint: print.clone(), algorithm: Some(1), bits: Some(4096), ..Found::default() };
        let check = |text: &str, expect: &[Found]| assert_eq!(index(text), expect, "{text}");
        check("", &[]);
        check("<html>no key server", &[]);
        let times = Found { created: Some(1), expires: Some(2), revoked: true, ..one.clone() };
        check(&format!("info:1:1\npub:{}:1:4096:1:2:rd:4\n", print.to_uppercase()), &[times]);
        let users = vec!["Ada <ada@x.org>".into(), "50% [1m".into()];
        let text = format!(
            "info:1:1\r\npub:0x{print}:1:4096:::\r\nuid:Ada%20%3Cada@x.org%3e:1::\r\nuid:50%25 %1b[1m::\r\nuat:\r\n"
        );
        check(&text, &[Found { users, ..one.clone() }]);
        check(&format!("pub:{print}"), &[Found { algorithm: None, bits: None, ..one }]);
        check("pub:nothex\nuid:nobody:::\npub:1234567:1", &[]);
        let many = format!("pub:{print}:::::\n").repeat(MAX_FOUND + 5);
        assert_eq!(index(&many).len(), MAX_FOUND);
    }
}
