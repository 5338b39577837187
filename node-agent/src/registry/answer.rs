//! What the registry answers: the store's refs and shadows, as manifests and blobs.
//!
//! | status | when |
//! |---|---|
//! | 503 | the name points at nothing (yet), or not at what a pod needs: asked again, the answer may be another |
//! | 410 | the name is there, without that revision or digest |
//! | 403 | the image cannot be a pod's root |
//! | 404 | no such place: what runtimes then say names no reason |

use siforge_reference::Digest;
use siforge_store::{Caller, Ref, Store};

use super::http::{Request, Response};
use super::route::{Route, Wanted};
use crate::node::chain;
use crate::shadow::{Blob, Image};

/// Answers a request that has the token. `nearest` knows a name that is like a `namespace/name`, for a caller.
pub fn answer(store: &Store, nearest: &dyn Fn(&str, &Caller) -> Option<String>, request: &Request) -> Response {
    let found = match Route::of(&request.path) {
        Err(reason) => return Response::failure(404, &reason),
        Ok(Route::Base) => return Response::found("application/json", None, b"{}".to_vec()),
        Ok(Route::Manifest { namespace, name, wanted }) => match current(store, nearest, namespace, name) {
            Ok(current) => manifest(store, &current, &wanted),
            Err(failure) => Err(failure),
        },
        Ok(Route::Blob { namespace, name, digest }) => blob(store, namespace, name, &digest),
    };
    match found {
        Ok(blob) => Response::found(blob.media_type, Some(blob.digest.to_string()), blob.bytes),
        Err(failure) => failure,
    }
}

/// What a name points at.
fn current(
    store: &Store,
    nearest: &dyn Fn(&str, &Caller) -> Option<String>,
    namespace: &str,
    name: &str,
) -> Result<Ref, Response> {
    if let Some(current) = store.read_ref(namespace, name).map_err(unreadable)? {
        return Ok(current);
    }
    let image = format!("{namespace}/{name}");
    // Who pulls is not known here. A pod of that namespace is who most likely does.
    let caller = Caller { uid: u32::MAX, gids: Vec::new(), namespace: Some(namespace.to_owned()) };
    let hint = nearest(&image, &caller).map(|near| format!("; the nearest name is {near}")).unwrap_or_default();
    let reason =
        format!("no image {image} is published{hint}: see kubectl describe singularityimage {name} -n {namespace}");
    Err(Response::failure(503, &reason))
}

fn manifest(store: &Store, current: &Ref, wanted: &Wanted) -> Result<Blob, Response> {
    let (namespace, name) = (&current.namespace, &current.name);
    let gone = |what: String| Response::failure(410, &format!("{namespace}/{name} has no {what}, or not any more"));
    let of = |found: Option<Ref>, what: String| match found {
        Some(found) => Ok(shadow(store, &found)?.manifest),
        None => Err(gone(what)),
    };
    match wanted {
        Wanted::Latest => Ok(shadow(store, current)?.manifest),
        Wanted::Revision(wanted) => {
            let found = revisions(store, current)?.into_iter().find(|revision| revision.revision == *wanted);
            of(found, format!("revision {wanted}"))
        }
        Wanted::Image(digest) => {
            let found = revisions(store, current)?.into_iter().find(|revision| revision.digest == *digest);
            of(found, format!("image {digest}"))
        }
        Wanted::Manifest(digest) => {
            let mut found = revisions(store, current)?.into_iter().filter_map(|revision| shadow(store, &revision).ok());
            let manifest = found.find(|image| image.manifest.digest == *digest).map(|image| image.manifest);
            manifest.ok_or_else(|| gone(format!("manifest {digest}")))
        }
    }
}

fn blob(store: &Store, namespace: &str, name: &str, digest: &Digest) -> Result<Blob, Response> {
    let unknown = || Response::failure(404, &format!("{namespace}/{name} has no blob {digest}"));
    let current = store.read_ref(namespace, name).map_err(unreadable)?.ok_or_else(unknown)?;
    let images = revisions(store, &current)?.into_iter().filter_map(|revision| shadow(store, &revision).ok());
    images.into_iter().find_map(|image| image.part(digest)).ok_or_else(unknown)
}

/// The current revision and those before it.
fn revisions(store: &Store, current: &Ref) -> Result<Vec<Ref>, Response> {
    let history = store.history(&current.namespace, &current.name).map_err(unreadable)?;
    let earlier = history.into_iter().filter(|revision| revision.revision < current.revision);
    Ok(std::iter::once(current.clone()).chain(earlier).collect())
}

fn shadow(store: &Store, revision: &Ref) -> Result<Image, Response> {
    let image = format!("{}/{} revision {}", revision.namespace, revision.name, revision.revision);
    let shadow = store.shadow(&revision.digest).map_err(unreadable)?.ok_or_else(|| {
        Response::failure(503, &format!("{image} was built before pods were known: have it built again"))
    })?;
    if let Some(reason) = &shadow.unfit {
        return Err(Response::failure(403, &format!("{image} cannot be a pod's root: {reason}")));
    }
    if !store.layout().artifact(&revision.digest).exists() {
        return Err(Response::failure(503, &format!("{image}: its artifact is not in the store")));
    }
    Ok(Image::new(&revision.namespace, &revision.name, &shadow))
}

fn unreadable(error: siforge_store::Error) -> Response {
    Response::failure(503, &format!("the store cannot be read: {}", chain(&error)))
}
