//! Slurm's hooks. An image must never cost a node: slurmd drains a node whose Prolog or Epilog exits non-zero, so these two exit 0
//! whatever happens (bad environment, agent down or hanging, a panic); the job itself fails later, in its step, with the reason.
//!
//! ```text
//! slurm.conf:  Prolog=/usr/libexec/siforge/prolog    #!/bin/sh + exec /usr/bin/siforge-agent slurm prolog
//!              Epilog=…                              exec /usr/bin/siforge-agent slurm epilog
//!              HealthCheckProgram=…                  exec /usr/bin/siforge-agent slurm check
//! ```
//!
//! The image of a job, the first that is there (prolog_epilog in Slurm's documentation lists the variables):
//! `SPANK_SIF_IMAGE` (set by our plugin when --sif is given at allocation), `sif=…` in `SLURM_JOB_COMMENT`, `sif=…` in
//! `SLURM_JOB_EXTRA` (Slurm ≥ 23.11). The prolog is an accelerator: steps warm and lease on demand too, and a lost epilog costs
//! nothing, since leases end by themselves.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use siforge_agent_api::{Client, Limits, StatusReply, WarmRequest};

/// The environment that slurmd gives to its programs: name → value.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// How long a job's start waits for its image; the warm goes on by itself beyond it.
const WARM_BUDGET: Duration = Duration::from_secs(10);
/// What connecting and answering may take on top, before the hook gives up on the agent.
const GRACE: Duration = Duration::from_secs(3);
/// A reference is no longer than a path and a scheme.
const REFERENCE_LIMIT: usize = 4096 + 64;

/// Which hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before a job's first step on this node.
    Prolog,
    /// After its last.
    Epilog,
}

/// What a hook has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Mount this image and lease it.
    Warm { reference: String, lease: String },
    /// Drop this lease.
    Release { lease: String },
    /// Nothing, for this reason.
    Nothing(&'static str),
}

/// The name of a job's lease: the plugin's steps use the same, so that the epilog ends them all.
pub fn lease_name(job: u32) -> String {
    format!("slurm-{job}")
}

/// Decides from the environment alone.
pub fn task(hook: Hook, environment: Environment<'_>) -> Task {
    let text = |name: &str| environment(name).and_then(|value| value.into_string().ok());
    let Some(job) = text("SLURM_JOB_ID").and_then(|id| id.parse::<u32>().ok()) else {
        return Task::Nothing("SLURM_JOB_ID is not a job id");
    };
    let lease = lease_name(job);
    match hook {
        // The epilog does not look at the image: a step may have taken the lease where the prolog saw none.
        Hook::Epilog => Task::Release { lease },
        Hook::Prolog => {
            let named = text("SPANK_SIF_IMAGE")
                .filter(|image| !image.is_empty())
                .or_else(|| text("SLURM_JOB_COMMENT").as_deref().and_then(image_in))
                .or_else(|| text("SLURM_JOB_EXTRA").as_deref().and_then(image_in));
            match named {
                None => Task::Nothing("the job names no image"),
                Some(image) if image == "none" => Task::Nothing("the job names no image"),
                Some(image) if image.len() > REFERENCE_LIMIT => Task::Nothing("the image's name is too long"),
                Some(reference) => Task::Warm { reference, lease },
            }
        }
    }
}

/// `sif=REF` among words that spaces, commas or semicolons divide.
fn image_in(comment: &str) -> Option<String> {
    comment
        .split([' ', '\t', '\n', ',', ';'])
        .find_map(|word| word.strip_prefix("sif="))
        .map(|image| image.trim_matches(['"', '\'']).to_owned())
        .filter(|image| !image.is_empty())
}

/// Runs a hook; returns when it is done or its time is up, and never fails. What happened goes to stderr, for slurmd's log.
pub fn run(hook: Hook, environment: Environment<'_>, socket: &Path) {
    let task = task(hook, environment);
    let (done, finished) = mpsc::channel();
    let socket = socket.to_owned();
    // A thread of its own: connect(2) on a full backlog has no timeout, and a panic in it ends nothing but the thread.
    let worker = std::thread::Builder::new().name("slurm-hook".to_owned()).spawn(move || {
        let said = carry_out(&task, &socket);
        // The receiver is gone when the time was up: nobody is left to tell.
        let _ = done.send(said);
    });
    let said = match worker {
        Err(error) => format!("start a thread: {error}"),
        Ok(_) => match finished.recv_timeout(WARM_BUDGET + 2 * GRACE) {
            Ok(said) => said,
            Err(mpsc::RecvTimeoutError::Timeout) => "the agent does not answer; going on without it".to_owned(),
            Err(mpsc::RecvTimeoutError::Disconnected) => "it ended unexpectedly; going on without it".to_owned(),
        },
    };
    say(hook, &said);
}

