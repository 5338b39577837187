//! Authentication: what the registry wants is asked once, tokens are fetched when needed and renewed before they expire.
//!
//! ```text
//!   GET /v2/ ──200──▶ Open
//!            ──401──▶ WWW-Authenticate: Basic   ──▶ Authorization: Basic <credentials>
//!                     WWW-Authenticate: Bearer  ──▶ GET <realm>?service=…&scope=repository:<name>:pull
//!                                                       (Authorization: Basic <credentials>, if there are any)
//!                                                   or, with an identity token, POST <realm>
//!                                                       grant_type=refresh_token&refresh_token=…&service=…&scope=…
//!                                                   ──▶ Authorization: Bearer <token>, until expires_in
//! ```
//! distribution `docs/spec/auth/token.md` and `oauth.md`. The realm is the only other place that is sent the credentials, and over HTTP
//! only when the registry itself is spoken to over HTTP.

use crate::challenge::{self, Challenge};
use crate::operation::name;
use crate::transport::{self, Get, Transport, without_query};
use crate::{Credentials, Error, Operation, Secret};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use siforge_reference::ImageRef;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Bytes of a token server's answer: tokens with group claims reach tens of KiB.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// What a token without `expires_in` lives (token.md: "defaults to 60 seconds").
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this long before its end, or at half of a shorter life.
const RENEW_BEFORE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Auth {
    registry: String,
    base: Url,
    credentials: Option<Credentials>,
    /// What tokens are asked for.
    pub(crate) actions: &'static str,
    /// Held while a token is fetched, so that parallel blobs share one.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until the registry was asked.
    scheme: Option<Scheme>,
    /// By repository.
    tokens: HashMap<String, Token>,
}

#[derive(Clone, Debug)]
enum Scheme {
    Open,
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

#[derive(Debug)]
struct Token {
    header: Secret,
    renew: Instant,
}

impl Auth {
    /// `base` is the registry's root URL.
    pub(crate) fn new(registry: &str, base: Url, credentials: Option<Credentials>) -> Self {
        Self { registry: registry.to_owned(), base, credentials, actions: "pull", state: Mutex::default() }
    }

