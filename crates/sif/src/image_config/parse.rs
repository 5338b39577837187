//! The image config's JSON (image-spec `config.md`, and Docker's additions). Every field may be missing or null.

use super::{Error, time};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Most bytes of a config that are read; registries refuse manifests beyond 4 MiB, real configs have some KiB.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;
/// Most entries of any list or map in it.
const MAX_ENTRIES: usize = 64 << 10;

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
    /// The member `config`: what runs in the image, and how.
    pub config: Config,
}

/// The member `config`. Its order is the one in which the reference writes it (go-containerregistry `v1.Config`); empty members
/// are left out, as Go's omitempty does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub attach_stderr: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub attach_stdin: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub attach_stdout: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub domainname: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    /// `NAME=value`, in order.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub image: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub tty: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub network_disabled: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub mac_address: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub shell: Vec<String>,
}

/// Docker's HEALTHCHECK; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// Go's `struct{}`: `{}`, whatever stands in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self {})
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The whole document, as it stands.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    architecture: Option<String>,
    variant: Option<String>,
    os: Option<String>,
    created: Option<String>,
    rootfs: Option<RootFs>,
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(Error::TooLarge { len: json.len() });
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|error| Error::Json { reason: error.to_string() })?;
        let created = match document.created.filter(|created| !created.is_empty()) {
            None => None,
            Some(value) => Some(time::parse_rfc3339(&value).ok_or(Error::Created { value })?),
        };
        let non_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        let image = Self {
            architecture: non_empty(document.architecture),
            variant: non_empty(document.variant),
            os: non_empty(document.os),
            created,
            diff_ids: document.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default(),
            config: document.config.unwrap_or_default(),
        };
        image.check()?;
        Ok(image)
    }

    fn check(&self) -> Result<(), Error> {
        let Config { cmd, entrypoint, env, labels, volumes, exposed_ports, .. } = &self.config;
        let counts = [
            ("rootfs.diff_ids", self.diff_ids.len()),
            ("Cmd", cmd.len()),
            ("Entrypoint", entrypoint.len()),
            ("Env", env.len()),
            ("Labels", labels.len()),
            ("Volumes", volumes.len()),
            ("ExposedPorts", exposed_ports.len()),
        ];
        if let Some((field, count)) = counts.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
            return Err(Error::TooMany { field, count, max: MAX_ENTRIES });
        }
        // execve takes C strings, and a shell script drops NUL bytes silently.
        for (field, texts) in [("Env", env), ("Cmd", cmd), ("Entrypoint", entrypoint)] {
            if let Some(value) = texts.iter().find(|text| text.contains('\0')) {
                return Err(Error::Nul { field, value: value.clone() });
            }
        }
        Ok(())
    }
}

/// ENV as `(name, value)`; of equal names the last one holds, at the first one's place. Without `=` the value is empty, and a
/// nameless entry is nothing.
pub(crate) fn variables(env: &[String]) -> Vec<(&str, &str)> {
    let mut variables: Vec<(&str, &str)> = Vec::new();
    let mut places = BTreeMap::new();
    for entry in env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if name.is_empty() {
            continue;
        }
        match places.get(name) {
            Some(place) => {
                let place: &usize = place;
                variables[*place].1 = value;
            }
            None => {
                places.insert(name, variables.len());
                variables.push((name, value));
            }
        }
    }
    variables
}
