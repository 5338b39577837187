//! What can be typed. Names and meanings are Apptainer 1.4's; nothing here reads the environment or acts.

mod build;
mod cache;
mod inspect;
mod key;
mod registry;
mod sif;
mod sign;

pub(crate) use build::{Build, Sections};
pub(crate) use cache::{CacheCommand, CacheGc, Clean, Kind, ListCache};
pub(crate) use inspect::{Inspect, RunHelp};
pub(crate) use key::{
    KeyCommand, KeyExport, KeyImport, KeyList, KeyNewPair, KeyPull, KeyPush, KeyRemove, KeySearch, KeyServerOptions,
    Ring,
};
pub(crate) use registry::{List, Login, Logout, RegistryCommand};
pub(crate) use sif::{SifAdd, SifCommand, SifObject};
pub(crate) use sign::{KeyringOptions, PassphraseOptions, Selection, Sign, Verify};

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "siforge",
    version,
    about = "Pull, inspect and run SIF images",
    after_help = "IMAGE is one of:\n  docker://[HOST/]NAME[:TAG][@DIGEST]   an image of a registry (kept in a per-user cache)\n  oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]\n                                        an image that other tools saved\n  PATH.sif, DIRECTORY                   a SIF file or an unpacked root file system\n  sif://NAMESPACE/NAME[@DIGEST]         an image of the site's store; short: NAMESPACE/NAME or NAME",
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One subcommand by itself.
#[derive(Debug, Parser)]
#[command(version)]
struct Alone<A: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    options: A,
}

impl Cli {
    /// Parses the words of a command line, the program's name first.
    ///
    /// A launch is measured in hundreds of microseconds, and clap builds each option of each subcommand before it parses:
    /// so a command line that starts with one of the three that launch is first parsed for that one alone. Whatever is not
    /// a launch then (help, a mistake) is for the whole parser, which has the right words for it.
    pub(crate) fn parse_words(words: &[OsString]) -> Result<Self, clap::Error> {
        let launch = match words.get(1).and_then(|word| word.to_str()) {
            Some("exec") => alone(words, Command::Exec),
            Some("run") => alone(words, Command::Run),
            Some("shell") => alone(words, Command::Shell),
            _ => None,
        };
        launch.map_or_else(|| Self::try_parse_from(words), Ok)
    }
}

fn alone<A: Args>(words: &[OsString], command: fn(A) -> Command) -> Option<Cli> {
    let Alone { global, options } = Alone::try_parse_from(words.get(1..)?).ok()?;
    Some(Cli { global, command: command(options) })
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say nothing but errors (alias of --quiet)
    #[arg(long, global = true)]
    pub(crate) silent: bool,
    /// Say nothing but errors (before the command's name alone: behind it, -s may have another meaning)
    #[arg(short = 's', id = "s")]
    pub(crate) short_silent: bool,
    /// Say which way an image is opened, and why
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.silent || self.short_silent
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Convert an image into a SIF file
    Pull(Pull),
    /// Build a SIF file from a definition file or a source
    Build(Build),
    /// Write a SIF file to a registry
    Push(Push),
    /// Run a command in an image
    Exec(Exec),
    /// Run an image's default command
    Run(Run),
    /// Start a shell in an image
    Shell(Shell),
    /// Run an image's tests
    Test(Test),
    /// Show an image's metadata
    Inspect(Box<Inspect>),
    /// Show an image's help text
    RunHelp(RunHelp),
    /// Sign a SIF file with a PGP key
    Sign(Sign),
    /// Verify the signatures of a SIF file
    Verify(Verify),
    /// Manage the PGP keys that sign and verify images
    #[command(subcommand)]
    Key(KeyCommand),
    /// Log in to registries and out of them
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Show what the per-user cache holds, and remove it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Look at the parts of a SIF file, and change them
    #[command(subcommand)]
    Sif(SifCommand),
    /// Show the version
    Version,
    /// Pull an image into the per-user cache and print its path
    #[command(hide = true)]
    CacheImage(CacheImage),
}

#[derive(Args, Debug)]
pub(crate) struct Push {
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// The SIF file
    #[arg(value_name = "FILE.sif")]
    pub(crate) file: PathBuf,
    /// Where to: oras://HOST/NAME[:TAG]
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
}

