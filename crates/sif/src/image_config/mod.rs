//! OCI image config (image-spec `config.md`) → what the image holds.
//!
//! - [`ImageConfig::parse`]: the config JSON, bounded, null-tolerant.
//! - [`Base`]: what stays of an image that is built anew.
//! - [`plan`]: the `.singularity.d` tree, root symlinks, mount points, and the three SIF objects before the partition.
//!
//! ```text
//! /.exec /.run /.shell /.test → .singularity.d/actions/…     /singularity → .singularity.d/runscript
//! /environment → .singularity.d/env/90-environment.sh
//! /.singularity.d/
//!   Singularity        0644  the definition object's text       labels.json  0644
//!   oci-config.json    0644  the image config's `config`: what a launcher needs to do without a shell
//!   actions/{exec,run,shell,start,test}  0755  source env/*.sh, then act
//!   env/01-base.sh … 99-runtimevars.sh   0755  10-docker2singularity.sh holds the image's ENV
//!   libs/                    host libraries are bound here
//!   runscript startscript    0755
//! ```

mod base;
mod metadata;
mod parse;
mod plan;
pub(crate) mod scripts;
mod time;

pub use base::{APP_FILES, APPS_FOLDER, BASE_FOLDER, Base, MAX_BASE, MAX_BASE_FILE};
pub use metadata::{build_labels, labels_json};
pub(crate) use parse::variables;
pub use parse::{Config, Empty, Healthcheck, ImageConfig, MAX_CONFIG_BYTES};
pub use plan::{Contents, FileKind, ImageFile, MissingDir, OCI_CONFIG_NAME, Source, plan, plan_over};
pub(crate) use time::civil_from_days;
pub use time::parse_rfc3339;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the image config has {len} bytes, at most {MAX_CONFIG_BYTES} are read")]
    TooLarge { len: usize },
    #[error("the image config is no valid JSON: {reason}")]
    Json { reason: String },
    #[error("the image config's {field} holds {count} entries, at most {max} are read")]
    TooMany { field: &'static str, count: usize, max: usize },
    #[error("the image config's {field} holds a NUL byte: {value:?}")]
    Nul { field: &'static str, value: String },
    #[error("the image config's created time {value:?} is no RFC 3339 time")]
    Created { value: String },
    #[error("the source {value:?} cannot stand in a definition file: it holds a control character")]
    From { value: String },
    #[error("encode the image's metadata")]
    Encode { source: serde_json::Error },
}

impl Error {
    fn encode(source: serde_json::Error) -> Self {
        Self::Encode { source }
    }
}
