//! `spec`: what is wanted.

use crate::schema;
use crate::status::SingularityImageStatus;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An OCI image turned into a SIF (Singularity Image Format) on shared storage, once for the whole site.
///
/// Launch it as `siforge run NAMESPACE/NAME`, `srun --sif=NAMESPACE/NAME`, or in a pod.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "siforge.dev",
    version = "v1alpha1",
    kind = "SingularityImage",
    namespaced,
    shortname = "sif",
    category = "siforge",
    status = "SingularityImageStatus",
    derive = "PartialEq",
    doc = "An OCI image turned into a SIF (Singularity Image Format) on shared storage, once for the whole site. Launch it as `siforge run NAMESPACE/NAME`, `srun --sif=NAMESPACE/NAME`, or in a pod.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether the current generation is published."}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","description":"What the operator has to say."}"#,
    printcolumn = r#"{"name":"Digest","type":"string","jsonPath":".status.digest","description":"Image digest, shortened."}"#,
    printcolumn = r#"{"name":"Size","type":"string","jsonPath":".status.size","description":"Size of the SIF."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SingularityImageSpec {
    /// Where the image comes from: exactly one member.
    pub source: Source,
    /// Platforms to build, as os/architecture[/variant].
    #[serde(default = "default_platforms")]
    #[schemars(length(min = 1, max = 8), inner(length(max = 64), regex(pattern = r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$")), extend("x-kubernetes-list-type" = "set"))]
    pub platforms: Vec<String>,
    /// How often the source's tag is resolved again, such as 1h or 30m; a tag that moved is built anew. 0s: resolve once.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: String,
    /// Signatures that the source must carry; without them nothing is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// How the SIF is made. All of it decides the SIF's bytes but class, timeout and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Key that signs the SIF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
    /// Who may launch the image. Default: pods of the object's own namespace; on a shared node nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How many earlier revisions stay in the store beside the current one.
    #[serde(default = "default_history")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: i32,
    /// Nodes that mount the image ahead of need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
    /// Leave everything as it is: neither resolve nor build. What is published stays launchable.
    #[serde(default)]
    pub suspend: bool,
}

fn default_platforms() -> Vec<String> {
    vec!["linux/amd64".to_owned()]
}
fn default_interval() -> String {
    "1h".to_owned()
}
fn default_history() -> i32 {
    2
}

/// Where the image comes from: exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.docker), has(self.oras), has(self.http), has(self.archive), has(self.definition)].filter(x, x).size() == 1",
    "message": "exactly one of docker, oras, http, archive and definition must be set",
}]))]
pub struct Source {
    /// An image in an OCI or Docker registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerSource>,
    /// A SIF stored as an OCI artifact in a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oras: Option<OrasSource>,
    /// A SIF on a web server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSource>,
    /// An image archive that an administrator put into the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveSource>,
    /// A Singularity definition file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionSource>,
}

/// An image in an OCI or Docker registry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerSource {
    /// registry/repository[:tag][@digest]; short names mean Docker Hub, the tag defaults to latest.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub reference: String,
    /// Secrets of this namespace with credentials for the registry: kubernetes.io/dockerconfigjson or kubernetes.io/basic-auth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub pull_secrets: Vec<LocalRef>,
    /// How to speak with the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// A SIF stored as an OCI artifact in a registry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrasSource {
    /// registry/repository[:tag][@digest].
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub reference: String,
    /// Secrets of this namespace with credentials for the registry: kubernetes.io/dockerconfigjson or kubernetes.io/basic-auth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub pull_secrets: Vec<LocalRef>,
    /// How to speak with the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// A SIF on a web server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSource {
    /// Where the SIF is.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://\S+$"))]
    pub url: String,
    /// SHA-256 that the file must have, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
    /// How to speak with the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// An image archive below the store's import/NAMESPACE/.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!self.path.startsWith('/') && !self.path.split('/').exists(part, part == '..')",
    "message": "path must be relative and must not leave the import folder",
}]))]
pub struct ArchiveSource {
    /// What the archive is.
    pub format: ArchiveFormat,
    /// Path below import/NAMESPACE/.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
}

/// Forms of an image archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ArchiveFormat {
    OCIArchive,
    OCILayout,
    DockerArchive,
}