#[derive(Args, Debug)]
pub(crate) struct CacheImage {
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// The source, docker://…
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
}

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// Use plain HTTP to the registry
    #[arg(long, visible_alias = "nohttps")]
    pub(crate) no_https: bool,
    /// Do not verify the registry's certificate
    #[arg(long)]
    pub(crate) tls_insecure_skip_verify: bool,
    /// PEM file of certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registry {
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
    /// User name for the registry; the password comes from APPTAINER_DOCKER_PASSWORD or SINGULARITY_DOCKER_PASSWORD
    #[arg(long, value_name = "NAME")]
    pub(crate) docker_username: Option<String>,
    /// Ask for user name and password on the terminal
    #[arg(long)]
    pub(crate) docker_login: bool,
    /// Look for credentials in this file first
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Platform of the image, OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "arch")]
    pub(crate) platform: Option<String>,
    /// Architecture of the image
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
    /// Variant of the architecture: v6, v7, v8
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    pub(crate) arch_variant: Option<String>,
    /// Blobs to fetch at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) jobs: u8,
    /// Neither read nor fill the cache
    #[arg(long)]
    pub(crate) disable_cache: bool,
    /// SHA-256 that a SIF of https:// or oras:// must have
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Take the image only if the owner of this public key (PEM) has signed it with cosign; of several keys one will do
    #[arg(long, value_name = "FILE")]
    pub(crate) verify_key: Vec<PathBuf>,
    /// Directory for temporary files: compressed archives are unpacked there
    #[arg(long, value_name = "DIR")]
    pub(crate) tmpdir: Option<PathBuf>,
}

impl Registry {
    /// The options that parse to the same value.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let Self {
            tls: TlsOptions { no_https, tls_insecure_skip_verify, tls_ca_file },
            docker_username,
            docker_login,
            authfile,
            platform,
            arch,
            arch_variant,
            jobs,
            disable_cache,
            tmpdir,
            sha256,
            verify_key,
        } = self;
        let mut arguments: Vec<OsString> = vec!["--jobs".into(), jobs.to_string().into()];
        let flags = [
            ("--no-https", no_https),
            ("--tls-insecure-skip-verify", tls_insecure_skip_verify),
            ("--disable-cache", disable_cache),
            ("--docker-login", docker_login),
        ];
        arguments.extend(flags.iter().filter(|(_, set)| **set).map(|(flag, _)| flag.into()));
        let values = [
            ("--tls-ca-file", tls_ca_file.as_ref().map(OsString::from)),
            ("--docker-username", docker_username.as_ref().map(OsString::from)),
            ("--authfile", authfile.as_ref().map(OsString::from)),
            ("--platform", platform.as_ref().map(OsString::from)),
            ("--arch", arch.as_ref().map(OsString::from)),
            ("--arch-variant", arch_variant.as_ref().map(OsString::from)),
            ("--tmpdir", tmpdir.as_ref().map(OsString::from)),
            ("--sha256", sha256.as_ref().map(OsString::from)),
        ];
        for (option, value) in values {
            arguments.extend(value.map(|value| [OsString::from(option), value]).into_iter().flatten());
        }
        arguments.extend(verify_key.iter().flat_map(|file| ["--verify-key".into(), file.into()]));
        arguments
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Format {
    /// Compression of the squashfs blocks: zstd, gzip, lz4 or xz, with :LEVEL if wanted, or none
    #[arg(long, value_name = "CODEC[:LEVEL]", default_value = "zstd:3")]
    pub(crate) compression: String,
    /// Squashfs block size in KiB: 64, 128, 256, 512 or 1024
    #[arg(long, value_name = "KIB", default_value_t = 256)]
    pub(crate) block_size: u32,
    /// The options -comp, -Xcompression-level and -b of mksquashfs, for Apptainer's sake
    #[arg(long, value_name = "ARGS", conflicts_with_all = ["compression", "block_size"], allow_hyphen_values = true)]
    pub(crate) mksquashfs_args: Option<String>,
    /// Overwrite an existing file
    #[arg(short = 'F', long)]
    pub(crate) force: bool,
    /// Taken for Apptainer's sake: a build has no temporary tree that could be kept when it fails
    #[arg(long)]
    pub(crate) no_cleanup: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Write the image into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    pub(crate) dir: Option<PathBuf>,
    /// Name of the SIF file
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) name: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) registry: Registry,
    /// [OUTPUT.sif] SOURCE
    #[arg(required = true, num_args = 1..=2, value_name = "[OUTPUT] SOURCE")]
    pub(crate) arguments: Vec<String>,
}

