//! The file that `docker login` and its relatives write: config.json, containers/auth.json, `.dockerconfigjson`. Pure.
//!
//! ```text
//!   { "auths": {
//!       "https://index.docker.io/v1/": { "auth": base64("user:password") },     Docker Hub's old name
//!       "quay.io":                     { "username": "u", "password": "p" },
//!       "quay.io/org":                 { "auth": …, "identitytoken": "…" },     the longest key that fits wins
//!       "ghcr.io":                     {} },                                    a credential helper has them
//!     "credHelpers": { "gcr.io": "gcloud" },      docker-credential-gcloud has those of this registry
//!     "credsStore":  "secretservice",             docker-credential-secretservice has all others
//!     … }                                         what else is there is kept
//! ```
//! docker/cli `cli/config/configfile`; containers-auth.json(5). Keys are matched as the kubelet does
//! (pkg/credentialprovider/keyring.go): a scheme is cut off, `*` stands for one label of the host, a path must be a prefix of
//! the repository; Docker Hub has several names.

use crate::{Credentials, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use siforge_reference::ImageRef;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const HUB: &str = "docker.io";
const HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
/// What Docker and its helpers call Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Why a file is of no use. It quotes no value, which may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthFile {
    #[error("not a Docker config (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error("the auth of {key} is not base64 of user:password")]
    Auth { key: String },
    #[error("the credential helper {name:?} has no name that a program can have")]
    HelperName { name: String },
    #[error("its credentials are kept by docker-credential-{name}; log in and out with docker or podman")]
    KeptByHelper { name: String },
}

/// A parsed file.
#[derive(Debug, Default, Deserialize)]
pub struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<Secret>,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    identitytoken: Option<Secret>,
    #[serde(default)]
    registrytoken: Option<Secret>,
}

/// Where a file says that an image's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    Here(Credentials),
    /// `docker-credential-<program>` is to be asked for `server`.
    Helper {
        program: String,
        server: String,
        /// The file names it for this very registry; else for whatever it may have.
        named: bool,
    },
}

/// An entry, as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    /// `None`: a token.
    pub username: Option<String>,
    /// The helper that has the credentials.
    pub helper: Option<String>,
}

impl AuthFile {
    pub fn parse(text: &[u8]) -> Result<Self, InvalidAuthFile> {
        // An empty file is what podman leaves after the last logout of old versions, and `touch`.
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // serde's message would quote what it found: a password, perhaps.
        let file: Self = serde_json::from_slice(text).map_err(|error| invalid(&error))?;
        let bad = |name: &&String| !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let bad = file.helpers.values().chain([&file.store]).find(bad).map(|name| crate::answer::one_line(name, &[]));
        match bad {
            Some(name) => Err(InvalidAuthFile::HelperName { name }),
            None => Ok(file),
        }
    }

    /// The credentials that the file itself holds for an image.
    pub fn credentials(&self, image: &ImageRef) -> Result<Option<Credentials>, InvalidAuthFile> {
        let entries = self.auths.iter();
        let mut entries: Vec<_> =
            entries.filter_map(|(key, entry)| matched(key, image).map(|length| (length, key, entry))).collect();
        entries.sort_by_key(|(length, key, _)| (std::cmp::Reverse(*length), strangeness(key)));
        // An empty entry is what Docker writes when a helper has the rest.
        entries.into_iter().find_map(|(_, key, entry)| entry.credentials(key).transpose()).transpose()
    }

    /// In the order in which they are to be tried.
    pub(crate) fn candidates(&self, image: &ImageRef) -> Result<Vec<Candidate>, InvalidAuthFile> {
        let server = if image.registry == HUB { HUB_KEY } else { &image.registry };
        let helper = |program: &String, server: &str, named| Candidate::Helper {
            program: program.clone(),
            server: server.to_owned(),
            named,
        };
        let named = self.helpers.iter().find(|(key, _)| same_registry(key, &image.registry));
        // docker/cli: one without a name stands for the file itself, whatever credsStore says.
        let own = named.is_some_and(|(_, program)| program.is_empty());
        let named = named.filter(|_| !own).map(|(_, program)| helper(program, server, true));
        let here = self.credentials(image)?.map(Candidate::Here);
        let store = (!own && !self.store.is_empty()).then(|| helper(&self.store, server, false));
        Ok([named, here, store].into_iter().flatten().collect())
    }

    /// All entries by their keys.
    pub fn list(&self) -> Vec<Listed> {
        let helpers = self.helpers.iter().filter(|(_, program)| !program.is_empty());
        let helpers =
            helpers.map(|(key, program)| Listed { key: key.clone(), username: None, helper: Some(program.clone()) });
        let own = self.auths.iter().filter_map(|(key, entry)| {
            let username = match entry.credentials(key) {
                Ok(Some(credentials)) => credentials.username().map(str::to_owned),
                Ok(None) if self.store.is_empty() => return None,
                Ok(None) | Err(_) => None,
            };
            let helper = (!entry.is_set() && !self.store.is_empty()).then(|| self.store.clone());
            Some(Listed { key: key.clone(), username, helper })
        });
        own.chain(helpers).collect()
    }
}

