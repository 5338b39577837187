//! `siforge inspect` and `siforge run-help`.

use super::Registry;
use clap::Args;
use std::ffi::OsString;

#[derive(Args, Debug, Default)]
pub(crate) struct Inspect {
    /// Show the labels (the default)
    #[arg(short, long)]
    pub(crate) labels: bool,
    /// Show the definition file
    #[arg(short, long)]
    pub(crate) deffile: bool,
    /// Show the run script
    #[arg(short, long)]
    pub(crate) runscript: bool,
    /// Show the start script
    #[arg(long)]
    pub(crate) startscript: bool,
    /// Show the test script
    #[arg(short, long)]
    pub(crate) test: bool,
    /// Show the environment scripts
    #[arg(short, long)]
    pub(crate) environment: bool,
    /// Show the help text
    #[arg(short = 'H', long)]
    pub(crate) helpfile: bool,
    /// List the apps
    #[arg(long)]
    pub(crate) list_apps: bool,
    /// Show what this app has
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Show everything, as JSON
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
    /// List the file's data objects: siforge sif list
    #[arg(long, hide = true)]
    pub(crate) list_objects: bool,
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: OsString,
}

#[derive(Args, Debug)]
pub(crate) struct RunHelp {
    /// The help of this app
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: OsString,
}