/// A Singularity definition file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.inline) != has(self.configMapKeyRef)",
    "message": "exactly one of inline and configMapKeyRef must be set",
}]))]
pub struct DefinitionSource {
    /// The definition's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub inline: Option<String>,
    /// A ConfigMap's entry that holds the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// Values for the definition's {{ arguments }}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    pub build_args: BTreeMap<String, String>,
    /// Secrets of this namespace with credentials for the base image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub pull_secrets: Vec<LocalRef>,
}

/// How to speak with a registry or web server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(self.plainHTTP && (self.insecureSkipVerify || has(self.caBundle)))",
    "message": "plainHTTP excludes insecureSkipVerify and caBundle: there is no certificate to check",
}]))]
pub struct Tls {
    /// Accept any certificate. For tests only.
    #[serde(default)]
    pub insecure_skip_verify: bool,
    /// Speak HTTP without TLS.
    #[serde(default, rename = "plainHTTP")]
    pub plain_http: bool,
    /// Certificates to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
}

/// A PEM bundle of certificates: exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.configMapKeyRef) != has(self.secretKeyRef)",
    "message": "exactly one of configMapKeyRef and secretKeyRef must be set",
}]))]
pub struct CaBundle {
    /// A ConfigMap's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A Secret's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// An object of the same namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct LocalRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One entry of a ConfigMap or Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry's key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Signatures that the source must carry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Verify {
    /// Signatures made by cosign.
    pub cosign: Cosign,
}

/// Cosign signatures: one key of the list suffices.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Cosign {
    /// Public keys, PEM.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub keys: Vec<PublicKey>,
}

/// A public key: exactly one member.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretKeyRef) != has(self.configMapKeyRef)",
    "message": "exactly one of secretKeyRef and configMapKeyRef must be set",
}]))]
pub struct PublicKey {
    /// A Secret's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A ConfigMap's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// How the SIF is made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.level) || !has(self.compression) || !(self.compression in ['Lz4', 'Xz', 'None'])",
    "message": "level is for Zstd and Gzip",
}, {
    "rule": "!has(self.level) || !has(self.compression) || self.compression != 'Gzip' || self.level <= 12",
    "message": "level of Gzip is 1 to 12",
}]))]
pub struct Build {
    /// Build class that the administrator defined: where the build runs. Default: in the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub class: Option<String>,
    /// Codec of the squashfs. Default: Zstd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Effort of the codec: Zstd 1 to 22 (default 3), Gzip 1 to 12 (default 6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 22))]
    pub level: Option<i32>,
    /// Block size of the squashfs, a power of two from 64Ki to 1Mi. Default: 256Ki.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub block_size: Option<Quantity>,
    /// Labels to add to the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::string_map")]
    pub labels: BTreeMap<String, String>,
    /// How long one attempt may take, such as 30m. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub timeout: Option<String>,
    /// Bounds on what the image may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Codec of a squashfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Compression {
    Zstd,
    Gzip,
    Lz4,
    Xz,
    None,
}

/// Bounds on what the image may hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of all layers' files together, such as 100Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub uncompressed_bytes: Option<Quantity>,
    /// Entries of all layers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub files: Option<i64>,
}

/// Key that signs the SIF.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sign {
    /// A Secret's entry with a PGP or PEM private key.
    pub secret_key_ref: KeyRef,
}

/// Who may launch the image.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Access {
    /// Namespaces whose pods may launch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AccessNamespaces>,
    /// People and jobs on nodes that may launch it. Default: everyone when namespaces.from is All, else nobody but those listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posix: Option<AccessPosix>,
}

/// Namespaces whose pods may launch the image.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.from == 'Selector') == has(self.selector)",
    "message": "selector goes with from: Selector, and only with it",
}]))]
pub struct AccessNamespaces {
    /// Same: the object's own. All: every namespace. Selector: those whose labels match.
    #[serde(default)]
    pub from: From,
    /// Labels of the namespaces, with from: Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum From {
    #[default]
    Same,
    All,
    Selector,
}

/// People and jobs on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct AccessPosix {
    /// User ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(range(min = 0, max = 4294967294_i64)), extend("x-kubernetes-list-type" = "set"))]
    pub uids: Vec<i64>,
    /// Group ids; supplementary groups count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(range(min = 0, max = 4294967294_i64)), extend("x-kubernetes-list-type" = "set"))]
    pub gids: Vec<i64>,
}

/// Nodes that mount the image ahead of need.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warm {
    /// Labels of the nodes; empty: all.
    #[schemars(schema_with = "schema::label_selector")]
    pub node_selector: LabelSelector,
}
