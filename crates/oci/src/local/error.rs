//! Why a local source is of no use. Every error begins with the source.

use siforge_reference::Digest;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{shown}: {operation} {name}: {source}")]
    Io { shown: String, operation: &'static str, name: String, source: io::Error },
    #[error("{shown}: asking the engine at {host}: {detail}")]
    Engine { shown: String, host: String, detail: String },
    #[error("{shown}: {detail}")]
    Format { shown: String, detail: String },
    #[error("{shown}: {name} is missing")]
    Missing { shown: String, name: String },
    #[error("{shown}: tar member at byte {at}: {source}")]
    Tar { shown: String, at: u64, source: siforge_rootfs::tar::Error },
    #[error("{shown}: truncated: {name} ends at byte {end}, the archive has {len}")]
    Truncated { shown: String, name: String, end: u64, len: u64 },
    #[error("{shown}: {name} has {got} bytes, want {want}: it is damaged")]
    Size { shown: String, name: String, got: u64, want: u64 },
    #[error("{shown}: {name} has the digest {got}: it is damaged")]
    Checksum { shown: String, name: String, got: Digest },
    #[error("{shown}: {name} is not understood: {detail}")]
    Malformed { shown: String, name: String, detail: String },
    #[error("{shown}: {name} is not supported: {detail}")]
    Unsupported { shown: String, name: String, detail: String },
    #[error("{shown}: {what} is {actual}, at most {max} allowed")]
    Limit { shown: String, what: &'static str, actual: u64, max: u64 },
    #[error("{shown}: no such image; there are: {}", list(available))]
    NoSuchImage { shown: String, available: Vec<String> },
    #[error("{shown}: several images are in it; choose one by its name, or by :@n or @sha256:…: {}", list(available))]
    Several { shown: String, available: Vec<String> },
    #[error("{shown}: no image for platform {wanted}; there are: {}", list(available))]
    UnknownPlatform { shown: String, wanted: String, available: Vec<String> },
}

impl Error {
    /// Whether this machine is at fault and not the source: trying again may help.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound)
    }
}

fn list(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.join(", "),
    }
}
