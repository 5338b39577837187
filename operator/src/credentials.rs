//! Secrets → credentials for one registry.
//!
//! ```text
//! kubernetes.io/dockerconfigjson   .dockerconfigjson: {"auths": {"<registry>[/path]": {"auth": base64("user:password")}}}
//! kubernetes.io/basic-auth         username, password      for the registry of the object that names the Secret
//! ```
//!
//! Keys are matched as the kubelet does (pkg/credentialprovider/keyring.go): a scheme is cut off, `*` stands for one label of
//! the host, a path must be a prefix of the repository, the longest match wins; Docker Hub has several names. Secrets are
//! tried in the order of spec.source.docker.pullSecrets. No credentials leave this module but those for the registry asked for.

use crate::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use siforge_crds::conditions::Reason;
use siforge_oci::Credentials;
use siforge_reference::ImageRef;
use std::collections::BTreeMap;

const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
const BASIC: &str = "kubernetes.io/basic-auth";
const HUB: &str = "docker.io";
const HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// The first Secret's credentials that fit `image`; None: none does, ask anonymously.
pub(crate) fn find<'a>(
    image: &ImageRef,
    secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>,
) -> Result<Option<Credentials>, Failure> {
    for (name, secret) in secrets {
        let found = match secret.type_.as_deref() {
            Some(DOCKER_CONFIG) => from_docker_config(image, name, secret)?,
            Some(BASIC) => Some(Credentials::new(entry(name, secret, "username")?, entry(name, secret, "password")?)),
            other => {
                let kind = other.unwrap_or("Opaque");
                return Err(unusable(name, &format!("it is of type {kind}; expected {DOCKER_CONFIG} or {BASIC}")));
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn unusable(name: &str, why: &str) -> Failure {
    Failure::stalled(Reason::InvalidCredentials, format!("reading the Secret {name}: {why}"))
}

fn entry(name: &str, secret: &Secret, key: &str) -> Result<String, Failure> {
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| unusable(name, &format!("it has no entry {key}")))?;
    String::from_utf8(bytes.0.clone()).map_err(|_| unusable(name, &format!("its entry {key} is not UTF-8")))
}

fn from_docker_config(image: &ImageRef, name: &str, secret: &Secret) -> Result<Option<Credentials>, Failure> {
    let text = entry(name, secret, ".dockerconfigjson")?;
    // serde's message would quote what it found: a password, perhaps.
    let config: DockerConfig = serde_json::from_str(&text).map_err(|error| {
        unusable(
            name,
            &format!(
                "its entry .dockerconfigjson is not a Docker config (line {}, column {})",
                error.line(),
                error.column()
            ),
        )
    })?;
    let best = config
        .auths
        .iter()
        .filter_map(|(key, auth)| matched(key, image).map(|length| (length, key, auth)))
        .max_by_key(|(length, ..)| *length);
    best.map(|(_, key, auth)| {
        if auth.auth.is_empty() {
            return Ok(Credentials::new(&auth.username, &auth.password));
        }
        let bad = || unusable(name, &format!("the auth of {key} is not base64 of user:password"));
        let plain = String::from_utf8(STANDARD.decode(auth.auth.trim()).map_err(|_| bad())?).map_err(|_| bad())?;
        let (user, password) = plain.split_once(':').ok_or_else(bad)?;
        Ok(Credentials::new(user, password))
    })
    .transpose()
}

/// The length of what matched; None when the key is for another registry or repository.
fn matched(key: &str, image: &ImageRef) -> Option<usize> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = if HUB_ALIASES.contains(&host) { HUB } else { host };
    let path = path.trim_end_matches('/');
    // "https://index.docker.io/v1/" and ".../v2/" name the registry's API, not a repository.
    let path = if path == "v1" || path == "v2" { "" } else { path };
    let same_host = same_labels(host, &image.registry);
    let same_path = path.is_empty()
        || image.repository == path
        || image.repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    (same_host && same_path).then_some(host.len() + path.len())
}

fn same_labels(pattern: &str, host: &str) -> bool {
    let (pattern, pattern_port) = pattern.rsplit_once(':').map_or((pattern, None), |(host, port)| (host, Some(port)));
    let (host, port) = host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let (mut want, mut have) = (pattern.split('.'), host.split('.'));
    pattern_port == port
        && want.by_ref().zip(have.by_ref()).all(|(want, have)| want == "*" || want == have)
        && pattern.split('.').count() == host.split('.').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(kind: &str, entries: &[(&str, &str)]) -> Secret {
        let data =
            entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        Secret { type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }
    }

    fn docker_config(keys: &[&str]) -> Secret {
        let auths: serde_json::Map<_, _> = keys
            .iter()
            .map(|key| ((*key).to_owned(), serde_json::json!({ "auth": STANDARD.encode(format!("user:for {key}")) })))
            .collect();
        secret(DOCKER_CONFIG, &[(".dockerconfigjson", &serde_json::json!({ "auths": auths }).to_string())])
    }

    fn find_in(image: &str, secrets: &[Secret]) -> Result<Option<String>, Failure> {
        let image: ImageRef = image.parse().unwrap();
        find(&image, secrets.iter().map(|secret| ("s", secret)))
            .map(|found| found.map(|found| found.password.expose().to_owned()))
    }

    #[test]
    fn which_key_is_taken() {
        let check = |image, keys: &[&str], expect: Option<&str>| {
            assert_eq!(
                find_in(image, &[docker_config(keys)]).unwrap(),
                expect.map(|key| format!("for {key}")),
                "{image} {keys:?}"
            );
        };
        check("r.example:5000/a/b", &["r.example:5000"], Some("r.example:5000"));
        check("r.example:5000/a/b", &["https://r.example:5000"], Some("https://r.example:5000"));
        check("r.example:5000/a/b", &["r.example"], None);
        check("r.example/a/b", &["r.example:5000"], None);
        check("r.example/a/b", &["other.example"], None);
        check("r.example/a/b", &["r.example/a", "r.example"], Some("r.example/a"));
        check("r.example/ab/b", &["r.example/a"], None);
        check("r.example/a/b", &["*.example"], Some("*.example"));
        check("x.r.example/a/b", &["*.example"], None);
        check("lolcow", &["https://index.docker.io/v1/"], Some("https://index.docker.io/v1/"));
        check("lolcow", &["docker.io"], Some("docker.io"));
        check("lolcow", &["index.docker.io.evil.example"], None);
    }

    #[test]
    fn order_and_kinds() {
        let basic = secret(BASIC, &[("username", "u"), ("password", "basic")]);
        assert_eq!(
            find_in("r.example/a", &[docker_config(&["other"]), basic.clone()]).unwrap().as_deref(),
            Some("basic")
        );
        assert_eq!(find_in("r.example/a", &[basic, docker_config(&["r.example"])]).unwrap().as_deref(), Some("basic"));
        assert_eq!(find_in("r.example/a", &[]).unwrap(), None);
        let pair = secret(
            DOCKER_CONFIG,
            &[(".dockerconfigjson", r#"{"auths":{"r.example":{"username":"u","password":"p"}}}"#)],
        );
        assert_eq!(find_in("r.example/a", &[pair]).unwrap().as_deref(), Some("p"));
    }

    #[test]
    fn what_cannot_be_used_says_why_and_shows_nothing() {
        let check = |secret: Secret, says: &str| {
            let failure = find_in("r.example/a", &[secret]).unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidCredentials);
            assert!(failure.message.contains(says), "{}", failure.message);
            assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        };
        check(secret("Opaque", &[]), "of type Opaque");
        check(secret(BASIC, &[("username", "u")]), "no entry password");
        check(secret(DOCKER_CONFIG, &[]), "no entry .dockerconfigjson");
        check(secret(DOCKER_CONFIG, &[(".dockerconfigjson", r#"{"auths": "hunter2"}"#)]), "not a Docker config");
        check(
            secret(DOCKER_CONFIG, &[(".dockerconfigjson", r#"{"auths":{"r.example":{"auth":"hunter2!"}}}"#)]),
            "not base64",
        );
    }
}