impl Entry {
    fn is_set(&self) -> bool {
        let set = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !secret.expose().is_empty());
        set(&self.auth) || set(&self.password) || set(&self.identitytoken) || set(&self.registrytoken)
    }

    fn credentials(&self, key: &str) -> Result<Option<Credentials>, InvalidAuthFile> {
        let set = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Credentials::Identity { token }));
        }
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Credentials::Bearer { token }));
        }
        if let Some(auth) = set(&self.auth) {
            let (username, password) = decode(&auth).ok_or_else(|| InvalidAuthFile::Auth { key: key.to_owned() })?;
            return Ok(Some(Credentials::Password { username, password }));
        }
        match (self.username.as_str(), &self.password) {
            ("", _) | (_, None) => Ok(None),
            (username, Some(password)) => {
                Ok(Some(Credentials::Password { username: username.to_owned(), password: password.clone() }))
            }
        }
    }
}

fn decode(auth: &Secret) -> Option<(String, Secret)> {
    let text = auth.expose().trim();
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    let plain = Zeroizing::new(String::from_utf8(bytes).ok()?);
    let (username, password) = plain.split_once(':')?;
    // Docker cuts these off, which old versions of it wrote.
    Some((username.to_owned(), Secret::new(password.trim_matches('\0'))))
}

fn invalid(error: &serde_json::Error) -> InvalidAuthFile {
    InvalidAuthFile::Json { line: error.line(), column: error.column() }
}

/// The length of what matched; None when the key is for another registry or repository.
fn matched(key: &str, image: &ImageRef) -> Option<usize> {
    let (host, path) = host_and_path(key);
    let same_path = path.is_empty()
        || image.repository == path
        || image.repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    (same_labels(host, &image.registry) && same_path).then_some(host.len() + path.len())
}

/// Of keys that fit equally well, the one that today's tools write comes first: no wildcard, no scheme; for Docker Hub its
/// old name.
fn strangeness(key: &str) -> u8 {
    let hub = host_and_path(key) == (HUB, "");
    let usual = if hub { key == HUB_KEY } else { !key.contains("://") };
    2 * u8::from(key.contains('*')) + u8::from(!usual)
}

fn same_registry(key: &str, registry: &str) -> bool {
    let (host, path) = host_and_path(key);
    path.is_empty() && host == registry
}

fn host_and_path(key: &str) -> (&str, &str) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/');
    // "https://index.docker.io/v1/" and ".../v2/" name the registry's API, not a repository.
    let path = if path == "v1" || path == "v2" { "" } else { path };
    (if HUB_ALIASES.contains(&host) { HUB } else { host }, path)
}

fn same_labels(pattern: &str, host: &str) -> bool {
    let (pattern, pattern_port) = pattern.rsplit_once(':').map_or((pattern, None), |(host, port)| (host, Some(port)));
    let (host, port) = host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let (mut want, mut have) = (pattern.split('.'), host.split('.'));
    pattern_port == port
        && want.by_ref().zip(have.by_ref()).all(|(want, have)| want == "*" || want == have)
        && pattern.split('.').count() == host.split('.').count()
}

/// The key under which a login to `name` (`HOST[/PATH]`) is kept.
pub fn login_key(name: &str) -> String {
    match host_and_path(name) {
        (HUB, "") => HUB_KEY.to_owned(),
        (host, "") => host.to_owned(),
        (host, path) => format!("{host}/{path}"),
    }
}

/// The file's text with a login more, in the place of all that there were for the same name; everything else in it stays.
/// `file` is what there was, if there was any.
pub fn with_login(file: Option<&[u8]>, name: &str, login: &Credentials) -> Result<Secret, InvalidAuthFile> {
    let (mut root, key) = (editable(file, name)?, login_key(name));
    let entry = match login {
        Credentials::Password { username, password } => {
            let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
            json!({ "auth": STANDARD.encode(pair.as_bytes()) })
        }
        Credentials::Identity { token } => json!({ "identitytoken": token.expose() }),
        Credentials::Bearer { token } => json!({ "registrytoken": token.expose() }),
    };
    let auths = root.entry("auths").or_insert_with(|| json!({}));
    match auths.as_object_mut() {
        Some(auths) => {
            auths.retain(|other, _| host_and_path(other) != host_and_path(name));
            auths.insert(key, entry);
        }
        None => *auths = json!({ key: entry }),
    }
    Ok(written(root))
}

/// The file's text without a login, and whether there was one.
pub fn without_login(file: &[u8], name: &str) -> Result<(Secret, bool), InvalidAuthFile> {
    let mut root = editable(Some(file), name)?;
    let (wanted_host, wanted_path) = host_and_path(name);
    let mut found = false;
    if let Some(auths) = root.get_mut("auths").and_then(Value::as_object_mut) {
        auths.retain(|key, _| {
            let gone = host_and_path(key) == (wanted_host, wanted_path);
            found |= gone;
            !gone
        });
    }
    Ok((written(root), found))
}

/// The members of a file, when it is this file that keeps the secrets.
fn editable(file: Option<&[u8]>, name: &str) -> Result<Map<String, Value>, InvalidAuthFile> {
    let Some(text) = file.filter(|text| !text.trim_ascii().is_empty()) else {
        return Ok(Map::new());
    };
    let parsed = AuthFile::parse(text)?;
    let named = parsed.helpers.iter().find(|(key, _)| same_registry(key, host_and_path(name).0));
    let helper = named.map_or(&parsed.store, |(_, program)| program);
    match Some(helper).filter(|helper| !helper.is_empty()) {
        Some(helper) => Err(InvalidAuthFile::KeptByHelper { name: helper.clone() }),
        None => serde_json::from_slice(text).map_err(|error| invalid(&error)),
    }
}

fn written(root: Map<String, Value>) -> Secret {
    Secret::new(format!("{:#}\n", Value::Object(root)))
}

#[cfg(test)]
mod tests;
