//! One build and the objects that wait for it.

use crate::failure::Failure;
use crate::validate::Origin;
use crate::work::{Found, Progress, Sif};
use k8s_openapi::jiff::Timestamp;
use siforge_build::{Limits, Phase, Recipe, Settings, Snapshot, Source};
use siforge_crds::conditions::Reason;
use siforge_crds::{ArchiveFormat, BuildPhase};
use siforge_oci::{Client, Credentials, Platform, Tls, local};
use siforge_reference::ImageRef;
use siforge_store::Store;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Manifest, config and a token: small answers. A registry that needs longer than this is taken for unreachable.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a build's progress is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Where a source may read: the store's `import/NAMESPACE/`, and its place for unfinished files.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) store: Store,
    pub(crate) namespace: String,
}

/// All that resolving and building one object needs.
pub(crate) struct Job {
    pub(crate) origin: Origin,
    /// Where archives and temporary files are.
    pub(crate) folders: Folders,
    pub(crate) platform: Platform,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Tls,
    pub(crate) recipe: Recipe,
    pub(crate) settings: Settings,
    pub(crate) timeout: Duration,
    /// What [`Job::resolve`] found.
    pub(crate) resolved: Mutex<Option<Arc<Source>>>,
}

impl Job {
    pub(crate) fn limits(&self) -> Limits {
        self.settings.limits
    }

    /// Asks the registry for the manifest, with this object's credentials, or reads the archive's.
    pub(crate) async fn resolve(&self) -> Result<Found, Failure> {
        let source = match &self.origin {
            Origin::Registry(reference) => self.ask(reference).await?,
            Origin::Archive { format, path } => self.read(*format, path.clone()).await?,
        };
        let found = Found {
            reference: self.origin.to_string(),
            manifest: source.image().manifest_digest,
            key: source.key(&self.recipe),
            bytes: source.image().layers.iter().map(|layer| layer.size).sum(),
            at: Timestamp::now(),
        };
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(source));
        Ok(found)
    }

    async fn ask(&self, reference: &ImageRef) -> Result<Source, Failure> {
        let client = Client::new(&reference.registry, self.credentials.clone(), self.tls.clone())
            .map_err(|error| Failure::from(&error))?;
        let answer = tokio::time::timeout(RESOLVE_TIMEOUT, client.resolve(reference, &self.platform)).await;
        match answer {
            Ok(resolved) => Ok(Source::registry(client, resolved.map_err(|error| Failure::from(&error))?)),
            Err(_) => {
                let message = format!("resolving {reference}: no answer within {} s", RESOLVE_TIMEOUT.as_secs());
                Err(Failure::transient(Reason::RegistryUnavailable, message))
            }
        }
    }

    /// A compressed archive is unpacked for it, which takes its time.
    async fn read(&self, format: ArchiveFormat, path: PathBuf) -> Result<Source, Failure> {
        let (folders, platform, limits) = (&self.folders, self.platform.clone(), self.settings.limits);
        let layout = folders.store.layout();
        let (path, temp) =
            (layout.import(&folders.namespace).map_err(|error| Failure::from(&error))?.join(path), layout.temp());
        let shown = self.origin.to_string();
        let read = tokio::task::spawn_blocking(move || {
            let options =
                local::Options { platform: &platform, tmpdir: &temp, unpacked_bytes: limits.uncompressed_bytes };
            match format {
                ArchiveFormat::OCILayout => local::layout(&path, None, &options).map(Source::layout),
                ArchiveFormat::OCIArchive => local::layout_archive(&path, None, &options).map(Source::layout),
                ArchiveFormat::DockerArchive => {
                    local::docker_archive(&path, None, &options).map(Source::docker_archive)
                }
            }
        });
        match read.await {
            Ok(read) => read.map_err(|error| Failure::from(&error)),
            Err(error) => Err(Failure::transient(Reason::StoreFailed, format!("reading {shown}: {error}"))),
        }
    }

    fn resolved(&self) -> Option<Arc<Source>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Builds; calls `news` whenever the phase or the tens of percent change.
pub(crate) async fn fly(
    store: &Store,
    job: &Job,
    progress: Arc<siforge_build::Progress>,
    news: impl Fn(),
) -> Result<Sif, Failure> {
    let Some(source) = job.resolved() else {
        return Err(Failure::transient(
            Reason::RegistryUnavailable,
            format!("building {}: it was not resolved", job.origin),
        ));
    };
    let build = siforge_build::build(store, &source, &job.recipe, &job.settings, progress.clone());
    tokio::select! {
        built = build => built.map(|built| Sif { digest: built.digest, size: built.size }).map_err(|error| Failure::from(&error)),
        never = watch(&progress, news) => match never {},
        () = tokio::time::sleep(job.timeout) => {
            let message = format!("building {}: not done within spec.build.timeout ({} s)", job.origin, job.timeout.as_secs());
            Err(Failure::transient(Reason::BuildTimeout, message))
        }
    }
}

async fn watch(progress: &siforge_build::Progress, news: impl Fn()) -> Infallible {
    let mut seen = steps(&progress.snapshot());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = steps(&progress.snapshot());
        if now != seen {
            seen = now;
            news();
        }
    }
}

/// What is worth a status patch.
fn steps(snapshot: &Snapshot) -> (BuildPhase, u8) {
    let phase = match snapshot.phase {
        Phase::Pending | Phase::Converting => BuildPhase::Building,
        Phase::Hashing | Phase::Publishing | Phase::Done => BuildPhase::Publishing,
    };
    (phase, snapshot.percent() / 10 * 10)
}

/// A build that runs. Members are uids; the first leads: it is built with its credentials and limits.
pub(crate) struct Flight {
    members: Vec<String>,
    leader: String,
    limits: Limits,
    progress: Arc<siforge_build::Progress>,
    started_at: Timestamp,
    task: Option<AbortHandle>,
}

impl Flight {
    pub(crate) fn new(leader: &str, limits: Limits, now: Timestamp) -> Self {
        let progress = siforge_build::Progress::new();
        Self {
            members: vec![leader.to_owned()],
            leader: leader.to_owned(),
            limits,
            progress,
            started_at: now,
            task: None,
        }
    }

    pub(crate) fn started(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }

    pub(crate) fn watch(&self) -> Arc<siforge_build::Progress> {
        self.progress.clone()
    }

    pub(crate) fn join(&mut self, uid: &str) {
        if !self.members.iter().any(|member| member == uid) {
            self.members.push(uid.to_owned());
        }
    }

    /// True when nobody is left.
    pub(crate) fn leave(&mut self, uid: &str) -> bool {
        self.members.retain(|member| member != uid);
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> &[String] {
        &self.members
    }

    /// If the leader has left, its successor answers for the flight.
    pub(crate) fn is_leader(&self, uid: &str) -> bool {
        let led = self.members.contains(&self.leader);
        if led { self.leader == uid } else { self.members.first().is_some_and(|first| first == uid) }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn elapsed(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.started_at)).unwrap_or_default()
    }

    pub(crate) fn progress(&self) -> Progress {
        let snapshot = self.progress.snapshot();
        let (phase, percent) = steps(&snapshot);
        // The bytes move in the same steps, so that a patch for another reason does not carry news of its own.
        let bytes_done = snapshot.bytes_total / 100 * u64::from(percent);
        Progress { phase, bytes_done, bytes_total: snapshot.bytes_total, percent, started_at: self.started_at }
    }

    pub(crate) fn abort(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
