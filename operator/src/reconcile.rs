//! Brings one SingularityImage nearer to its spec: observe → validate → plan → apply → status.

use crate::context::Context;
use crate::inputs::Ready;
use crate::observe::{self, Observed, Stored};
use crate::plan::{self, Facts, Outlook, Plan, Published};
use crate::queue::Owner;
use crate::status::{self, Written};
use crate::work::{Ask, Sif};
use crate::{apply, events, finalizer, inputs, validate};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Error as FinalizerError, Event, finalizer};
use siforge_crds::{FINALIZER, RECONCILE_AT, SingularityImage, SingularityImageStatus};
use std::sync::Arc;
use std::time::Duration;

/// After a write that came too late; the watch usually wakes us before.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Observe(#[from] observe::Error),
    #[error("writing the status")]
    Status(#[source] Box<kube::Error>),
    #[error("removing the ref: {0}")]
    Cleanup(String),
    #[error("setting or removing the finalizer {FINALIZER}")]
    Finalizer(#[source] Box<FinalizerError<Error>>),
}

pub(crate) async fn reconcile(object: Arc<SingularityImage>, context: Arc<Context>) -> Result<Action, Error> {
    let _measured = context.metrics.reconcile();
    let owner = owner(&object);
    let api = context.api(&object);
    let done = finalizer(&api, FINALIZER, object, |event| async {
        match event {
            Event::Apply(object) => converge(&context, &object, &owner).await,
            Event::Cleanup(object) => match finalizer::cleanup(&context, &object, &owner).await {
                Ok(()) => Ok(Action::await_change()),
                Err(failure) => Err(Error::Cleanup(failure.message)),
            },
        }
    });
    done.await.map_err(|error| match error {
        FinalizerError::ApplyFailed(error) | FinalizerError::CleanupFailed(error) => error,
        other => Error::Finalizer(Box::new(other)),
    })
}

async fn converge(context: &Context, object: &SingularityImage, owner: &Owner) -> Result<Action, Error> {
    let observed = observe::observe(context, object).await?;
    let ready = validate::validate(&object.spec).and_then(|spec| inputs::gather(spec, &observed));
    let ask = ask(object, ready.as_ref().ok());
    let plan = match (&ready, &observed.stored) {
        _ if object.spec.suspend => Plan::suspended(),
        (Err(failure), _) | (_, Err(failure)) => Plan::unready(failure, owner.seed(), observed.now),
        (Ok(ready), Ok(stored)) => plan::plan(&facts(object, owner, &ask, ready, &observed, stored)),
    };
    let before = observed.stored.clone().unwrap_or_default();
    let applied = apply::apply(context, owner, &ask, &plan, ready.as_ref().ok(), before).await;
    let plan = applied.failed.unwrap_or(plan);
    let status = project(context, object, &plan.outlook, &applied.stored, ready.as_ref().ok(), observed.now);
    report(context, object, &plan, &status).await
}

fn owner(object: &SingularityImage) -> Owner {
    Owner {
        uid: object.uid().unwrap_or_default(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

fn ask(object: &SingularityImage, ready: Option<&Ready>) -> Ask {
    Ask {
        generation: object.metadata.generation.unwrap_or_default(),
        reconcile_at: object.annotations().get(RECONCILE_AT).cloned(),
        inputs: ready.map(|ready| ready.versions.clone()).unwrap_or_default(),
    }
}

fn facts(
    object: &SingularityImage,
    owner: &Owner,
    ask: &Ask,
    ready: &Ready,
    observed: &Observed,
    stored: &Stored,
) -> Facts {
    let status = object.status.as_ref();
    let published = stored.current.as_ref().filter(|_| stored.artifact).map(|current| Published {
        reference: current.source.reference.clone(),
        manifest: current.source.digest,
        key: current.source.recipe,
        sif: Sif { digest: current.digest, size: current.size },
        access: current.access.clone(),
    });
    Facts {
        ask: ask.clone(),
        worked_for: observed.worked_for.clone(),
        work: observed.work.clone(),
        interval: ready.spec.interval,
        access: ready.access.clone(),
        published,
        was_ready: status.is_some_and(|status| {
            status::was_published(status, ask.generation) && status.last_handled_reconcile_at == ask.reconcile_at
        }),
        seed: owner.seed(),
        now: observed.now,
    }
}

fn project(
    context: &Context,
    object: &SingularityImage,
    outlook: &Outlook,
    stored: &Stored,
    ready: Option<&Ready>,
    now: Timestamp,
) -> SingularityImageStatus {
    status::project(&status::Input {
        previous: object.status.as_ref().unwrap_or(&SingularityImageStatus::default()),
        generation: object.metadata.generation.unwrap_or_default(),
        reconcile_at: object.annotations().get(RECONCILE_AT).map(String::as_str),
        outlook,
        stored,
        compression: ready.map(|ready| ready.spec.compression()),
        history: usize::try_from(object.spec.revision_history_limit).unwrap_or_default(),
        store_root: context.store.root(),
        now,
    })
}

async fn report(
    context: &Context,
    object: &SingularityImage,
    plan: &Plan,
    status: &SingularityImageStatus,
) -> Result<Action, Error> {
    let written = status::write(&context.api(object), object, status, &context.limiter)
        .await
        .map_err(|error| Error::Status(Box::new(error)))?;
    context.metrics.patched(written);
    if written == Written::Yes {
        let before = object.status.clone().unwrap_or_default();
        context.events.publish(object, &events::of(&before, status, object.spec.suspend)).await;
    }
    Ok(match (written, plan.wake_after) {
        (Written::Stale, wake) => Action::requeue(wake.unwrap_or(AGAIN).min(AGAIN)),
        (_, Some(wake)) => Action::requeue(wake),
        (_, None) => Action::await_change(),
    })
}
