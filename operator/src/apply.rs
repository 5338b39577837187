//! Carries out a plan's steps. Thin: it decides nothing, and waits for nothing longer than a small write to the store.

use crate::context::Context;
use crate::failure::Failure;
use crate::flight::{Folders, Job};
use crate::inputs::Ready;
use crate::observe::{Stored, stored};
use crate::plan::{Plan, Step};
use crate::queue::Owner;
use crate::work::{Ask, Found, Sif, Stage};
use k8s_openapi::jiff::Timestamp;
use siforge_build::{Limits, chain};
use siforge_crds::conditions::Reason;
use siforge_oci::Tls;
use siforge_store::{Provenance, Ref, RefContent, Store, Visibility};
use std::sync::{Mutex, PoisonError};

/// What is so afterwards.
pub(crate) struct Applied {
    pub(crate) stored: Stored,
    /// A step failed: what holds instead of the plan.
    pub(crate) failed: Option<Plan>,
}

pub(crate) async fn apply(
    context: &Context,
    owner: &Owner,
    ask: &Ask,
    plan: &Plan,
    ready: Option<&Ready>,
    before: Stored,
) -> Applied {
    let mut applied = Applied { stored: before, failed: None };
    for step in &plan.steps {
        match (step, ready) {
            (Step::Forget, _) => context.queue.forget(&owner.uid),
            (Step::Resolve, Some(ready)) => context.queue.resolve(owner, ask, job(context, owner, ready)),
            (Step::Build, Some(_)) => context.queue.build(&owner.uid),
            (Step::Publish(found, sif), Some(ready)) => match publish(context, owner, ready, found, sif).await {
                Ok(stored) => {
                    context.queue.published(&owner.uid);
                    applied.stored = stored;
                }
                Err(failure) => {
                    let next = context.queue.unpublished(&owner.uid, failure.clone());
                    applied.failed = Some(Plan::retry(Stage::Publish, failure, next, Timestamp::now()));
                }
            },
            // Plans without inputs have no other steps.
            (_, None) => {}
        }
    }
    applied
}

fn job(context: &Context, owner: &Owner, ready: &Ready) -> Job {
    let spec = &ready.spec;
    let mut settings = context.settings.clone();
    // Entries are kept in memory, which is the operator's: an object can lower their number alone.
    let files = spec.limits.files.min(context.settings.limits.files);
    settings.limits = Limits { files, ..spec.limits };
    Job {
        origin: spec.origin.clone(),
        folders: Folders { store: context.store.clone(), namespace: owner.namespace.clone() },
        platform: spec.platform.clone(),
        credentials: ready.credentials.clone(),
        tls: Tls { proxies: context.proxies.clone(), ..ready.tls.clone() },
        recipe: spec.recipe.clone(),
        settings,
        timeout: spec.timeout,
        resolved: Mutex::default(),
    }
}

async fn publish(context: &Context, owner: &Owner, ready: &Ready, found: &Found, sif: &Sif) -> Result<Stored, Failure> {
    let content = RefContent {
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        digest: sif.digest,
        size: sif.size,
        platform: ready.spec.platform.to_string(),
        source: Provenance {
            reference: found.reference.clone(),
            digest: found.manifest,
            recipe: found.key,
            builder_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        access: ready.access.clone(),
        published_at: Timestamp::now().as_second(),
    };
    let (store, generation) = (context.store.clone(), context.generation);
    let history = u32::try_from(ready.spec.history).unwrap_or(u32::MAX);
    let publishing = context.publishing.clone();
    let write = move || -> Result<bool, siforge_store::Error> {
        let _alone = publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = store.read_ref(&content.namespace, &content.name)?;
        store.write_ref(&content, generation, history)?;
        if content.access.is_public() {
            store.set_visibility(&content.digest, Visibility::Public)?;
        }
        hide(&store, before)?;
        // gc may have taken the artifact between the build and the ref.
        Ok(store.open_artifact(&content.digest)?.is_some())
    };
    if !blocking(write).await? {
        return Err(Failure::transient(
            Reason::StoreFailed,
            format!("publishing {}: the artifact is gone from the store; it is built again", sif.digest),
        ));
    }
    stored(&context.store, &owner.namespace, &owner.name).await
}

/// Removes the object's ref. The artifact stays until gc finds that nothing names it.
pub(crate) async fn remove(context: &Context, owner: &Owner) -> Result<(), Failure> {
    let (store, owner, generation) = (context.store.clone(), owner.clone(), context.generation);
    let publishing = context.publishing.clone();
    blocking(move || -> Result<(), siforge_store::Error> {
        let _alone = publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = store.read_ref(&owner.namespace, &owner.name)?;
        store.remove_ref(&owner.namespace, &owner.name, generation)?;
        hide(&store, before)
    })
    .await
}

/// After `before` was replaced: makes its artifact private again if it was public and no other ref makes it so. The caller
/// holds [`Context::publishing`]: a ref written between the look at the others and the change would be overruled.
fn hide(store: &Store, before: Option<Ref>) -> Result<(), siforge_store::Error> {
    let Some(before) = before.filter(|before| before.access.is_public()) else {
        return Ok(());
    };
    for (namespace, name) in store.list_refs()? {
        let current = store.read_ref(&namespace, &name)?;
        if current.is_some_and(|current| current.digest == before.digest && current.access.is_public()) {
            return Ok(());
        }
    }
    store.set_visibility(&before.digest, Visibility::Private).map(drop)
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, siforge_store::Error> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Failure::from(&error)),
        Err(error) => Err(Failure::transient(Reason::StoreFailed, format!("using the store: {}", chain(&error)))),
    }
}
