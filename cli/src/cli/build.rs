//! `siforge build`.

use super::{Format, Registry};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) definition: Sections,
    /// The SIF file to write
    #[arg(value_name = "OUTPUT.sif")]
    pub(crate) output: PathBuf,
    /// A definition file, or a source: docker://…
    #[arg(value_name = "DEFINITION or SOURCE")]
    pub(crate) source: String,
}

/// What counts for definition files alone.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    /// Value of {{ NAME }} in the definition file
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// File of NAME=VALUE lines for {{ NAME }}
    #[arg(long, value_name = "FILE")]
    pub(crate) build_arg_file: Option<PathBuf>,
    /// Go on where a --build-arg is not mentioned in the definition file
    #[arg(long)]
    pub(crate) warn_unused_build_args: bool,
    /// Carry out these sections alone: all, none, pre, setup, files, post, environment, runscript, startscript, test, labels, help
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) section: Vec<String>,
    /// Do not run %test
    #[arg(short = 'T', long)]
    pub(crate) notest: bool,
    /// Bind a path of the host for %post and %test: SRC[:DEST[:ro|rw]][,…]
    #[arg(short = 'B', long, value_name = "SPEC")]
    pub(crate) bind: Vec<OsString>,
    /// Set variables for %post and %test: NAME=VALUE[,…]
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
}
