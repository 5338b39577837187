//! Reads everything that a reconcile looks at: the API server, the store, the queue, the clock.

use crate::context::Context;
use crate::failure::Failure;
use crate::interest::Thing;
use crate::work::{Ask, Work};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Selector;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use siforge_crds::{From as AccessFrom, SingularityImage, SingularityImageSpec};
use siforge_store::{Ref, Store};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What was seen.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The Secrets that the spec names, None for those that do not exist.
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Namespaces that spec.access.namespaces.selector matches, sorted.
    pub(crate) namespaces: Vec<String>,
    pub(crate) stored: Result<Stored, Failure>,
    pub(crate) worked_for: Ask,
    pub(crate) work: Work,
    pub(crate) now: Timestamp,
}

/// What the store says of the object's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stored {
    pub(crate) current: Option<Ref>,
    /// The current ref's artifact is there.
    pub(crate) artifact: bool,
    /// Kept revisions, newest first.
    pub(crate) history: Vec<Ref>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reading the {kind} {namespace}/{name}")]
    Read { kind: &'static str, namespace: String, name: String, source: Box<kube::Error> },
    #[error("listing the namespaces with the labels {selector}")]
    Select { selector: String, source: Box<kube::Error> },
}

pub(crate) async fn observe(context: &Context, object: &SingularityImage) -> Result<Observed, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let names = names(&object.spec);
    // Before reading, so that a change between reading and registering wakes too.
    context.interest.set(&ObjectRef::from(object), names.things(&namespace));

    let mut secrets = BTreeMap::new();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    for name in names.secrets {
        let found = api.get_opt(&name).await.map_err(unread("Secret", &namespace, &name))?;
        secrets.insert(name, found);
    }
    let mut config_maps = BTreeMap::new();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    for name in names.config_maps {
        let found = api.get_opt(&name).await.map_err(unread("ConfigMap", &namespace, &name))?;
        config_maps.insert(name, found);
    }
    let namespaces = match names.selector {
        Some(selector) => selected(context, &selector).await?,
        None => Vec::new(),
    };
    let stored = stored(&context.store, &namespace, &object.name_any()).await;
    let (worked_for, work) = context.queue.look(&object.uid().unwrap_or_default());
    Ok(Observed { secrets, config_maps, namespaces, stored, worked_for, work, now: Timestamp::now() })
}

fn unread<'a>(kind: &'static str, namespace: &'a str, name: &'a str) -> impl FnOnce(kube::Error) -> Error + 'a {
    move |source| Error::Read { kind, namespace: namespace.to_owned(), name: name.to_owned(), source: Box::new(source) }
}

async fn selected(context: &Context, selector: &Selector) -> Result<Vec<String>, Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let list = api
        .list_metadata(&ListParams::default().labels_from(selector))
        .await
        .map_err(|source| Error::Select { selector: selector.to_string(), source: Box::new(source) })?;
    let mut names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
    names.sort_unstable();
    Ok(names)
}

/// Reads the store; shared storage may be slow, so not on the runtime's threads.
pub(crate) async fn stored(store: &Store, namespace: &str, name: &str) -> Result<Stored, Failure> {
    let (store, namespace, name) = (store.clone(), namespace.to_owned(), name.to_owned());
    let read = move || -> Result<Stored, siforge_store::Error> {
        let current = store.read_ref(&namespace, &name)?;
        let artifact = match &current {
            Some(current) => store.open_artifact(&current.digest)?.is_some(),
            None => false,
        };
        Ok(Stored { history: store.history(&namespace, &name)?, current, artifact })
    };
    crate::apply::blocking(read).await
}

#[derive(Debug, Default, PartialEq)]
struct Names {
    secrets: BTreeSet<String>,
    config_maps: BTreeSet<String>,
    selector: Option<Selector>,
}

impl Names {
    fn things(&self, namespace: &str) -> HashSet<Thing> {
        let secrets =
            self.secrets.iter().map(|name| Thing::Secret { namespace: namespace.to_owned(), name: name.clone() });
        let config_maps = self
            .config_maps
            .iter()
            .map(|name| Thing::ConfigMap { namespace: namespace.to_owned(), name: name.clone() });
        secrets.chain(config_maps).chain(self.selector.is_some().then_some(Thing::Namespaces)).collect()
    }
}

/// What the docker source and the access rules name; other sources' names are not read before they are supported.
fn names(spec: &SingularityImageSpec) -> Names {
    let mut names = Names::default();
    if let Some(docker) = &spec.source.docker {
        names.secrets.extend(docker.pull_secrets.iter().map(|secret| secret.name.clone()));
        let bundle = docker.tls.as_ref().and_then(|tls| tls.ca_bundle.as_ref());
        names.secrets.extend(bundle.and_then(|bundle| bundle.secret_key_ref.as_ref()).map(|key| key.name.clone()));
        names
            .config_maps
            .extend(bundle.and_then(|bundle| bundle.config_map_key_ref.as_ref()).map(|key| key.name.clone()));
    }
    let access = spec.access.as_ref().and_then(|access| access.namespaces.as_ref());
    names.selector = access
        .filter(|access| access.from == AccessFrom::Selector)
        .and_then(|access| access.selector.clone())
        .and_then(|selector| Selector::try_from(selector).ok());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_names_of_a_spec() {
        let spec = serde_json::from_value(json!({
            "source": { "docker": {
                "reference": "x", "pullSecrets": [{ "name": "b" }, { "name": "a" }],
                "tls": { "caBundle": { "configMapKeyRef": { "name": "ca", "key": "ca.crt" } } },
            } },
            "access": { "namespaces": { "from": "Selector", "selector": { "matchLabels": { "team": "lab" } } } },
        }));
        let names = names(&spec.unwrap());
        assert_eq!(names.secrets.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(names.config_maps.iter().collect::<Vec<_>>(), ["ca"]);
        assert_eq!(names.selector.as_ref().map(ToString::to_string).as_deref(), Some("team=lab"));
        assert_eq!(names.things("lab").len(), 4);
    }
}
