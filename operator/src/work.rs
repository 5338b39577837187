//! What is known of an object's way from reference to artifact, as the queue tells it and planning reads it.
//!
//! ```text
//!   Idle ─▶ Resolving ─▶ Found ─▶ Queued ─▶ Building ─▶ Built
//!               └────────────┴───────┬─────────┘
//!                                    ▼
//!                                  Failed ── at `next`, or when something changed ──▶ Resolving
//! ```

use crate::failure::Failure;
use k8s_openapi::jiff::Timestamp;
use siforge_crds::BuildPhase;
use siforge_reference::Digest;

/// What makes an earlier answer worthless when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) generation: i64,
    /// The annotation siforge.dev/reconcile-at.
    pub(crate) reconcile_at: Option<String>,
    /// Uids and resource versions of the Secrets and ConfigMaps that were used.
    pub(crate) inputs: Vec<String>,
}

/// What a reference resolved to, with what follows from the recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// In full: docker://registry/repository:tag.
    pub(crate) reference: String,
    /// Digest of the platform's manifest.
    pub(crate) manifest: Digest,
    /// Recipe key: what is built once.
    pub(crate) key: Digest,
    /// Bytes of all layers, compressed.
    pub(crate) bytes: u64,
    /// When the registry answered.
    pub(crate) at: Timestamp,
}

/// The result of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sif {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Where something failed: which condition it makes false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The spec or its inputs: no condition of its own.
    Inputs,
    Resolve,
    Build,
    Publish,
}

/// How far a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: BuildPhase,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: u64,
    /// 0 to 100, a multiple of 10.
    pub(crate) percent: u8,
    pub(crate) started_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Work {
    #[default]
    Idle,
    Resolving,
    Found(Found),
    Queued(Found),
    Building(Found, Progress),
    Built(Found, Sif),
    Failed {
        at: Timestamp,
        stage: Stage,
        failure: Failure,
        /// When it is tried again; None: not by itself.
        next: Option<Timestamp>,
    },
}
