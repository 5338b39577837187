//! What was typed: flags and subcommands, before environment and file are consulted (that is [`crate::config`]).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// siforge's node agent: mounts each image once per node and hands the mount to whoever may launch it.
#[derive(Debug, Clone, Parser)]
#[command(name = "siforge-agent", version, about)]
pub struct Cli {
    /// Settings that every subcommand understands.
    #[command(flatten)]
    pub options: Options,
    /// Without one the agent serves.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Settings; each one may also stand in the environment or in the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Configuration file [SIFORGE_AGENT_CONFIG; default /etc/siforge/agent.toml, which may be absent]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The store's root directory on shared storage [SIFORGE_STORE]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Unix socket of the agent [SIFORGE_AGENT_SOCKET; default /run/siforge/agent.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Local directory for mounts, leases and the memo of verified files [SIFORGE_AGENT_STATE_DIR; default /run/siforge]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Name of this node in the store's leases [SIFORGE_NODE_NAME; default the host name]
    #[arg(long, global = true, value_name = "NAME")]
    pub node_name: Option<String>,
    /// What is checked before the kernel mounts a file [SIFORGE_AGENT_INTEGRITY; default hash]
    #[arg(long, global = true, value_enum)]
    pub integrity: Option<IntegrityMode>,
    /// Seconds that an image without lease stays mounted after its last use [SIFORGE_AGENT_LINGER; default 300]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub linger: Option<u64>,
    /// Namespace of image names that have none [SIFORGE_DEFAULT_NAMESPACE; default "default"]
    #[arg(long, global = true, value_name = "NAME")]
    pub default_namespace: Option<String>,
    /// How many images may be mounted at once [SIFORGE_AGENT_MAX_MOUNTS; default 128]
    #[arg(long, global = true, value_name = "N")]
    pub max_mounts: Option<u32>,
    /// Serve pods' images to the node's container runtime on this loopback address [SIFORGE_AGENT_REGISTRY; default not]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub registry: Option<SocketAddr>,
    /// Form of the log on stderr [SIFORGE_AGENT_LOG_FORMAT; default text]
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Which log lines, for example info or siforge_node_agent=debug [SIFORGE_LOG; default info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What the agent does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM; mounts stay in place for the next agent
    Serve {
        /// Unmount everything at the end, as `cleanup` does
        #[arg(long)]
        unmount_on_exit: bool,
    },
    /// Say what a running agent has mounted
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Unmount all that a stopped agent left in its state directory
    Cleanup,
    /// Make siforge-runtime a runtime of this node's containerd
    InstallRuntime(InstallRuntime),
    /// Take it out of containerd's configuration again
    UninstallRuntime(InstallRuntime),
    /// Slurm's hooks
    #[command(subcommand)]
    Slurm(SlurmCommand),
}

/// Where containerd is, and where the runtime goes.
#[derive(Debug, Clone, Args)]
pub struct InstallRuntime {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    pub containerd_config: PathBuf,
    /// The program, which is asked what it makes of its configuration; looked for in PATH
    #[arg(long, value_name = "PATH", default_value = "containerd")]
    pub containerd: PathBuf,
    /// Folder that the runtime is copied to
    #[arg(long, value_name = "DIR", default_value = "/opt/siforge/bin")]
    pub prefix: PathBuf,
    /// The runtime that is copied; default: siforge-runtime beside this program
    #[arg(long, value_name = "FILE")]
    pub wrapper: Option<PathBuf>,
}

/// What slurmd calls.
#[derive(Debug, Clone, Subcommand)]
pub enum SlurmCommand {
    /// Warm the job's image and lease it; exits 0 whatever happens, since anything else drains the node
    Prolog,
    /// Drop the job's lease; exits 0 whatever happens
    Epilog,
    /// Exit 0 when the agent answers, 1 with the reason when not (slurm.conf: HealthCheckProgram)
    Check,
}

/// What the agent checks before the kernel mounts an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrityMode {
    /// Hash the whole file when this node opens it first
    Hash,
    /// Trust the store's permissions; structural checks only
    Store,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}
