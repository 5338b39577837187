//! `siforge`: pull, inspect and run images. See `docs/`.

mod build;
mod cache;
mod cli;
mod config;
mod definition;
mod error;
mod files;
mod fuse;
mod inspect;
mod key;
mod keyring;
mod launch;
mod mksquashfs;
mod partition;
mod prompt;
mod pull;
mod registry;
mod root;
mod sandbox;
mod sif_source;
mod siftool;
mod sign;
mod signed;
mod source;
mod terminal;
mod turn;
mod unpacked;
mod verified;
mod verify;

use cli::{Cli, Command};
use config::Config;
use std::process::ExitCode;

/// As Apptainer: whatever goes wrong before the command runs. The command's own code passes through.
const FAILURE: u8 = 255;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::parse_words(&words) {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return if wrong { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        // A command's code, when it ran under an init of ours; the kernel keeps the low 8 bits too.
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            report(&error);
            ExitCode::from(FAILURE)
        }
    }
}

/// The one place where errors are shown.
fn report(error: &error::Error) {
    eprintln!("siforge: error: {}", siforge_build::chain(error));
}

fn run(cli: &Cli) -> Result<i32, error::Error> {
    let config = Config::from_process(|| {
        nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten().map(|user| user.dir)
    });
    let global = &cli.global;
    match &cli.command {
        Command::Pull(options) => pull::pull(global, &config, options)?,
        Command::Build(options) => return build::build(global, &config, options),
        Command::Push(options) => pull::push(global, &config, options)?,
        Command::CacheImage(options) => pull::cache_image(global, &config, options)?,
        Command::Inspect(options) => inspect::inspect(global, &config, options)?,
        Command::RunHelp(options) => inspect::run_help(global, &config, options)?,
        Command::Sign(options) => sign::sign(global, &config, options)?,
        Command::Verify(options) => return verify::verify(global, &config, options),
        Command::Key(command) => key::run(global, &config, command)?,
        Command::Cache(command) => cache::run(&config, command)?,
        Command::Registry(command) => registry::run(global, &config, command)?,
        Command::Sif(command) => siftool::run(&config, command)?,
        Command::Version => println!("siforge version {}", env!("CARGO_PKG_VERSION")),
        Command::Exec(options) => return launch::exec(global, &config, options),
        Command::Run(options) => return launch::run(global, &config, options),
        Command::Test(options) => return launch::test(global, &config, options),
        Command::Shell(options) => return launch::shell(global, &config, options),
    }
    Ok(0)
}
