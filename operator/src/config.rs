//! What is ready to use: the command line, completed from the environment. Nothing else reads the environment.

use crate::cli::{LogFormat, Run};
use siforge_build::{Limits, Settings};
use siforge_oci::Proxies;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub store: PathBuf,
    /// Make the store when there is none, with this agent group.
    pub init_store: Option<Option<u32>>,
    pub workers: usize,
    /// Of one build: the threads are shared among the workers, and no object may raise the number of files.
    pub settings: Settings,
    /// HTTPS_PROXY, NO_PROXY and their relatives, for registries.
    pub proxies: Proxies,
    pub namespace: Option<String>,
    /// None: no leader election.
    pub lease: Option<Lease>,
    /// This process, and no other: in the Lease and in Events.
    pub identity: String,
    pub metrics_addr: SocketAddr,
    pub drain: Duration,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    pub duration: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

impl Config {
    pub fn new(run: Run) -> (Self, Log) {
        let Run {
            store,
            init_store,
            agent_group,
            workers,
            max_files,
            cache_bytes,
            threads,
            namespace,
            leader_elect,
            lease_namespace,
            lease_name,
            lease_duration,
            metrics_addr,
            drain,
            log_format,
        } = run;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.map_or(processors, usize::from);
        let workers = usize::from(workers);
        let lease_namespace =
            lease_namespace.or_else(|| variable("POD_NAMESPACE")).unwrap_or_else(|| "default".to_owned());
        let config = Self {
            store,
            init_store: init_store.then_some(agent_group),
            workers,
            settings: Settings {
                limits: Limits { files: max_files, ..Limits::default() },
                cache_bytes,
                ..Settings::for_processors((threads / workers).max(1))
            },
            proxies: Proxies::new(&variable),
            namespace,
            lease: leader_elect.then(|| Lease {
                namespace: lease_namespace,
                name: lease_name,
                duration: Duration::from_secs(lease_duration),
            }),
            identity: identity(),
            metrics_addr,
            drain: Duration::from_secs(drain),
        };
        let filter = variable("RUST_LOG").unwrap_or_else(|| "info,kube_client=warn".to_owned());
        (config, Log { format: log_format, filter })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Host and process, and the kernel's random number in case both come again.
fn identity() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let host = variable("POD_NAME").unwrap_or_else(|| read("/proc/sys/kernel/hostname"));
    let random = read("/proc/sys/kernel/random/uuid");
    format!("{host}_{}_{}", std::process::id(), random.split('-').next().unwrap_or_default())
}