    /// Gets a document of `reference`'s repository; a token that the registry no longer takes is renewed once.
    pub(crate) async fn get(&self, http: &Transport, reference: &ImageRef, get: &Get) -> Result<Response, Error> {
        let authorization = self.authorization(http, reference).await?;
        let response = http.get(get, authorization.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED
            || !self.rejected(reference, authorization.as_ref(), response.headers()).await?
        {
            return Ok(response);
        }
        let authorization = self.authorization(http, reference).await?;
        http.get(get, authorization.as_ref()).await
    }

    /// The error of an answer without success.
    pub(crate) async fn refusal(&self, operation: Operation, response: Response) -> Error {
        let hint = match &self.credentials {
            None => format!("no credentials for {} were given", self.registry),
            Some(credentials) => match (&operation, credentials.username()) {
                (Operation::Token { .. } | Operation::Ping { .. } | Operation::Login { .. }, Some(user)) => {
                    format!("{} did not accept the password of user {user:?}", self.registry)
                }
                (Operation::Token { .. } | Operation::Ping { .. } | Operation::Login { .. }, None) => {
                    format!("{} did not accept the stored token; log in again", self.registry)
                }
                (_, Some(user)) => format!("user {user:?} may lack access, or the repository does not exist"),
                (_, None) => "the stored token may lack access, or the repository does not exist".to_owned(),
            },
        };
        let basic = self.credentials.as_ref().and_then(Credentials::basic);
        let plain = self.credentials.as_ref().map(|credentials| credentials.secret().expose());
        let encoded = basic.as_ref().map(|basic| basic.expose().trim_start_matches("Basic "));
        let secrets: Vec<&str> = plain.into_iter().chain(encoded).collect();
        transport::refusal(operation, response, hint, &secrets).await
    }

    pub(crate) async fn authorization(&self, http: &Transport, reference: &ImageRef) -> Result<Option<Secret>, Error> {
        if let Some(Credentials::Bearer { token }) = &self.credentials {
            return Ok(Some(bearer(token)));
        }
        let mut state = self.state.lock().await;
        let scheme = match &state.scheme {
            Some(scheme) => scheme.clone(),
            None => {
                let scheme = self.ping(http).await?;
                state.scheme.insert(scheme).clone()
            }
        };
        match scheme {
            Scheme::Open => Ok(None),
            Scheme::Basic => self.basic(Operation::manifest(reference)).map(Some),
            Scheme::Bearer { realm, service } => {
                let now = Instant::now();
                if let Some(token) = state.tokens.get(&reference.repository).filter(|token| token.renew > now) {
                    return Ok(Some(token.header.clone()));
                }
                let scope = format!("repository:{}:{}", reference.repository, self.actions);
                let operation = Operation::Token { name: name(reference), realm: without_query(&realm) };
                let token = self.token(http, operation, realm, service.as_deref(), Some(&scope), now).await?;
                let header = token.header.clone();
                state.tokens.insert(reference.repository.clone(), token);
                Ok(Some(header))
            }
        }
    }

    fn basic(&self, operation: Operation) -> Result<Secret, Error> {
        let detail = format!("{} wants a user name and a password", self.registry);
        let hint = match &self.credentials {
            Some(credentials) => match credentials.basic() {
                Some(basic) => return Ok(basic),
                None => "the stored token is of no use there; log in with user name and password".to_owned(),
            },
            None => format!("no credentials for {} were given", self.registry),
        };
        Err(Error::Unauthorized { operation, detail, hint })
    }

    /// Whether the registry takes the credentials: what `docker login` asks. False when it takes anybody.
    pub(crate) async fn verify(&self, http: &Transport) -> Result<bool, Error> {
        let operation = Operation::Login { registry: self.registry.clone() };
        let authorization = match self.ping(http).await? {
            Scheme::Open => return Ok(false),
            Scheme::Basic => self.basic(operation.clone())?,
            Scheme::Bearer { realm, service } => {
                self.token(http, operation.clone(), realm, service.as_deref(), None, Instant::now()).await?.header
            }
        };
        let get = Get { operation: operation.clone(), ..self.root()? };
        let mut attempts = http.attempts();
        loop {
            let error = match http.get(&get, Some(&authorization)).await {
                Ok(response) if response.status().is_success() => return Ok(true),
                Ok(response) => self.refusal(operation.clone(), response).await,
                Err(error) => error,
            };
            attempts.pause(error).await?;
        }
    }

    /// Whether there is a server that speaks what `base` says; only a certificate that is not accepted is an error.
    pub(crate) async fn answers(&self, http: &Transport) -> Result<bool, Error> {
        match http.get(&self.root()?, None).await {
            Ok(_) => Ok(true),
            Err(Error::NotTls { .. } | Error::Unreachable { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn root(&self) -> Result<Get, Error> {
        let url = self
            .base
            .join("v2/")
            .map_err(|_| Error::OtherRegistry { client: self.registry.clone(), registry: self.base.to_string() })?;
        let operation = Operation::Ping { registry: self.registry.clone(), url: url.to_string() };
        Ok(Get { operation, url, accept: "application/json", from: 0, digest_known: false })
    }

    async fn ping(&self, http: &Transport) -> Result<Scheme, Error> {
        let get = self.root()?;
        let operation = get.operation.clone();
        let mut attempts = http.attempts();
        loop {
            let error = match http.get(&get, None).await {
                Ok(response) => match response.status().as_u16() {
                    401 => {
                        return Ok(self.scheme(&operation, response.headers())?.unwrap_or(Scheme::Open));
                    }
                    429 | 500.. => self.refusal(operation.clone(), response).await,
                    // Some registries answer 403 or 404 here and serve images: the next request tells.
                    _ => return Ok(Scheme::Open),
                },
                Err(error) => error,
            };
            attempts.pause(error).await?;
        }
    }

    /// The best challenge that can be met: Bearer, which works without credentials, before Basic.
    fn scheme(&self, operation: &Operation, headers: &HeaderMap) -> Result<Option<Scheme>, Error> {
        let headers = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<_> = headers.flat_map(challenge::parse).collect();
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                let realm = self.realm(operation, realm)?;
                return Ok(Some(Scheme::Bearer { realm, service: service.clone() }));
            }
        }
        Ok(challenges.contains(&Challenge::Basic).then_some(Scheme::Basic))
    }

    fn realm(&self, operation: &Operation, realm: &str) -> Result<Url, Error> {
        let malformed = |detail: &str| Error::Malformed {
            operation: operation.clone(),
            detail: format!("token realm {:?}: {detail}", crate::answer::one_line(realm, &[])),
        };
        let mut url = Url::parse(realm).map_err(|_| malformed("not a URL"))?;
        match (self.base.scheme(), url.scheme()) {
            ("https", "http") => return Err(malformed("not HTTPS, while the registry is")),
            (_, "http" | "https") => {}
            _ => return Err(malformed("not an HTTP URL")),
        }
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(malformed("not an HTTP URL"));
        }
        Ok(url)
    }

    async fn token(
        &self,
        http: &Transport,
        operation: Operation,
        mut realm: Url,
        service: Option<&str>,
        scope: Option<&str>,
        now: Instant,
    ) -> Result<Token, Error> {
        let identity = match &self.credentials {
            Some(Credentials::Identity { token }) => Some(token),
            _ => None,
        };
        let asked = [("service", service), ("scope", scope)];
        let asked = asked.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)));
        let form = match identity {
            None => {
                realm.query_pairs_mut().extend_pairs(asked);
                None
            }
            // oauth.md: all of it is the body's.
            Some(token) => {
                let grant =
                    [("grant_type", "refresh_token"), ("client_id", "siforge"), ("refresh_token", token.expose())];
                Some(form(grant.into_iter().chain(asked)))
            }
        };
        let get = Get { operation, url: realm, accept: "application/json", from: 0, digest_known: false };
        let mut attempts = http.attempts();
        loop {
            match self.try_token(http, &get, form.as_ref()).await {
                Ok(answer) => return token(&get.operation, &answer, now),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    async fn try_token(&self, http: &Transport, get: &Get, form: Option<&Secret>) -> Result<Vec<u8>, Error> {
        let response = match form {
            Some(form) => http.post(get, form).await?,
            None => {
                let basic = self.credentials.as_ref().and_then(Credentials::basic);
                http.get(get, basic.as_ref()).await?
            }
        };
        match response.status() {
            StatusCode::OK => http.body(&get.operation, response, "token answer", MAX_TOKEN_ANSWER).await,
            _ => Err(self.refusal(get.operation.clone(), response).await),
        }
    }

    /// The registry answered 401: forgets the token that it did not take and learns its challenge. Whether another try
    /// can differ from the last.
    async fn rejected(&self, reference: &ImageRef, sent: Option<&Secret>, headers: &HeaderMap) -> Result<bool, Error> {
        let operation = Operation::manifest(reference);
        let Some(scheme) = self.scheme(&operation, headers)? else {
            return Ok(false);
        };
        let mut state = self.state.lock().await;
        let stale = state.tokens.get(&reference.repository).is_some_and(|token| Some(&token.header) == sent);
        if stale {
            state.tokens.remove(&reference.repository);
        }
        let again = match scheme {
            Scheme::Open => false,
            Scheme::Basic => sent.is_none(),
            Scheme::Bearer { .. } => true,
        };
        state.scheme = Some(scheme);
        Ok(again)
    }
}

/// `application/x-www-form-urlencoded`, as a query is.
pub(crate) fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Secret {
    let mut url = Url::parse("http://form/").ok();
    let query = url.as_mut().and_then(|url| {
        url.query_pairs_mut().extend_pairs(pairs);
        url.query()
    });
    Secret::new(query.unwrap_or_default())
}

fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// Reads a token server's answer, received for a request that was sent at `now`.
fn token(operation: &Operation, answer: &[u8], now: Instant) -> Result<Token, Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<Secret>,
        #[serde(default)]
        access_token: Option<Secret>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    // The parser's own text could quote the token.
    let malformed = |detail: &str| Error::Malformed { operation: operation.clone(), detail: detail.to_owned() };
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| malformed("no token in JSON"))?;
    let given = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.expose().is_empty());
    let token = given.ok_or_else(|| malformed("it holds neither token nor access_token"))?;
    // token.md: clients take less than 60 s for 60 s. Longer than a day is not believed.
    let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(1, 86_400));
    let renew = now + life.saturating_sub(RENEW_BEFORE).max(life / 2);
    Ok(Token { header: bearer(&token), renew })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let now = Instant::now();
        let operation = Operation::Tags { name: "host/x".to_owned() };
        let check = |answer: &str, expect: Result<(&str, u64), &str>| {
            let token = token(&operation, answer.as_bytes(), now);
            let token = token.map(|t| (t.header.expose().to_owned(), t.renew.duration_since(now).as_millis()));
            match (token, expect) {
                (Ok((header, renew)), Ok((token, millis))) => {
                    assert_eq!((header, renew), (format!("Bearer {token}"), u128::from(millis)), "{answer}");
                }
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (token, _) => panic!("{answer}: {token:?}"),
            }
        };
        check(r#"{"token":"t","expires_in":300}"#, Ok(("t", 290_000)));
        check(r#"{"access_token":"a"}"#, Ok(("a", 50_000)));
        check(r#"{"token":"","access_token":"a","expires_in":8}"#, Ok(("a", 4_000)));
        check(r#"{"token":"t","expires_in":0}"#, Ok(("t", 500)));
        check(r#"{"token":"t","expires_in":18446744073709551615}"#, Ok(("t", 86_390_000)));
        check("{}", Err("neither token nor access_token"));
        check(r#"{"token":5}"#, Err("no token in JSON"));
        check("<html>", Err("no token in JSON"));
    }

    #[test]
    fn realms() {
        let check = |base: &str, realm: &str, expect: Result<&str, &str>| {
            let auth = Auth::new("host", Url::parse(base).expect(base), None);
            let url = auth.realm(&Operation::Tags { name: "host/x".to_owned() }, realm);
            match (url, expect) {
                (Ok(url), Ok(expect)) => assert_eq!(url.as_str(), expect),
                (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
                (url, _) => panic!("{realm}: {url:?}"),
            }
        };
        check("https://host/", "https://auth/token", Ok("https://auth/token"));
        check("https://host/", "https://u:p@auth/token?a=b", Ok("https://auth/token?a=b"));
        check("http://host/", "http://auth/token", Ok("http://auth/token"));
        check("https://host/", "http://auth/token", Err("not HTTPS"));
        check("https://host/", "file:///etc/passwd", Err("not an HTTP URL"));
        check("https://host/", "token", Err("not a URL"));
    }
}
