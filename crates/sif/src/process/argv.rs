//! What is executed. Pure.

use super::caller::Caller;
use super::{Error, ImageFacts, Mode, RunConfig};
use std::ffi::{OsStr, OsString};

pub(super) fn native(
    config: &RunConfig,
    mode: Mode,
    args: &[OsString],
    caller: &Caller,
    image: &ImageFacts,
) -> Result<Vec<OsString>, Error> {
    match mode {
        Mode::Exec if args.is_empty() => Err(Error::NoCommand),
        Mode::Exec => Ok(args.to_vec()),
        Mode::Run => run(config, args, caller.no_eval, image),
        Mode::Shell => shell(args, caller, image),
        // A test is a script, and needs one that runs it.
        Mode::Test => Err(Error::NoShell),
    }
}

/// ENTRYPOINT + (arguments, else CMD). Arguments that a shell would change are left to the image's runscript, if there is a shell.
fn run(config: &RunConfig, args: &[OsString], no_eval: bool, image: &ImageFacts) -> Result<Vec<OsString>, Error> {
    if !no_eval && image.sh && args.iter().any(|arg| a_shell_changes(arg)) {
        return Ok(std::iter::once("/.singularity.d/runscript".into()).chain(args.iter().cloned()).collect());
    }
    let mut argv: Vec<OsString> = config.entrypoint.iter().map(OsString::from).collect();
    if args.is_empty() {
        argv.extend(config.cmd.iter().map(OsString::from));
    } else {
        argv.extend(args.iter().cloned());
    }
    if argv.is_empty() { Err(Error::NothingToRun) } else { Ok(argv) }
}

/// Within double quotes only these mean something; the runscript keeps double quotes themselves.
fn a_shell_changes(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().iter().any(|byte| b"$`\\".contains(byte))
}

fn shell(args: &[OsString], caller: &Caller, image: &ImageFacts) -> Result<Vec<OsString>, Error> {
    let mut argv: Vec<OsString> = match &caller.shell {
        Some(shell) => vec![shell.clone()],
        None if image.bash => vec!["/bin/bash".into(), "--norc".into()],
        None if image.sh => vec!["/bin/sh".into()],
        None => return Err(Error::NoShell),
    };
    argv.extend(args.iter().cloned());
    Ok(argv)
}
