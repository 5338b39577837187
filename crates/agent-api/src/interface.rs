//! Names and shapes of `dev.siforge.Agent`. [`DESCRIPTION`] is the authority for other languages; a test compares
//! the field names of both.

use serde::{Deserialize, Serialize};

/// Where the agent listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/siforge/agent.sock";

/// The interface's varlink name.
pub const INTERFACE: &str = "dev.siforge.Agent";

/// The interface in varlink's description language, as `GetInterfaceDescription` serves it.
pub const DESCRIPTION: &str = include_str!("dev.siforge.Agent.varlink");

/// A lease's name, chosen by who takes it: `slurm-job-123`, `pod-<uid>`. Releasing an unknown one is no error.
pub type LeaseId = String;

/// The methods of the interface, by their last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `Mount`: [`MountRequest`] → [`MountReply`] and one descriptor.
    Mount,
    /// `Warm`: [`WarmRequest`] → [`WarmReply`].
    Warm,
    /// `Release`: [`ReleaseRequest`] → nothing.
    Release,
    /// `Resolve`: [`ResolveRequest`] → [`ResolveReply`].
    Resolve,
    /// `Status`: nothing → [`StatusReply`].
    Status,
}

impl Method {
    /// All methods, in the order of the description.
    pub const ALL: [Method; 5] = [Method::Mount, Method::Warm, Method::Release, Method::Resolve, Method::Status];

    /// The full varlink name, `dev.siforge.Agent.Mount`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Mount => "dev.siforge.Agent.Mount",
            Method::Warm => "dev.siforge.Agent.Warm",
            Method::Release => "dev.siforge.Agent.Release",
            Method::Resolve => "dev.siforge.Agent.Resolve",
            Method::Status => "dev.siforge.Agent.Status",
        }
    }

    /// The method of a full varlink name, if it is one of this interface.
    pub fn from_name(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Asks for the root of an image as a detached mount (read-only, nosuid, nodev).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// `sif://namespace/name[@digest]` or the short form `namespace/name`.
    pub reference: String,
    /// Show what root owns in the image as owned by the caller's uid and gid.
    #[serde(default)]
    pub idmap: bool,
    /// Keep the image mounted until this lease is released; without one, as long as the mount is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// A descriptor of the caller's new user namespace comes along; the agent writes its gid_map (the caller's gid
    /// and supplementary groups, setgroups denied) before it replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<bool>,
    /// The Kubernetes namespace of the pod that the mount is for: what it may have counts, not what the caller may. Of
    /// root alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// The image that was mounted; the mount is the descriptor at index `mount_fd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountReply {
    /// The image digest, `sha256:<hex>`.
    pub digest: String,
    /// The ref's revision; 0 when the digest was given.
    pub revision: u64,
    /// Size of the artifact in bytes.
    pub size: u64,
    /// Where the artifact lies on shared storage; for messages and SINGULARITY_CONTAINER, not to be opened on trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hint: Option<String>,
    /// Index of the mount among the message's descriptors: always 0.
    pub mount_fd: u32,
    /// Whether the mount is id-mapped as asked.
    #[serde(default)]
    pub idmapped: bool,
    /// Whether the agent wrote the gid_map of the passed user namespace.
    #[serde(default)]
    pub groups_mapped: bool,
}

/// Asks to mount an image ahead of need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmRequest {
    /// As in [`MountRequest`].
    pub reference: String,
    /// As in [`MountRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// How long the caller waits, in milliseconds; the warm goes on by itself beyond it. None: until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ms: Option<u64>,
}

/// What became of a [`WarmRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmReply {
    /// The image digest.
    pub digest: String,
    /// The ref's revision; 0 when the digest was given.
    pub revision: u64,
    /// False when the budget ended first.
    pub ready: bool,
}

/// Gives up a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The name given to Mount or Warm.
    pub lease: LeaseId,
}

/// Asks what a reference stands for, with the caller's rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// As in [`MountRequest`].
    pub reference: String,
}

/// What a reference stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveReply {
    /// The image digest.
    pub digest: String,
    /// The ref's revision; 0 when the digest was given.
    pub revision: u64,
    /// Size of the artifact in bytes.
    pub size: u64,
}

/// One mounted image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// The image digest.
    pub digest: String,
    /// Where the agent keeps the mount.
    pub path: String,
    /// Names of the leases that hold it.
    pub leases: Vec<LeaseId>,
}

/// The agent's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The agent's version.
    pub version: String,
    /// The store it reads.
    pub store: String,
    /// What is mounted.
    pub mounts: Vec<MountStatus>,
    /// All lease names.
    pub leases: Vec<LeaseId>,
}
