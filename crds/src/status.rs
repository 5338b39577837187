//! `status`: what is. Written by the operator alone, one server-side apply per change.

use crate::schema;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Compression;

/// What is: written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SingularityImageStatus {
    /// The metadata.generation that this status speaks of; -1 before the operator saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The value of the annotation siforge.dev/reconcile-at that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Ready, Reconciling, Stalled (read by kubectl wait, Argo CD, Flux), SourceResolved, SourceVerified, Built, Signed,
    /// Published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Short form of the published image digest, for tables; the whole stands in artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub digest: Option<String>,
    /// Size of the published SIF for tables, such as "78.2 MiB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,
    /// What the source's reference resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// What is published now, one entry per platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["platform"]))]
    pub artifacts: Vec<Artifact>,
    /// The build that runs or waits for its next attempt; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildStatus>,
    /// Revisions, newest first, as many as spec.revisionHistoryLimit plus the current one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 21), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
}

/// What the source's reference resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The reference in full, with the registry's host and the tag.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reference: String,
    /// Digest of the platform's manifest.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub digest: String,
}

/// A published SIF.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Operating system and architecture, such as linux/amd64.
    #[schemars(length(max = 64))]
    pub platform: String,
    /// Image digest: SHA-256 of the unsigned SIF. Nodes mount by it.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// The SIF's path below the store's root.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Bytes of the SIF.
    #[schemars(range(min = 0))]
    pub size: i64,
    /// Revision of the store's ref that points at it.
    #[schemars(range(min = 0))]
    pub revision: i64,
    /// When it was published under this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub built_at: Option<Time>,
    /// Codec of its squashfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Fingerprints of the keys that signed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub signers: Vec<String>,
}

/// Progress of a build, in steps of 10 percent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildStatus {
    /// What is being done.
    pub phase: BuildPhase,
    /// Bytes of layers handled so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_done: Option<i64>,
    /// Bytes of layers altogether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_total: Option<i64>,
    /// bytesDone of bytesTotal, rounded down to a multiple of 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// When this attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// When the operator tries again after a failure that may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_attempt: Option<Time>,
}

/// Where a build stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum BuildPhase {
    /// Waits for a free builder.
    #[default]
    Queued,
    /// The reference is being resolved.
    Resolving,
    /// Layers are fetched and written into the SIF.
    Building,
    /// The SIF is hashed and published.
    Publishing,
    /// The last attempt failed; nextAttempt says when the next one comes.
    Waiting,
}

/// A revision of the store's ref.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Counts up with each change of what the name points at.
    #[schemars(range(min = 0))]
    pub revision: i64,
    /// Image digest of that revision.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// Manifest digest that it was made from.
    #[schemars(length(max = 128))]
    pub source_digest: String,
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub at: Option<Time>,
}
