//! Wires the watches, the queue and reconcile together, and runs them while this process leads.

use crate::apply::blocking;
use crate::config::{Config, Lease};
use crate::context::Context;
use crate::events::Events;
use crate::http;
use crate::interest::{Interest, Thing};
use crate::leader::{self, Elector};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::reconcile::{self, reconcile};
use crate::status::Limiter;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller, Error as ControllerError};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Config as WatcherConfig};
use kube::{Api, Client, ResourceExt};
use siforge_build::chain;
use siforge_crds::SingularityImage;
use siforge_store::Store;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// Reconciles at the same time; each is a few requests to the API server and small reads of the store.
const RECONCILERS: u16 = 16;
/// After a reconcile that could not read or write the API server.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// kubectl's copy of what was applied: as large as the object and never looked at.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading the kubeconfig or the pod's service account")]
    Client(#[source] Box<kube::Error>),
    #[error("listing SingularityImages; is the CRD installed? `siforge-operator crd | kubectl apply -f -` does so")]
    Crd(#[source] Box<kube::Error>),
    #[error("opening the store {path}", path = path.display())]
    Store { path: PathBuf, source: siforge_store::Error },
    #[error("listening on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("setting up metrics")]
    Metrics(#[from] prometheus::Error),
    #[error("leadership is lost")]
    Leader(#[from] leader::Error),
}

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Leader(_) => 3,
            _ => 1,
        }
    }
}

/// Runs until `stop` (Ok), or until something fails that a restart may mend.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new()?);
    let state = Arc::new(http::State { metrics: metrics.clone(), ready: AtomicBool::new(false) });
    let address = config.metrics_addr;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let server = tokio::spawn(http::serve(listener, state.clone()));

    let store = open(&config)?;
    let client = Client::try_default().await.map_err(|error| Error::Client(Box::new(error)))?;
    scope::<SingularityImage>(&client, &config)
        .list(&ListParams::default().limit(1))
        .await
        .map_err(|error| Error::Crd(Box::new(error)))?;
    state.ready.store(true, Ordering::Relaxed);
    // Before leading: shared storage may be slow, and a lease runs out.
    sweep(&store).await;

    tokio::pin!(stop);
    let elector = config.lease.as_ref().map(|Lease { namespace, name, duration }| {
        Elector::new(client.clone(), namespace, name, config.identity.clone(), *duration)
    });
    let generation = match &elector {
        None => 0,
        Some(elector) => tokio::select! {
            generation = elector.lead() => generation,
            () = &mut stop => return Ok(()),
        },
    };
    metrics.lead(true);
    tracing::info!(generation, identity = config.identity, "leading");

    let result = lead(&config, client, store, metrics.clone(), generation, elector.as_ref(), stop).await;
    metrics.lead(false);
    server.abort();
    result
}

fn open(config: &Config) -> Result<Store, Error> {
    let opened = match config.init_store {
        Some(agent_group) => Store::init(&config.store, agent_group),
        None => Store::open(&config.store),
    };
    opened.map_err(|source| Error::Store { path: config.store.clone(), source })
}

/// Removes what builds of dead processes of this machine left behind.
async fn sweep(store: &Store) {
    let store = store.clone();
    match blocking(move || store.sweep_dead()).await {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "removed what dead builds left"),
        Err(failure) => tracing::warn!(error = failure.message, "removing what dead builds left failed"),
    }
}

