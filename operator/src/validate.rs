//! Spec → what to do, or why not. Pure: looks at the spec alone.
//!
//! The API server's schema has already refused what breaks the grammar; what is left are rules that a schema cannot say,
//! and fields whose feature this version does not have. Those are refused by name, never ignored: an image that a user
//! believes to be verified must not be published unverified.

use crate::failure::Failure;
use crate::units;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use siforge_build::{Codec, Limits, Recipe};
use siforge_crds::conditions::Reason;
use siforge_crds::{
    AccessNamespaces, AccessPosix, ArchiveFormat, ArchiveSource, Build, Compression, DockerSource, From as AccessFrom,
    KeyRef, SingularityImageSpec, Source, Tls,
};
use siforge_oci::Platform;
use siforge_reference::ImageRef;
use std::fmt;
use std::path::{Component, PathBuf};
use std::time::Duration;

/// How long one build may take when the spec does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// No interval is shorter: each is a request to somebody's registry.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 20;

/// A spec that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Validated {
    pub(crate) origin: Origin,
    pub(crate) platform: Platform,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) transport: Transport,
    pub(crate) recipe: Recipe,
    pub(crate) limits: Limits,
    pub(crate) timeout: Duration,
    /// None: the reference is resolved once.
    pub(crate) interval: Option<Duration>,
    pub(crate) access: AccessRules,
    pub(crate) history: usize,
}

impl Validated {
    pub(crate) fn compression(&self) -> Compression {
        match self.recipe.codec {
            Codec::Zstd { .. } => Compression::Zstd,
            Codec::Gzip { .. } => Compression::Gzip,
            Codec::Lz4 { .. } => Compression::Lz4,
            Codec::Xz { .. } => Compression::Xz,
            Codec::None => Compression::None,
        }
    }
}

/// Where the image comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    Registry(ImageRef),
    /// Below the store's `import/NAMESPACE/`.
    Archive {
        format: ArchiveFormat,
        path: PathBuf,
    },
}

/// As a status shows it; a path is below the namespace's import folder.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Archive { format, path } => {
                let transport = match format {
                    ArchiveFormat::OCILayout => "oci",
                    ArchiveFormat::OCIArchive => "oci-archive",
                    ArchiveFormat::DockerArchive => "docker-archive",
                };
                write!(f, "{transport}:{}", path.display())
            }
        }
    }
}

/// How to speak with the registry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Transport {
    pub(crate) plain_http: bool,
    pub(crate) insecure_skip_verify: bool,
    pub(crate) ca: Option<CaSource>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CaSource {
    ConfigMap(KeyRef),
    Secret(KeyRef),
}

/// Who may launch, before a selector is resolved to names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccessRules {
    pub(crate) namespaces: NamespaceRule,
    pub(crate) uids: Vec<u32>,
    pub(crate) gids: Vec<u32>,
    pub(crate) everyone: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NamespaceRule {
    Same,
    All,
    Selector(LabelSelector),
}

pub(crate) fn validate(spec: &SingularityImageSpec) -> Result<Validated, Failure> {
    let SingularityImageSpec {
        source,
        platforms,
        interval,
        verify,
        build,
        sign,
        access,
        revision_history_limit,
        warm,
        suspend: _,
    } = spec;
    refuse(verify.is_some(), "spec.verify: checking the source's signatures")?;
    refuse(sign.is_some(), "spec.sign: signing the SIF")?;
    refuse(warm.is_some(), "spec.warm: mounting the image ahead of need")?;
    let (origin, docker) = origin(source)?;
    let build = build.clone().unwrap_or_default();
    refuse(build.class.is_some(), "spec.build.class: builds outside the operator")?;
    let access = access.clone().unwrap_or_default();
    Ok(Validated {
        origin,
        platform: platform(platforms)?,
        pull_secrets: docker.pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
        transport: transport(docker.tls.as_ref())?,
        recipe: recipe(&build)?,
        limits: limits(&build)?,
        timeout: timeout(&build)?,
        interval: interval_of(interval)?,
        access: access_rules(access.namespaces.as_ref(), access.posix.as_ref())?,
        history: usize::try_from(*revision_history_limit)
            .map_err(|_| invalid(format!("spec.revisionHistoryLimit: {revision_history_limit} is negative")))?,
    })
}

