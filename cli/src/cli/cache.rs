//! `siforge cache list|clean|gc`.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what is in the cache
    List(ListCache),
    /// Remove what is in the cache
    Clean(Clean),
    /// Bring the cache below a size: what was used least recently goes first
    Gc(CacheGc),
}

/// What the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Layers as registries hold them
    Blob,
    /// Layers as SIF files hold them
    Pack,
    /// SIF files of exec, run and shell docker://
    Image,
    /// What left the cache and still takes space for ten minutes
    Trash,
    All,
}

#[derive(Args, Debug)]
pub(crate) struct ListCache {
    /// Of which kind
    #[arg(short, long, value_name = "KIND", value_delimiter = ',', default_value = "all")]
    pub(crate) r#type: Vec<Kind>,
    /// Show each entry
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Clean {
    /// Of which kind
    #[arg(short = 'T', long, value_name = "KIND", value_delimiter = ',', default_value = "all")]
    pub(crate) r#type: Vec<Kind>,
    /// Only what was not used for so many days
    #[arg(short = 'D', long, value_name = "DAYS", default_value_t = 0)]
    pub(crate) days: u64,
    /// Only entries whose names begin so
    #[arg(short = 'N', long, value_name = "NAME")]
    pub(crate) name: Vec<String>,
    /// Show what would be removed and remove nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CacheGc {
    /// Bytes that may stay, such as 10G; default: SIFORGE_CACHE_SIZE, else 32G
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Option<String>,
    /// Show what would be removed and remove nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
