//! `siforge build`.

use super::{Format, Registry};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) definition: Sections,
    #[command(flatten)]
    pub(crate) sandbox: Sandbox,
    #[command(flatten)]
    pub(crate) refused: Refused,
    /// Build as root in a user namespace: an ordinary user always does
    #[arg(short, long)]
    pub(crate) fakeroot: bool,
    /// The SIF file to write; with --sandbox the directory
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,
    /// A definition file, or a source: docker://…
    #[arg(value_name = "DEFINITION or SOURCE")]
    pub(crate) source: String,
}

/// An image as a directory.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Write a directory that can be changed instead of a SIF file
    #[arg(long)]
    pub(crate) sandbox: bool,
    /// Give the owner of the sandbox's files permissions where their modes lack them
    #[arg(long)]
    pub(crate) fix_perms: bool,
    /// Without root: note the image's owners and modes in extended attributes (user.containers.override_stat); a SIF that is built
    /// of the sandbox gets them back
    #[arg(long)]
    pub(crate) keep_owners: bool,
}

/// What Apptainer has and siforge has not, each refused with a sentence.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    #[arg(short, long, hide = true)]
    pub(crate) encrypt: bool,
    #[arg(long, hide = true)]
    pub(crate) passphrase: bool,
    #[arg(long, hide = true, value_name = "FILE")]
    pub(crate) pem_path: Option<PathBuf>,
    #[arg(short, long, hide = true)]
    pub(crate) update: bool,
    #[arg(long, hide = true)]
    pub(crate) json: bool,
    #[arg(long, hide = true, value_name = "URL")]
    pub(crate) library: Option<String>,
}

impl Refused {
    /// The first one that is given: its name, and what to do instead.
    pub(crate) fn given(&self) -> Option<(&'static str, &'static str)> {
        let Self { encrypt, passphrase, pem_path, update, json, library } = self;
        let encryption = "siforge neither encrypts images nor runs encrypted ones; apptainer build --encrypt does";
        [
            (*encrypt, "--encrypt", encryption),
            (*passphrase, "--passphrase", encryption),
            (pem_path.is_some(), "--pem-path", encryption),
            (
                *update,
                "--update",
                "build anew over the sandbox with `Bootstrap: localimage`, `From: DIRECTORY` and --force",
            ),
            (*json, "--json", "write the definition as a definition file"),
            (
                library.is_some(),
                "--library",
                "there are no library:// sources; docker:// and oras:// are served by registries",
            ),
        ]
        .into_iter()
        .find(|(given, ..)| *given)
        .map(|(_, option, instead)| (option, instead))
    }
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