fn refuse(asked: bool, what: &str) -> Result<(), Failure> {
    if asked {
        return Err(Failure::stalled(
            Reason::Unsupported,
            format!("{what} is not supported by this version of siforge; remove the field"),
        ));
    }
    Ok(())
}

fn invalid(message: String) -> Failure {
    Failure::stalled(Reason::InvalidSpec, message)
}

/// And how a registry is reached; an archive needs nothing of it.
fn origin(source: &Source) -> Result<(Origin, DockerSource), Failure> {
    let Source { docker, oras, http, archive, definition } = source;
    refuse(oras.is_some(), "spec.source.oras: a SIF from a registry")?;
    refuse(http.is_some(), "spec.source.http: a SIF from a web server")?;
    refuse(definition.is_some(), "spec.source.definition: a definition file")?;
    match (docker, archive) {
        (Some(docker), None) => Ok((Origin::Registry(reference(&docker.reference)?), docker.clone())),
        (None, Some(ArchiveSource { format, path })) => {
            let path = PathBuf::from(path);
            // The schema says so too, but an object may be older than it.
            if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                return Err(invalid(format!("spec.source.archive.path: {path:?} leaves the import folder")));
            }
            Ok((Origin::Archive { format: *format, path }, DockerSource::default()))
        }
        _ => {
            let all = "docker, oras, http, archive and definition";
            Err(invalid(format!("spec.source: exactly one of {all} must be set")))
        }
    }
}

/// `docker://` is how the same image is written elsewhere, so it is let through here.
fn reference(text: &str) -> Result<ImageRef, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    name.parse()
        .map_err(|error| Failure::stalled(Reason::InvalidReference, format!("spec.source.docker.reference: {error}")))
}

fn platform(platforms: &[String]) -> Result<Platform, Failure> {
    match platforms {
        [one] if one == "linux/amd64" => {
            Ok(Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None })
        }
        [] => Err(invalid("spec.platforms: at least one platform must be named".to_owned())),
        others => Err(Failure::stalled(
            Reason::Unsupported,
            format!(
                "spec.platforms: {} is not supported by this version of siforge; use linux/amd64 alone",
                others.join(", ")
            ),
        )),
    }
}

fn transport(tls: Option<&Tls>) -> Result<Transport, Failure> {
    let Some(Tls { insecure_skip_verify, plain_http, ca_bundle }) = tls else {
        return Ok(Transport::default());
    };
    let ca = match ca_bundle {
        None => None,
        Some(bundle) => Some(match (&bundle.config_map_key_ref, &bundle.secret_key_ref) {
            (Some(key), None) => CaSource::ConfigMap(key.clone()),
            (None, Some(key)) => CaSource::Secret(key.clone()),
            _ => {
                return Err(invalid(
                    "spec.source.docker.tls.caBundle: exactly one of configMapKeyRef and secretKeyRef must be set"
                        .to_owned(),
                ));
            }
        }),
    };
    if *plain_http && (*insecure_skip_verify || ca.is_some()) {
        return Err(invalid("spec.source.docker.tls: plainHTTP excludes insecureSkipVerify and caBundle".to_owned()));
    }
    Ok(Transport { plain_http: *plain_http, insecure_skip_verify: *insecure_skip_verify, ca })
}

