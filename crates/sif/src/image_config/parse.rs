//! The image config's JSON. Every field may be missing or null.

use super::Error;
use std::collections::BTreeMap;

/// Most bytes of a config that are read; registries refuse manifests beyond 4 MiB, real configs have some KiB.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;

/// The fields of an image config that an image or its launch depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// Go's name (`amd64`).
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os: Option<String>,
    /// Unix seconds, floored.
    pub created: Option<i64>,
    /// `sha256:<hex>` of each layer's tar, bottom first, as written.
    pub diff_ids: Vec<String>,
    pub user: Option<String>,
    pub exposed_ports: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// None and empty mean the same to the runscript; only the difference null/[] is lost.
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub volumes: Vec<String>,
    pub working_dir: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
}

impl ImageConfig {
    pub fn parse(_json: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}

/// RFC 3339 → Unix seconds, floored; None if it is no such time.
pub fn parse_rfc3339(_text: &str) -> Option<i64> {
    todo!()
}
