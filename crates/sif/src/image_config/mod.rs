//! OCI image config (image-spec `config.md`) → what the image holds.
//!
//! - [`ImageConfig::parse`]: the config JSON, bounded, null-tolerant.
//! - [`plan`]: the `.singularity.d` tree, root symlinks, mount points, and the three SIF objects before the partition.

mod parse;
mod plan;
mod scripts;

pub use parse::{ImageConfig, MAX_CONFIG_BYTES, parse_rfc3339};
pub use plan::{Contents, FileKind, ImageFile, MissingDir, Source, plan};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the image config has {len} bytes, at most {MAX_CONFIG_BYTES} are read")]
    TooLarge { len: usize },
    #[error("the image config is no valid JSON: {reason}")]
    Json { reason: String },
    #[error("the image config's {field} holds {count} entries, at most {max} are read")]
    TooMany {
        field: &'static str,
        count: usize,
        max: usize,
    },
    #[error("the image config's {field} holds a NUL byte: {value:?}")]
    Nul { field: &'static str, value: String },
    #[error("the image config's created time {value:?} is no RFC 3339 time")]
    Created { value: String },
    #[error("the reference {value:?} cannot stand in a definition file: it holds a line break")]
    From { value: String },
}