fn recipe(build: &Build) -> Result<Recipe, Failure> {
    let default = Recipe::default();
    let codec = match (build.compression.unwrap_or(Compression::Zstd), build.level) {
        (Compression::Zstd, level) => Codec::Zstd { level: within("Zstd", level, 1..=22)?.unwrap_or(3) },
        (Compression::Gzip, level) => Codec::Gzip { level: within("Gzip", level, 1..=12)?.unwrap_or(6) },
        // The API's schema has a level for the two above alone.
        (Compression::Lz4, _) => Codec::Lz4 { level: 0 },
        (Compression::Xz, _) => Codec::Xz { level: 6 },
        (Compression::None, _) => Codec::None,
    };
    let block_size = match &build.block_size {
        None => default.block_size,
        Some(quantity) => units::quantity(&quantity.0)
            .filter(|size| size.is_power_of_two() && BLOCK_SIZES.contains(size))
            .and_then(|size| u32::try_from(size).ok())
            .ok_or_else(|| {
                invalid(format!("spec.build.blockSize: {:?} is not a power of two from 64Ki to 1Mi", quantity.0))
            })?,
    };
    Ok(Recipe { codec, block_size, labels: build.labels.clone() })
}

fn within(codec: &str, level: Option<i32>, range: std::ops::RangeInclusive<i32>) -> Result<Option<i32>, Failure> {
    match level {
        Some(level) if !range.contains(&level) => Err(invalid(format!(
            "spec.build.level: {level} is not a level of {codec}: {} to {}",
            range.start(),
            range.end()
        ))),
        level => Ok(level),
    }
}

fn limits(build: &Build) -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    let Some(wanted) = &build.limits else {
        return Ok(limits);
    };
    if let Some(quantity) = &wanted.uncompressed_bytes {
        limits.uncompressed_bytes = units::quantity(&quantity.0).filter(|bytes| *bytes > 0).ok_or_else(|| {
            invalid(format!(
                "spec.build.limits.uncompressedBytes: {:?} is not a number of bytes such as 100Gi",
                quantity.0
            ))
        })?;
    }
    if let Some(files) = wanted.files {
        limits.files = u64::try_from(files)
            .ok()
            .filter(|files| *files > 0)
            .ok_or_else(|| invalid(format!("spec.build.limits.files: {files} is not positive")))?;
    }
    Ok(limits)
}

fn timeout(build: &Build) -> Result<Duration, Failure> {
    let Some(text) = &build.timeout else {
        return Ok(DEFAULT_TIMEOUT);
    };
    units::duration(text)
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| invalid(format!("spec.build.timeout: {text:?} is not a duration such as 30m")))
}

fn interval_of(text: &str) -> Result<Option<Duration>, Failure> {
    let interval = units::duration(text)
        .ok_or_else(|| invalid(format!("spec.interval: {text:?} is not a duration such as 1h")))?;
    if interval.is_zero() {
        return Ok(None);
    }
    if interval < SHORTEST_INTERVAL {
        return Err(invalid(format!("spec.interval: {text} is shorter than 1s; use 0s to resolve once")));
    }
    Ok(Some(interval))
}

fn access_rules(namespaces: Option<&AccessNamespaces>, posix: Option<&AccessPosix>) -> Result<AccessRules, Failure> {
    let rule = match namespaces.map(|wanted| (wanted.from, &wanted.selector)) {
        None | Some((AccessFrom::Same, None)) => NamespaceRule::Same,
        Some((AccessFrom::All, None)) => NamespaceRule::All,
        Some((AccessFrom::Selector, Some(selector))) => NamespaceRule::Selector(selector.clone()),
        Some(_) => {
            return Err(invalid(
                "spec.access.namespaces: selector goes with from: Selector, and only with it".to_owned(),
            ));
        }
    };
    let ids = |field: &str, ids: &[i64]| -> Result<Vec<u32>, Failure> {
        ids.iter()
            .map(|id| u32::try_from(*id).map_err(|_| invalid(format!("spec.access.posix.{field}: {id} is no id"))))
            .collect()
    };
    Ok(AccessRules {
        // Whoever lists people means these people; without a list, an image for all namespaces is for everyone on a node too.
        everyone: posix.is_none() && rule == NamespaceRule::All,
        uids: posix.map(|posix| ids("uids", &posix.uids)).transpose()?.unwrap_or_default(),
        gids: posix.map(|posix| ids("gids", &posix.gids)).transpose()?.unwrap_or_default(),
        namespaces: rule,
    })
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
