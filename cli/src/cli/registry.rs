//! `siforge registry login|logout|list`.

use super::TlsOptions;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Keep a registry's user name and password, once the registry has taken them
    Login(Login),
    /// Forget a registry's user name and password
    Logout(Logout),
    /// Show which registries there are credentials for, and in which file
    List(List),
}

#[derive(Args, Debug)]
pub(crate) struct Login {
    /// User name
    #[arg(short, long, visible_alias = "docker-username", value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input instead of asking for it on the terminal
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The file to keep it in, instead of ~/.apptainer/docker-config.json
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
    /// [docker://]HOST[:PORT], with /PATH for the repositories below a path
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: String,
}

#[derive(Args, Debug)]
pub(crate) struct Logout {
    /// The file to change, instead of ~/.apptainer/docker-config.json
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// [docker://]HOST[:PORT][/PATH]
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: String,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// The file to show, instead of all that are looked at
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}