/// All namespaces, or the one to look at.
fn scope<K>(client: &Client, config: &Config) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match &config.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn lead(
    config: &Config,
    client: Client,
    store: Store,
    metrics: Arc<Metrics>,
    generation: u64,
    elector: Option<&Elector>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (wake, woken) = mpsc::unbounded_channel();
    let queue = Queue::new(store.clone(), config.workers, wake, metrics.clone());
    let context = Arc::new(Context {
        store,
        queue: queue.clone(),
        interest: Interest::default(),
        events: Events::new(client.clone(), config.identity.clone()),
        metrics,
        limiter: Limiter::default(),
        settings: config.settings.clone(),
        proxies: config.proxies.clone(),
        publishing: Arc::default(),
        generation,
        client,
    });
    let (halt, halted) = watch::channel(false);
    let controller = control(config, context, woken, halted);
    tokio::pin!(controller);
    let keep = async {
        match elector {
            Some(elector) => elector.keep().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(keep);
    tokio::select! {
        // Another may lead already: stop at once, builds too.
        lost = &mut keep => {
            queue.drain(Duration::ZERO).await;
            return Err(lost.into());
        }
        () = &mut controller => {}
        () = stop => {
            tracing::info!("stopping: running builds may end");
            let _ = halt.send(true);
            let rest = async { tokio::join!(&mut controller, queue.drain(config.drain)) };
            // The lease is renewed while builds end.
            tokio::select! { _ = rest => {}, lost = &mut keep => return Err(lost.into()) }
        }
    }
    if let Some(elector) = elector
        && let Err(error) = elector.release().await
    {
        tracing::warn!(%error, "giving the lease back failed; the next leader waits for it to run out");
    }
    Ok(())
}

/// Reconciles until `halted`.
async fn control(
    config: &Config,
    context: Arc<Context>,
    woken: mpsc::UnboundedReceiver<ObjectRef<SingularityImage>>,
    mut halted: watch::Receiver<bool>,
) {
    let (reader, writer) = reflector::store();
    let client = context.client.clone();
    let objects = watcher::watcher(scope(&client, config), WatcherConfig::default())
        .modify(slim)
        .default_backoff()
        .reflect(writer)
        .applied_objects();
    let (secrets, config_maps) = (context.clone(), context.clone());
    let namespaces = context.clone();
    let wakes =
        futures::stream::unfold(woken, |mut woken| async move { woken.recv().await.map(|object| (object, woken)) });
    Controller::for_stream(objects, reader)
        .with_config(ControllerConfig::default().concurrency(RECONCILERS))
        .watches_stream(touched::<Secret>(scope(&client, config)), move |secret| {
            let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
            secrets.interest.of(&Thing::Secret { namespace, name })
        })
        .watches_stream(touched::<ConfigMap>(scope(&client, config)), move |map| {
            let (namespace, name) = (map.namespace().unwrap_or_default(), map.name_any());
            config_maps.interest.of(&Thing::ConfigMap { namespace, name })
        })
        .watches_stream(touched::<Namespace>(Api::all(client.clone())), move |_| {
            namespaces.interest.of(&Thing::Namespaces)
        })
        .reconcile_on(wakes)
        .graceful_shutdown_on(async move {
            // An error means that the sender is gone: nobody waits for us any more.
            let _ = halted.wait_for(|halted| *halted).await;
        })
        .run(reconcile, |_, _: &reconcile::Error, _| Action::requeue(AFTER_ERROR), context.clone())
        .for_each(|done| {
            tell(done, &context.metrics);
            std::future::ready(())
        })
        .await;
}

/// Drops what reconcile never looks at, before it is cached.
fn slim(object: &mut SingularityImage) {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Changes and deletions, metadata alone: what a Secret holds is read when it is needed, and cached nowhere.
fn touched<K>(
    api: Api<PartialObjectMeta<K>>,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<K>>> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher::watcher(api, WatcherConfig::default()).default_backoff().touched_objects()
}

/// The one place where errors of reconciles and watches are reported.
fn tell(
    done: Result<(ObjectRef<SingularityImage>, Action), ControllerError<reconcile::Error, watcher::Error>>,
    metrics: &Metrics,
) {
    match done {
        Ok((object, _)) => {
            metrics.reconciled(true);
            tracing::debug!(%object, "reconciled");
        }
        // Woken by the queue after it was deleted.
        Err(ControllerError::ObjectNotFound(object)) => tracing::debug!(%object, "is gone"),
        Err(ControllerError::ReconcilerFailed(error, object)) => {
            metrics.reconciled(false);
            tracing::warn!(%object, error = chain(&error), "reconciling failed; tried again soon");
        }
        Err(error) => tracing::warn!(error = chain(&error), "watching failed; tried again"),
    }
}
