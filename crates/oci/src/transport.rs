//! One HTTP GET: redirects, headers, bounded bodies, and what broke.
//!
//! Redirects are followed here and not by the HTTP library, because of what must not follow them: the `Authorization`
//! header stays with the origin (scheme, host, port) that it was made for (registries redirect blobs to storage hosts
//! with signed URLs), and a document that no digest vouches for must not leave TLS.

use crate::answer::{MAX_ERROR_BODY, Refusal, one_line};
use crate::retry::{Attempts, TRIES};
use crate::{Error, Operation, Proxies, Secret, Tls};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use std::error::Error as _;
use std::io;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte. A registry that must first fetch a blob from its own upstream can be silent for long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Without a byte of an explanation that nothing depends on.
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Transport {
    /// For the one origin (scheme, host, port) that this is for.
    home: reqwest::Client,
    origin: Url,
    /// For every other that is pointed at: what one host is trusted with says nothing of another.
    elsewhere: reqwest::Client,
    pub(crate) proxies: Proxies,
    /// How long the other side may be silent.
    pub(crate) idle: Duration,
    /// How often in a row a request may fail.
    pub(crate) tries: u32,
}

/// What to get.
#[derive(Clone, Debug)]
pub(crate) struct Get {
    pub operation: Operation,
    pub url: Url,
    pub accept: &'static str,
    /// First byte wanted; more than 0 asks for a range.
    pub from: u64,
    /// The caller knows the content's digest, so that the way it comes does not matter.
    pub digest_known: bool,
}

impl Transport {
    /// To `origin` with `tls`; to wherever it points with `elsewhere`.
    pub(crate) fn new(registry: &str, origin: &Url, tls: &Tls, elsewhere: &Tls) -> Result<Self, Error> {
        let home = client(registry, tls)?;
        let elsewhere = Tls { plain_http: tls.plain_http, ..elsewhere.clone() };
        let elsewhere = if elsewhere == *tls { home.clone() } else { client(registry, &elsewhere)? };
        let (origin, proxies) = (origin.clone(), tls.proxies.clone());
        Ok(Self { home, origin, elsewhere, proxies, idle: IDLE_TIMEOUT, tries: TRIES })
    }