/// How the container differs from the defaults.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Container {
    /// Bind a path of the host: SRC[:DEST[:ro|rw]][,…]
    #[arg(short = 'B', long, value_name = "SPEC")]
    pub(crate) bind: Vec<OsString>,
    /// Use this app of the image
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Start with an empty environment
    #[arg(short = 'e', long)]
    pub(crate) cleanenv: bool,
    /// Set variables in the container: NAME=VALUE[,…]
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Set variables from a file of NAME=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Use a minimal /dev and empty /tmp and $HOME instead of the host's
    #[arg(short, long)]
    pub(crate) contain: bool,
    /// --contain, --cleanenv and new PID and IPC namespaces
    #[arg(short = 'C', long)]
    pub(crate) containall: bool,
    /// A home directory: SRC[:DEST]
    #[arg(short = 'H', long, value_name = "SPEC")]
    pub(crate) home: Option<OsString>,
    /// Do not mount the home directory
    #[arg(long, conflicts_with = "home")]
    pub(crate) no_home: bool,
    /// Leave out a default mount: proc, sys, dev, devpts, home, tmp, cwd, bind-paths or a path
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) no_mount: Vec<String>,
    /// Working directory in the container
    #[arg(long, visible_alias = "pwd", value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Run in a new PID namespace
    #[arg(short, long)]
    pub(crate) pid: bool,
    /// Run in a new IPC namespace
    #[arg(short, long)]
    pub(crate) ipc: bool,
    /// Run in a new network namespace with only a loopback
    #[arg(short, long)]
    pub(crate) net: bool,
    /// Run in a new UTS namespace
    #[arg(long)]
    pub(crate) uts: bool,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Run in a user namespace (always so for ordinary users)
    #[arg(short, long)]
    pub(crate) userns: bool,
    /// Be root in the container, in a user namespace; without subordinate ids changes of owners and identities are feigned
    #[arg(short, long)]
    pub(crate) fakeroot: bool,
    /// Write into the image itself, which is a directory then
    #[arg(short, long, conflicts_with_all = ["writable_tmpfs", "overlay"])]
    pub(crate) writable: bool,
    /// Keep what is written in this directory, or show with :ro what it keeps
    #[arg(short, long, value_name = "DIR[:ro]", conflicts_with = "writable_tmpfs")]
    pub(crate) overlay: Option<OsString>,
    /// Make the root writable, in memory; what is written is lost at the end
    #[arg(long)]
    pub(crate) writable_tmpfs: bool,
    /// Directory for /tmp, /var/tmp and $HOME of --contain
    #[arg(short = 'W', long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// An empty directory at this path in the container
    #[arg(short = 'S', long, value_name = "PATH")]
    pub(crate) scratch: Vec<PathBuf>,
    /// Do not evaluate arguments and ENV in a shell, as OCI runtimes do
    #[arg(long)]
    pub(crate) no_eval: bool,
    /// Print the plan as JSON and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) registry: Registry,
}