/// One line on stderr; that it can't be written is no reason to fail.
pub fn say(hook: Hook, line: &str) {
    let name = match hook {
        Hook::Prolog => "prolog",
        Hook::Epilog => "epilog",
    };
    let _ = writeln!(std::io::stderr(), "siforge slurm {name}: {line}");
}

fn carry_out(task: &Task, socket: &Path) -> String {
    let outcome = match task {
        Task::Nothing(reason) => return (*reason).to_owned(),
        Task::Warm { reference, lease } => warm(socket, reference, lease),
        Task::Release { lease } => connect(socket, GRACE).and_then(|mut client| {
            client.release(lease)?;
            Ok(format!("released lease {lease}"))
        }),
    };
    outcome.unwrap_or_else(|error| error.to_string())
}

fn warm(socket: &Path, reference: &str, lease: &str) -> Result<String, siforge_agent_api::Error> {
    let budget_ms = u64::try_from(WARM_BUDGET.as_millis()).ok();
    let request = WarmRequest { reference: reference.to_owned(), lease: Some(lease.to_owned()), budget_ms };
    let reply = connect(socket, WARM_BUDGET + GRACE)?.warm(&request)?;
    Ok(match reply.ready {
        true => format!("{reference} is mounted ({}), lease {lease}", reply.digest),
        false => format!("{reference} is still being mounted, lease {lease}"),
    })
}

fn connect(socket: &Path, wait: Duration) -> Result<Client, siforge_agent_api::Error> {
    Client::connect_with(socket, Limits { idle: wait, transfer: GRACE, ..Limits::CLIENT })
}

/// For HealthCheckProgram: the agent's state, or why it does not answer.
pub fn check(socket: &Path) -> Result<StatusReply, siforge_agent_api::Error> {
    connect(socket, GRACE)?.status()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn check(hook: Hook, environment: &[(&str, &str)], expected: &Task) {
        let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        assert_eq!(task(hook, &lookup), *expected, "{environment:?}");
    }

    fn warm_of(reference: &str) -> Task {
        Task::Warm { reference: reference.into(), lease: "slurm-7".into() }
    }

    #[test]
    fn the_first_image_that_is_named_is_warmed() {
        let job = ("SLURM_JOB_ID", "7");
        let cases: &[(&[(&str, &str)], Task)] = &[
            (&[job, ("SPANK_SIF_IMAGE", "lab/a")], warm_of("lab/a")),
            (&[job, ("SPANK_SIF_IMAGE", "lab/a"), ("SLURM_JOB_COMMENT", "sif=lab/b")], warm_of("lab/a")),
            (&[job, ("SPANK_SIF_IMAGE", ""), ("SLURM_JOB_COMMENT", "sif=lab/b")], warm_of("lab/b")),
            (&[job, ("SLURM_JOB_COMMENT", "run 3, sif=\"lab/b\"; x")], warm_of("lab/b")),
            (&[job, ("SLURM_JOB_COMMENT", "mysif=no"), ("SLURM_JOB_EXTRA", "a sif=c")], warm_of("c")),
            (&[job, ("SLURM_JOB_COMMENT", "sif=")], Task::Nothing("the job names no image")),
            (
                &[job, ("SPANK_SIF_IMAGE", "none"), ("SLURM_JOB_COMMENT", "sif=b")],
                Task::Nothing("the job names no image"),
            ),
            (&[job], Task::Nothing("the job names no image")),
            (&[("SPANK_SIF_IMAGE", "a")], Task::Nothing("SLURM_JOB_ID is not a job id")),
            (
                &[("SLURM_JOB_ID", "7; rm -rf /"), ("SPANK_SIF_IMAGE", "a")],
                Task::Nothing("SLURM_JOB_ID is not a job id"),
            ),
        ];
        for (environment, expected) in cases {
            check(Hook::Prolog, environment, expected);
        }
        let long = "x".repeat(REFERENCE_LIMIT + 1);
        check(Hook::Prolog, &[job, ("SPANK_SIF_IMAGE", &long)], &Task::Nothing("the image's name is too long"));
    }

    #[test]
    fn the_epilog_releases_whatever_was_named() {
        check(Hook::Epilog, &[("SLURM_JOB_ID", "7")], &Task::Release { lease: "slurm-7".into() });
        check(Hook::Epilog, &[], &Task::Nothing("SLURM_JOB_ID is not a job id"));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_image() {
        let lookup = |name: &str| match name {
            "SLURM_JOB_ID" => Some("7".into()),
            _ => Some(OsString::from_vec(vec![0xff, 0xfe])),
        };
        assert_eq!(task(Hook::Prolog, &lookup), Task::Nothing("the job names no image"));
    }
}
