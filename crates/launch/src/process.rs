//! The process itself: finding and executing the command, and the two processes that stay for a pid namespace.
//!
//! ```text
//!  caller's child ── forwards signals, takes the exit code
//!   └ appinit      ── pid 1: sets up, reaps, forwards signals; dies with its parent
//!      └ command
//! ```
//! The name `appinit` is the reference's: Open OnDemand and others look for it.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::syscall::{BlockedSignals, Forked, StringArray};
use crate::{Error, Plan, syscall};

/// PATH where the environment has none: the reference's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Exit code of a process of ours that failed before the command ran; its parent replaces it by the error.
const FAILED: i32 = 255;

/// Longest error text taken from the init.
pub(crate) const TEXT_LIMIT: u64 = 64 * 1024;

/// Becomes the command; returns only on failure.
pub(crate) fn execute(plan: &Plan) -> Result<Infallible, Error> {
    let argv = strings("argument", plan.argv.iter().cloned())?;
    let variables = plan.env.iter().map(|(name, value)| {
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        variable
    });
    let env = strings("environment variable", variables)?;
    let Some(program) = plan.argv.first() else {
        return Err(Error::NoCommand);
    };
    syscall::default_sigpipe();
    if program.as_bytes().contains(&b'/') {
        let path = nul_free("program", program.clone())?;
        let source = execute_file(&path, &argv, &env);
        return Err(Error::path("execute", Path::new(program))(source));
    }
    let path = plan.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let mut refused = None;
    for directory in path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|b| *b == b':') {
        let directory = if directory.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(directory)) };
        let file = directory.join(program);
        let source = execute_file(&nul_free("program", file.clone().into_os_string())?, &argv, &env);
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP) => {}
            // As execvp(3): go on, but say so if nothing better comes.
            Some(libc::EACCES) => {
                refused.get_or_insert((file, source));
            }
            _ => return Err(Error::path("execute", &file)(source)),
        }
    }
    Err(match refused {
        Some((file, source)) if !program.is_empty() => Error::path("execute", &file)(source),
        _ => Error::NotFound(program.clone()),
    })
}

/// execve(2); a file without a magic is a shell script, as for execvp(3).
fn execute_file(path: &CString, argv: &StringArray, env: &StringArray) -> std::io::Error {
    let source = syscall::execve(path, argv, env);
    if source.raw_os_error() != Some(libc::ENOEXEC) {
        return source;
    }
    let shell = [c"/bin/sh".to_owned(), path.clone()];
    let script = shell.into_iter().chain(argv.strings().iter().skip(1).cloned()).collect();
    syscall::execve(c"/bin/sh", &StringArray::new(script), env)
}

fn strings(what: &'static str, words: impl Iterator<Item = OsString>) -> Result<StringArray, Error> {
    words.map(|word| nul_free(what, word)).collect::<Result<Vec<_>, _>>().map(StringArray::new)
}

fn nul_free(what: &'static str, word: OsString) -> Result<CString, Error> {
    CString::new(word.into_vec()).map_err(|e| Error::Nul { what, value: OsString::from_vec(e.into_vec()) })
}

/// Runs `set_up` as the init of the pid namespace that was just unshared and `run` as its only child. Result: the
/// command's exit code, or the error of either.
pub(crate) fn with_init(
    set_up: impl FnOnce() -> Result<(), Error>,
    run: impl FnOnce() -> Result<Infallible, Error>,
) -> Result<i32, Error> {
    let signals = BlockedSignals::block();
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::call("make a pipe"))?;
    let init = match syscall::fork().map_err(Error::call("start the container's init"))? {
        Forked::Parent(init) => init,
        Forked::Child => {
            drop(reader);
            run_init(&signals, writer, set_up, run)
        }
    };
    drop(writer);
    let code = wait_for(&signals, init, init);
    signals.restore();
    let mut text = String::new();
    // The init is gone and the command has closed its end by exec, or is gone too: this does not block.
    File::from(reader).take(TEXT_LIMIT).read_to_string(&mut text).map_err(Error::call("read the init's error"))?;
    if text.is_empty() { Ok(code) } else { Err(Error::InChild(text)) }
}

fn run_init(
    signals: &BlockedSignals,
    writer: OwnedFd,
    set_up: impl FnOnce() -> Result<(), Error>,
    run: impl FnOnce() -> Result<Infallible, Error>,
) -> ! {
    // Best effort: the name is for people, and a kernel that refuses the death signal still works.
    let _ = rustix::thread::set_name(c"appinit");
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let started = set_up().and_then(|()| syscall::fork().map_err(Error::call("start the command")));
    let command = match started {
        Ok(Forked::Parent(command)) => command,
        Ok(Forked::Child) => {
            signals.restore();
            match run() {
                Err(error) => fail(writer, &error),
            }
        }
        Err(error) => fail(writer, &error),
    };
    drop(writer);
    syscall::exit_now(wait_for(signals, command, -1))
}

/// Hands the error to the caller's child. Its failure would be reported through the same pipe.
pub(crate) fn fail(writer: OwnedFd, error: &Error) -> ! {
    let _ = File::from(writer).write_all(error.to_string().as_bytes());
    syscall::exit_now(FAILED)
}

/// Waits for `child`, forwards signals to it, and reaps whatever `reapable` (a pid, or -1 for any) covers.
fn wait_for(signals: &BlockedSignals, child: i32, reapable: i32) -> i32 {
    loop {
        let received = signals.wait();
        if received.signal == libc::SIGCHLD {
            // One SIGCHLD may stand for several children.
            while let Some(ended) = syscall::reap(reapable) {
                if ended.pid == child {
                    return ended.code;
                }
            }
        } else if received.from_process {
            syscall::kill(child, received.signal);
        }
    }
}