    fn to(&self, url: &Url) -> &reqwest::Client {
        match url.origin() == self.origin.origin() {
            true => &self.home,
            false => &self.elsewhere,
        }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.tries)
    }

    /// The answer at the end of the redirects, whatever its status.
    pub(crate) async fn get(&self, get: &Get, authorization: Option<&Secret>) -> Result<Response, Error> {
        let mut url = get.url.clone();
        let mut authorization = authorization;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(get, &url, authorization).await?;
            let Some(next) = next_location(get, &url, &response)? else {
                return Ok(response);
            };
            if next.origin() != url.origin() {
                authorization = None;
            }
            url = next;
        }
        Err(redirect(get, &url, "more than 10 redirects"))
    }

    async fn send(&self, get: &Get, url: &Url, authorization: Option<&Secret>) -> Result<Response, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(get.accept));
        if get.from > 0 {
            // Digits are always valid in a header, as is a token that HTTP gave us.
            let range = HeaderValue::try_from(format!("bytes={}-", get.from));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, sensitive(&get.operation, authorization)?);
        }
        self.answer(&get.operation, url, self.to(url).get(url.clone()).headers(headers)).await
    }

    /// Sends a form (`application/x-www-form-urlencoded`). It holds secrets, so a redirect is not followed.
    pub(crate) async fn post(&self, get: &Get, form: &Secret) -> Result<Response, Error> {
        let request = self
            .to(&get.url)
            .post(get.url.clone())
            .header(ACCEPT, get.accept)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.expose().to_owned());
        let response = self.answer(&get.operation, &get.url, request).await?;
        match response.status().is_redirection() {
            true => Err(redirect(get, &get.url, "what a form holds is for this place alone")),
            false => Ok(response),
        }
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.to(&url).request(method, url)
    }

    /// Sends a request with a body, which may take `patience` longer than an answer may.
    pub(crate) async fn send_once(
        &self,
        operation: &Operation,
        url: &Url,
        request: RequestBuilder,
        authorization: Option<&Secret>,
        patience: Duration,
    ) -> Result<Response, Error> {
        let request = match authorization {
            Some(authorization) => request.header(AUTHORIZATION, sensitive(operation, authorization)?),
            None => request,
        };
        let sent = tokio::time::timeout(self.idle + patience, request.send()).await;
        sent.map_err(|_| self.silent(operation, url))?.map_err(|error| broken(operation, &error, url))
    }

    async fn answer(&self, operation: &Operation, url: &Url, request: RequestBuilder) -> Result<Response, Error> {
        let sent = tokio::time::timeout(self.idle, request.send()).await.map_err(|_| self.silent(operation, url))?;
        sent.map_err(|error| broken(operation, &error, url))
    }

    /// The next bytes of a body.
    pub(crate) async fn chunk(
        &self,
        operation: &Operation,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, Error> {
        let next = tokio::time::timeout(self.idle, response.chunk()).await;
        let next = next.map_err(|_| self.silent(operation, response.url()))?;
        next.map_err(|error| broken(operation, &error, response.url()))
    }

    /// The whole body of at most `max` bytes.
    pub(crate) async fn body(
        &self,
        operation: &Operation,
        mut response: Response,
        what: &'static str,
        max: u64,
    ) -> Result<Vec<u8>, Error> {
        let limit = |actual| Error::Limit { operation: operation.clone(), what, actual, max };
        if let Some(length) = response.content_length().filter(|length| *length > max) {
            return Err(limit(length));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(operation, &mut response).await? {
            let length = (bytes.len() + chunk.len()) as u64;
            if length > max {
                return Err(limit(length));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn silent(&self, operation: &Operation, url: &Url) -> Error {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let detail = format!("no data from {host}:{port} for {:?}", self.idle);
        Error::Unreachable { operation: operation.clone(), detail }
    }
}

fn client(registry: &str, tls: &Tls) -> Result<reqwest::Client, Error> {
    let proxies = tls.proxies.clone();
    let proxy = reqwest::Proxy::custom(move |url| proxies.of(url).map(|proxy| proxy.expose().to_owned()));
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.client_config(registry)?)
        .proxy(proxy)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("siforge/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::TlsSetup { registry: registry.to_owned(), detail: root_cause(&error) })
}

fn sensitive(operation: &Operation, authorization: &Secret) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(authorization.expose()).map_err(|_| Error::Malformed {
        operation: operation.clone(),
        detail: "the token has characters that no header can hold".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a redirect leads, if the answer is one.
fn next_location(get: &Get, url: &Url, response: &Response) -> Result<Option<Url>, Error> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| redirect(get, url, "no readable Location header"))?;
    let mut next = url.join(location).map_err(|_| redirect(get, url, "its Location is no URL"))?;
    // The HTTP library would make an Authorization header of these.
    if next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(redirect(get, &next, "not an HTTP URL"));
    }
    match (url.scheme(), next.scheme()) {
        ("https", "http") if !get.digest_known => Err(redirect(get, &next, "it leaves TLS")),
        (_, "http" | "https") => Ok(Some(next)),
        _ => Err(redirect(get, &next, "not an HTTP URL")),
    }
}

fn redirect(get: &Get, location: &Url, detail: &'static str) -> Error {
    Error::Redirect { operation: get.operation.clone(), location: without_query(location), detail }
}

/// A URL for people: its query may hold a signature that opens the blob, and its user a password.
pub(crate) fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    // They fail only for URLs that cannot have a user.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    one_line(url.as_str(), &[])
}

/// The error that an answer without success stands for.
pub(crate) async fn refusal(operation: Operation, mut response: Response, hint: String, secrets: &[&str]) -> Error {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut bytes = Vec::new();
    // What cannot be read of an explanation is left out: the status is what counts.
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(EXPLANATION_TIMEOUT, response.chunk()).await {
        let room = (MAX_ERROR_BODY as usize).saturating_sub(bytes.len());
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    let status = match status {
        // A 304 or an unfollowed 3xx has no document either.
        status if status == StatusCode::OK => 204,
        status => status.as_u16(),
    };
    let now = SystemTime::now();
    Refusal { operation, status, retry_after: retry_after.as_deref(), now, body: &bytes, hint, secrets }.into_error()
}

/// The same for a server whose explanation is nobody's business.
pub(crate) fn refused(operation: Operation, response: &Response) -> Error {
    let (status, hint) = (response.status().as_u16(), "the place is open to nobody".to_owned());
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    Refusal { operation, status, retry_after, now: SystemTime::now(), body: b"", hint, secrets: &[] }.into_error()
}

/// A request or body that broke: certificate, other protocol, or the network.
pub(crate) fn broken(operation: &Operation, error: &reqwest::Error, url: &Url) -> Error {
    let operation = operation.clone();
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(certificate)) => {
            return Error::Certificate { operation, detail: format!("x509: {}", explained(certificate)) };
        }
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            return Error::NotTls { operation };
        }
        _ => {}
    }
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let cause = one_line(&root_cause(error), &[]);
    let detail = match (error.is_connect(), error.is_timeout()) {
        (true, true) => format!("dial tcp {host}:{port}: i/o timeout after {} s", CONNECT_TIMEOUT.as_secs()),
        (true, false) if is_refused(error) => {
            format!("dial tcp {host}:{port}: connect: connection refused")
        }
        (true, false) => format!("dial tcp {host}:{port}: {cause}"),
        (false, _) => format!("connection to {host}:{port} broke: {cause}"),
    };
    let hint = match error.is_connect() {
        true => "; is the address right, and does the registry run?",
        false => "",
    };
    Error::Unreachable { operation, detail: detail + hint }
}

/// Go's words, which people search for, and what to do.
fn explained(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => {
            "certificate has expired; the registry must renew it, or this machine's clock is wrong".to_owned()
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "certificate is not yet valid; is this machine's clock right?".to_owned()
        }
        E::UnknownIssuer | E::BadSignature => {
            "certificate signed by unknown authority; give the registry's CA certificate if it has its \
                             own, or the certificate itself if nobody signed it"
                .to_owned()
        }
        other => one_line(&other.to_string(), &[]),
    }
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The chain of causes, outermost first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = Cause<'_>> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = beneath(cause);
        Some(cause)
    })
}

/// An `io::Error` hides what it was made from: its `source` is that one's source.
fn beneath(cause: Cause<'_>) -> Option<Cause<'_>> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => cause.source(),
    }
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn is_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| io.kind() == io::ErrorKind::ConnectionRefused)
}

/// The innermost cause, without the URL that reqwest adds (its query may be secret).
fn root_cause(error: &reqwest::Error) -> String {
    match causes(error).last() {
        Some(cause) => cause.to_string(),
        None => "request failed".to_owned(),
    }
}