/// The image is the first of the words and not an argument of its own: clap would take options that follow it for ours,
/// up to the first word that is none (`shell IMAGE -c …`).
#[derive(Args, Debug)]
#[command(override_usage = "siforge exec [OPTIONS] IMAGE COMMAND...")]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) container: Container,
    /// The image, the command and its arguments
    #[arg(
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["IMAGE", "COMMAND"]
    )]
    pub(crate) words: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(override_usage = "siforge run [OPTIONS] IMAGE [ARGUMENTS]...")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) container: Container,
    /// The image and arguments for its command
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "IMAGE [ARGUMENTS]"
    )]
    pub(crate) words: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(override_usage = "siforge test [OPTIONS] IMAGE [ARGUMENTS]...")]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) container: Container,
    /// The image and arguments for its test script
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "IMAGE [ARGUMENTS]"
    )]
    pub(crate) words: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(override_usage = "siforge shell [OPTIONS] IMAGE [ARGUMENTS]...")]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(crate) container: Container,
    /// The shell to start
    #[arg(long, value_name = "PATH")]
    pub(crate) shell: Option<OsString>,
    /// The image and arguments for the shell
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "IMAGE [ARGUMENTS]"
    )]
    pub(crate) words: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_subcommand_alone_is_parsed_as_among_the_others() {
        let check = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let (alone, among) = (Cli::parse_words(&words), Cli::try_parse_from(&words));
            match (alone, among) {
                (Ok(alone), Ok(among)) => assert_eq!(format!("{alone:?}"), format!("{among:?}")),
                (Err(alone), Err(among)) => assert_eq!(alone.to_string(), among.to_string()),
                (alone, among) => panic!("{words:?}: {alone:?}, {among:?}"),
            }
        };
        check(&["siforge", "exec", "-q", "-B", "/a", "--pid", "x.sif", "ls", "-l", "-q"]);
        check(&["siforge", "exec", "x.sif"]);
        check(&["siforge", "exec", "--no-such-option", "x.sif", "ls"]);
        check(&["siforge", "run", "-vv", "--no-https", "docker://x", "--", "-a"]);
        check(&["siforge", "run"]);
        check(&["siforge", "run", "--help"]);
        check(&["siforge", "shell", "--shell", "/bin/zsh", "-C", "x.sif"]);
        check(&["siforge", "-q", "shell", "x.sif"]);
        check(&["siforge", "exec", "-h"]);
    }

    #[test]
    fn registry_options_survive_a_second_parse() {
        let parse = |arguments: &[OsString]| {
            let start = ["siforge", "cache-image"].map(OsString::from);
            let end = ["--", "docker://x"].map(OsString::from);
            let all = start.iter().chain(arguments).chain(&end);
            match Cli::parse_from(all).command {
                Command::CacheImage(options) => options.registry,
                other => panic!("{other:?}"),
            }
        };
        let all = [
            "--no-https",
            "--tls-insecure-skip-verify",
            "--disable-cache",
            "--tls-ca-file=/ca",
            "--docker-username=u",
            "--docker-login",
            "--authfile=/auth.json",
            "--platform=linux/arm64",
            "--jobs=7",
            "--tmpdir=/scratch",
            "--sha256=00",
            "--verify-key=/a.pub",
            "--verify-key=/b.pub",
        ];
        for given in [&all[..], &["--arch=arm", "--arch-variant=v7"], &[]] {
            let first = parse(&given.iter().map(OsString::from).collect::<Vec<_>>());
            assert_eq!(parse(&first.to_arguments()), first);
        }
    }

    #[test]
    fn options_behind_the_image_belong_to_the_command() {
        let check = |line: &str, ours: &[&str], words: &[&str]| {
            let cli = Cli::parse_from(line.split(' '));
            let (container, given) = match cli.command {
                Command::Exec(exec) => (exec.container, exec.words),
                Command::Run(run) => (run.container, run.words),
                Command::Shell(shell) => (shell.container, shell.words),
                other => panic!("{other:?}"),
            };
            assert_eq!(given, words, "{line}");
            assert_eq!(container.bind, ours, "{line}");
            assert!(!container.contain && !container.cleanenv, "{line}");
            assert_eq!(cli.global.quiet, line.contains("siforge -q"), "{line}");
        };
        check("siforge -q exec -B /a:/b x.sif ls -l --env -q", &["/a:/b"], &["x.sif", "ls", "-l", "--env", "-q"]);
        for command in ["run", "shell"] {
            check(
                &format!("siforge {command} x.sif -c -e -q --bind y"),
                &[],
                &["x.sif", "-c", "-e", "-q", "--bind", "y"],
            );
            check(&format!("siforge {command} -B /a x.sif"), &["/a"], &["x.sif"]);
        }
        check("siforge exec x.sif -x", &[], &["x.sif", "-x"]);
        check("siforge exec -- x.sif y", &[], &["x.sif", "y"]);
    }
}
