//! `siforge-runtime`: an OCI runtime that gives containers an image of the store as their root and leaves the rest to runc or crun.
//!
//! ```text
//!   containerd-shim ─▶ siforge-runtime create --bundle B ID
//!                        B/rootfs/.siforge-image ? ── no ──────────────────────────────────────┐
//!                          │ yes: whose root it is to be                                       │
//!                        B/config.json: the pod's namespace ─▶ agent: may it? ─▶ mount         │
//!                        B/rootfs: overlay(image, the snapshot's own upper layer)              │
//!                          └───────────────────────────────────────────────────────────────────┴─▶ exec runc, same words
//!   every other command ──────────────────────────────────────────────────────────────────────────▶ exec runc, same words
//! ```
//!
//! The agent is asked at `create` alone: containers that run need it no more. What goes wrong is told as runc tells it, in the log
//! file that `--log` names and on stderr, with exit code 1.

mod arguments;
mod bundle;
mod config;
mod create;
mod log;
mod snapshot;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

use arguments::Invocation;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let invocation = Invocation::parse(words.get(1..).unwrap_or_default());
    // Returns only if something went wrong.
    let error = run(&invocation, words);
    log::report(&invocation, &error);
    ExitCode::FAILURE
}

fn run(invocation: &Invocation, words: Vec<OsString>) -> String {
    let settings = match config::load() {
        Ok(settings) => settings,
        Err(error) => return log::chain(&error),
    };
    if let Some(bundle) = &invocation.creates
        && let Err(error) = create::prepare(bundle, &settings)
    {
        return log::chain(&error);
    }
    become_runtime(&settings.runtime, words)
}

/// Executes the runtime with the words that this program was called by; why it could not.
fn become_runtime(runtime: &Path, words: Vec<OsString>) -> String {
    // Words of this process never hold a NUL byte.
    let c_string = |word: &[u8]| CString::new(word).unwrap_or_default();
    let path = c_string(runtime.as_os_str().as_bytes());
    let rest = words.into_iter().skip(1).map(|word| c_string(&word.into_vec()));
    let words: Vec<CString> = std::iter::once(path.clone()).chain(rest).collect();
    match nix::unistd::execv(&path, &words) {
        Err(errno) => format!("execute {}: {}", runtime.display(), std::io::Error::from(errno)),
        Ok(never) => match never {},
    }
}
