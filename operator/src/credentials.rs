//! Secrets → credentials for one registry.
//!
//! ```text
//! kubernetes.io/dockerconfigjson   .dockerconfigjson: {"auths": {"<registry>[/path]": {"auth": base64("user:password")}}}
//! kubernetes.io/basic-auth         username, password      for the registry of the object that names the Secret
//! ```
//!
//! Which key fits an image is siforge-oci's to know. Secrets are tried in the order of spec.source.docker.pullSecrets. No
//! credentials leave this module but those for the registry asked for.

use crate::failure::Failure;
use k8s_openapi::api::core::v1::Secret;
use siforge_crds::conditions::Reason;
use siforge_oci::{AuthFile, Credentials};
use siforge_reference::ImageRef;

const DOCKER_CONFIG: &str = "kubernetes.io/dockerconfigjson";
const BASIC: &str = "kubernetes.io/basic-auth";

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

/// Credential helpers that the file names are programs of another machine: they are passed over.
fn from_docker_config(image: &ImageRef, name: &str, secret: &Secret) -> Result<Option<Credentials>, Failure> {
    let text = entry(name, secret, ".dockerconfigjson")?;
    let file = AuthFile::parse(text.as_bytes());
    file.and_then(|file| file.credentials(image))
        .map_err(|error| unusable(name, &format!("its entry .dockerconfigjson: {error}")))
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

    fn docker_config(registry: &str) -> Secret {
        let text =
            serde_json::json!({ "auths": { registry: { "username": "u", "password": format!("for {registry}") } } });
        secret(DOCKER_CONFIG, &[(".dockerconfigjson", &text.to_string())])
    }

    fn find_in(image: &str, secrets: &[Secret]) -> Result<Option<String>, Failure> {
        let image: ImageRef = image.parse().unwrap();
        find(&image, secrets.iter().map(|secret| ("s", secret)))
            .map(|found| found.map(|found| found.secret().expose().to_owned()))
    }

    #[test]
    fn order_and_kinds() {
        let basic = secret(BASIC, &[("username", "u"), ("password", "basic")]);
        assert_eq!(
            find_in("r.example/a", &[docker_config("other.example"), basic.clone()]).unwrap().as_deref(),
            Some("basic")
        );
        assert_eq!(find_in("r.example/a", &[basic, docker_config("r.example")]).unwrap().as_deref(), Some("basic"));
        assert_eq!(find_in("r.example/a", &[]).unwrap(), None);
        let found = find_in("r.example/a", &[docker_config("r.example")]).unwrap();
        assert_eq!(found.as_deref(), Some("for r.example"));
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
