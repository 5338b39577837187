//! What is typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Turns SingularityImages into SIF files on shared storage.
///
/// Exit codes: 0 after SIGTERM or SIGINT, 1 after an error, 2 for wrong usage, 3 when the leader's lease was lost.
#[derive(Debug, Parser)]
#[command(name = "siforge-operator", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller (kubeconfig or the pod's service account).
    Run(Run),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

#[derive(Args, Debug)]
pub struct Run {
    /// The store: a directory on shared storage.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Make the store if the directory holds none. Without it a storage that is not mounted is an error, not a new store.
    #[arg(long)]
    pub init_store: bool,
    /// Group of the node agents, who read private artifacts; for --init-store.
    #[arg(long, value_name = "GID", requires = "init_store")]
    pub agent_group: Option<u32>,
    /// Builds at the same time.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Most entries that the layers of one image may hold, whatever its object says: each takes some 200 bytes of memory
    #[arg(long, value_name = "N", default_value_t = 1_500_000)]
    pub max_files: u64,
    /// Bytes that the store's layer cache may take, blobs and packs together. Default: as many as come
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Compression threads of all builds together. Default: the processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Look at this namespace's objects only. Default: all namespaces.
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Elect a leader by a Lease; refs carry its generation. Without it this must be the store's only operator, ever.
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Namespace of the Lease. Default: the pod's own ($POD_NAMESPACE), else "default".
    #[arg(long, value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "siforge-operator")]
    pub lease_name: String,
    /// Seconds after which a silent leader is replaced.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease_duration: u64,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    pub metrics_addr: SocketAddr,
    /// Seconds that builds may go on after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub drain: u64,
    /// Form of the log lines. What is logged: $RUST_LOG, default info.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn leader_election_can_be_switched_off() {
        let check = |args: &[&str], expect| match Cli::try_parse_from([&["o", "run", "--store", "/s"], args].concat())
            .unwrap()
            .command
        {
            Command::Run(run) => assert_eq!(run.leader_elect, expect, "{args:?}"),
            Command::Crd => unreachable!("run was typed"),
        };
        check(&[], true);
        check(&["--leader-elect"], true);
        check(&["--leader-elect=false"], false);
    }
}
