//! What a validated spec needs from other objects. Pure: everything was read before.

use crate::credentials;
use crate::failure::Failure;
use crate::observe::Observed;
use crate::validate::{AccessRules, CaSource, NamespaceRule, Origin, Validated};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use siforge_crds::KeyRef;
use siforge_crds::conditions::Reason;
use siforge_oci::{Credentials, Tls};
use siforge_store::{Access, Namespaces};

/// Everything that resolving, building and publishing need.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) spec: Validated,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Tls,
    pub(crate) access: Access,
    /// Uid and resource version of each object that was used.
    pub(crate) versions: Vec<String>,
}

pub(crate) fn gather(spec: Validated, observed: &Observed) -> Result<Ready, Failure> {
    let mut versions = Vec::new();
    let mut secrets = Vec::new();
    for name in &spec.pull_secrets {
        let secret = secret(observed, name)?;
        versions.push(version(&secret.metadata));
        secrets.push((name.as_str(), secret));
    }
    let credentials = match &spec.origin {
        Origin::Registry(reference) => credentials::find(reference, secrets)?,
        Origin::Archive { .. } => None,
    };
    let ca_bundle = match &spec.transport.ca {
        None => None,
        Some(CaSource::Secret(key)) => {
            let secret = secret(observed, &key.name)?;
            versions.push(version(&secret.metadata));
            Some(from_secret(secret, key)?)
        }
        Some(CaSource::ConfigMap(key)) => {
            let map = config_map(observed, &key.name)?;
            versions.push(version(&map.metadata));
            Some(from_config_map(map, key)?)
        }
    };
    let tls = Tls {
        plain_http: spec.transport.plain_http,
        insecure_skip_verify: spec.transport.insecure_skip_verify,
        ca_bundle,
        ..Tls::default()
    };
    let access = access(&spec.access, &observed.namespaces);
    Ok(Ready { spec, credentials, tls, access, versions })
}

fn access(rules: &AccessRules, selected: &[String]) -> Access {
    let namespaces = match &rules.namespaces {
        NamespaceRule::Same => Namespaces::Same,
        NamespaceRule::All => Namespaces::All,
        NamespaceRule::Selector(_) => Namespaces::List(selected.to_vec()),
    };
    Access { namespaces, uids: rules.uids.clone(), gids: rules.gids.clone(), everyone: rules.everyone }
}

fn version(meta: &ObjectMeta) -> String {
    format!("{}/{}", meta.uid.as_deref().unwrap_or_default(), meta.resource_version.as_deref().unwrap_or_default())
}

fn secret<'a>(observed: &'a Observed, name: &str) -> Result<&'a Secret, Failure> {
    let found = observed.secrets.get(name).and_then(Option::as_ref);
    found.ok_or_else(|| {
        Failure::waiting(
            Reason::SecretNotFound,
            format!("the Secret {name} does not exist; the image is built as soon as it does"),
        )
    })
}

fn config_map<'a>(observed: &'a Observed, name: &str) -> Result<&'a ConfigMap, Failure> {
    let found = observed.config_maps.get(name).and_then(Option::as_ref);
    found.ok_or_else(|| {
        Failure::waiting(
            Reason::ConfigMapNotFound,
            format!("the ConfigMap {name} does not exist; the image is built as soon as it does"),
        )
    })
}

fn from_secret(secret: &Secret, key: &KeyRef) -> Result<Vec<u8>, Failure> {
    let entry = secret.data.as_ref().and_then(|data| data.get(&key.key));
    entry.map(|bytes| bytes.0.clone()).ok_or_else(|| missing("Secret", key))
}

fn from_config_map(map: &ConfigMap, key: &KeyRef) -> Result<Vec<u8>, Failure> {
    let text = map.data.as_ref().and_then(|data| data.get(&key.key)).map(|text| text.clone().into_bytes());
    let binary = || map.binary_data.as_ref().and_then(|data| data.get(&key.key)).map(|bytes| bytes.0.clone());
    text.or_else(binary).ok_or_else(|| missing("ConfigMap", key))
}

fn missing(kind: &str, key: &KeyRef) -> Failure {
    Failure::stalled(
        Reason::InvalidCredentials,
        format!("reading the {kind} {}: it has no entry {}", key.name, key.key),
    )
}
