//! What can go wrong, named so that the caller can react.
//!
//! [`Error::kind`] is a closed set (a condition's reason, a metric's label); [`Error::reaction`] says whether trying
//! again later can help. Texts begin with the operation and use the words of distribution and containers/image, which
//! people search for.

use crate::Operation;
use siforge_reference::{Digest, ParseError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Reference(#[from] ParseError),
    #[error("this client is for the registry {client}, not for {registry}")]
    OtherRegistry { client: String, registry: String },
    #[error("reading the CA bundle of {registry}: {detail}; expected certificates in PEM form")]
    CaBundle { registry: String, detail: String },
    #[error("setting up TLS for {registry}: {detail}")]
    TlsSetup { registry: String, detail: String },

    #[error("{operation}: {missing}")]
    NotFound { operation: Operation, missing: Missing },
    #[error("{operation}: authentication required: {detail}; {hint}")]
    Unauthorized { operation: Operation, detail: String, hint: String },
    #[error("{operation}: access denied: {detail}; {hint}")]
    Forbidden { operation: Operation, detail: String, hint: String },
    #[error("{operation}: certificate not accepted: {detail}")]
    Certificate { operation: Operation, detail: String },
    #[error("{operation}: server gave HTTP response to HTTPS client; allow plain HTTP if this registry has no TLS")]
    NotTls { operation: Operation },
    #[error("{operation}: {detail}")]
    Unreachable { operation: Operation, detail: String },
    #[error("{operation}: toomanyrequests: {detail}{}", retry_hint(.retry_after))]
    RateLimited { operation: Operation, detail: String, retry_after: Option<Duration> },
    #[error("{operation}: server error {status}: {detail}")]
    Server { operation: Operation, status: u16, detail: String, retry_after: Option<Duration> },
    #[error("{operation}: unexpected status {status}: {detail}")]
    Status { operation: Operation, status: u16, detail: String },
    #[error("{operation}: redirected to {location}: {detail}")]
    Redirect { operation: Operation, location: String, detail: &'static str },
    #[error("{operation}: answer not understood: {detail}")]
    Malformed { operation: Operation, detail: String },

    #[error("{operation}: no image for platform {wanted}; there are: {}", list(.available))]
    UnknownPlatform { operation: Operation, wanted: String, available: Vec<String> },
    #[error("{operation}: unsupported: {detail}")]
    Unsupported { operation: Operation, detail: String },
    #[error("{operation}: {what} is {actual}, at most {max} allowed")]
    Limit { operation: Operation, what: &'static str, actual: u64, max: u64 },

    #[error("{operation}: error verifying size; got {got}, want {want}; the registry's copy is damaged")]
    Size { operation: Operation, got: u64, want: u64 },
    #[error(
        "{operation}: error verifying sha256 checksum after reading {read} bytes; got \"{got}\", want \"{want}\"; \
         the registry's copy is damaged"
    )]
    Checksum { operation: Operation, read: u64, got: Box<Digest>, want: Box<Digest> },

    #[error("{operation}: writing the blob's file: {source}")]
    Write { operation: Operation, source: Arc<io::Error> },
    #[error("{error}; before it failed: {}", list(.mirrors))]
    AfterMirrors { error: Box<Error>, mirrors: Vec<String> },
    #[error("{operation}: interrupted after {written} bytes")]
    Interrupted { operation: Operation, written: u64 },
}

/// What a 404 was about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("manifest unknown: repository name not known to registry, or not visible without credentials")]
    Repository,
    #[error("manifest unknown: no such tag{}", tags_hint(.tags))]
    Tag {
        /// Some of the tags that there are.
        tags: Vec<String>,
    },
    #[error("manifest unknown{}", beyond("manifest unknown", .detail))]
    Manifest { detail: String },
    #[error("blob unknown to registry{}", beyond("blob unknown to registry", .detail))]
    Blob { detail: String },
}

/// The classes of [`Error`]: few and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidReference,
    /// The client was set up wrongly (CA bundle, other registry).
    Setup,
    NotFound,
    Unauthorized,
    Forbidden,
    Certificate,
    Unreachable,
    RateLimited,
    Server,
    /// The other side does not speak the protocol.
    Protocol,
    UnknownPlatform,
    Unsupported,
    Limit,
    /// Digest or size is not what the manifest says.
    Integrity,
    /// The local file could not be written.
    Local,
    Interrupted,
}

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing changes by itself: someone must act.
    Stall,
    /// Trying again may help, not before `after` when the registry said so.
    Retry { after: Option<Duration> },
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reference(_) => Kind::InvalidReference,
            Self::OtherRegistry { .. } | Self::CaBundle { .. } | Self::TlsSetup { .. } => Kind::Setup,
            Self::NotFound { .. } => Kind::NotFound,
            Self::Unauthorized { .. } => Kind::Unauthorized,
            Self::Forbidden { .. } => Kind::Forbidden,
            Self::Certificate { .. } | Self::NotTls { .. } => Kind::Certificate,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::RateLimited { .. } => Kind::RateLimited,
            Self::Server { .. } => Kind::Server,
            Self::Status { .. } | Self::Redirect { .. } | Self::Malformed { .. } => Kind::Protocol,
            Self::UnknownPlatform { .. } => Kind::UnknownPlatform,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Limit { .. } => Kind::Limit,
            Self::Size { .. } | Self::Checksum { .. } => Kind::Integrity,
            Self::Write { .. } => Kind::Local,
            Self::Interrupted { .. } => Kind::Interrupted,
            Self::AfterMirrors { error, .. } => error.kind(),
        }
    }

    pub fn reaction(&self) -> Reaction {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => {
                Reaction::Retry { after: *retry_after }
            }
            Self::Unreachable { .. } | Self::Write { .. } | Self::Interrupted { .. } => Reaction::Retry { after: None },
            Self::AfterMirrors { error, .. } => error.reaction(),
            _ => Reaction::Stall,
        }
    }

    /// The same, with what was tried before.
    pub(crate) fn after(self, mirrors: Vec<Self>) -> Self {
        match mirrors.is_empty() {
            true => self,
            false => {
                let mirrors = mirrors.iter().map(Self::to_string).collect();
                Self::AfterMirrors { error: Box::new(self), mirrors }
            }
        }
    }
}

fn retry_hint(after: &Option<Duration>) -> String {
    match after {
        Some(after) => format!("; the registry asks to wait {} s", after.as_secs()),
        None => "; try again later, or log in for a higher limit".to_owned(),
    }
}

/// What the registry said, unless it is what the error says anyway.
fn beyond(said: &str, detail: &str) -> String {
    match detail {
        "" => String::new(),
        detail if detail == said => String::new(),
        detail => format!(": {detail}"),
    }
}

fn tags_hint(tags: &[String]) -> String {
    match tags {
        [] => String::new(),
        tags => format!("; there are: {}", list(tags)),
    }
}

fn list(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.join(", "),
    }
}
