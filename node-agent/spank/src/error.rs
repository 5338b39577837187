//! What can go wrong, and the exit code that says it to scripts.
//!
//! The codes are those of sysexits.h, so that `RequeueExit=75` in slurm.conf repeats what may pass by itself, and nothing else.

use std::ffi::OsString;
use std::io;

use siforge_agent_api::Refusal;
use siforge_launch::plan::PlanError;

/// A step that can't run in its image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--sif={}: not an image of the store: give NAMESPACE/NAME[@DIGEST] or none (a .sif file starts by: siforge exec)", value.display())]
    Image { value: OsString },
    #[error("argument {word:?} in plugstack.conf: know socket=/PATH, namespace=NAME and bind=SRC[:DEST[:ro]]")]
    Argument { word: String },
    #[error(transparent)]
    Bind(#[from] siforge_launch::BindError),
    #[error("--sif={image}: {source}")]
    Agent { image: String, source: siforge_agent_api::Error },
    #[error("--sif={image}: {source}")]
    Look { image: String, source: siforge_sif::observe::Error },
    #[error("--sif={image}: {source}")]
    Plan { image: String, source: PlanError },
    #[error("--sif={image}: {source}")]
    Launch { image: String, source: siforge_launch::Error },
    #[error("{operation}: {source}")]
    Call { operation: &'static str, source: io::Error },
    #[error("the step's first task on this node did not enter the image within {seconds} s")]
    FirstTaskLate { seconds: u64 },
    /// The first task has said why.
    #[error("the step's first task on this node failed")]
    FirstTaskFailed { code: u8 },
    #[error("the image's environment scripts failed: {reason}")]
    Scripts { reason: String },
    #[error("slurm gives no {what} ({code})")]
    Slurm { what: &'static str, code: i32 },
    #[error("the plugin panicked: this is a defect of siforge")]
    Panicked,
}

/// EX_USAGE: the command line is wrong.
const USAGE: u8 = 64;
/// EX_DATAERR: the image is damaged.
const DATA: u8 = 65;
/// EX_NOINPUT: there is no such image.
const NO_INPUT: u8 = 66;
/// EX_SOFTWARE: a defect.
const SOFTWARE: u8 = 70;
/// EX_OSERR: the node can't do it.
const OS: u8 = 71;
/// EX_TEMPFAIL: it may work later, or elsewhere.
const TEMPORARY: u8 = 75;
/// EX_NOPERM: the user may not have the image.
const PERMISSION: u8 = 77;
/// EX_CONFIG: plugstack.conf is wrong.
const CONFIG: u8 = 78;

impl Error {
    /// The exit code of a task that ends for this reason.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Image { .. } | Self::Bind(_) | Self::Plan { .. } => USAGE,
            Self::Argument { .. } => CONFIG,
            Self::Agent { source, .. } => agent(source),
            Self::Look { .. } | Self::Scripts { .. } => DATA,
            Self::Launch { .. } | Self::Call { .. } | Self::Slurm { .. } => OS,
            Self::FirstTaskLate { .. } => TEMPORARY,
            Self::FirstTaskFailed { code } => *code,
            Self::Panicked => SOFTWARE,
        }
    }

    /// Whether to print it: once for each node.
    pub(crate) fn is_said_elsewhere(&self) -> bool {
        matches!(self, Self::FirstTaskFailed { .. })
    }
}

fn agent(error: &siforge_agent_api::Error) -> u8 {
    match error {
        siforge_agent_api::Error::Refused(refusal) => match refusal {
            Refusal::NotFound { .. } => NO_INPUT,
            Refusal::NotAllowed { .. } => PERMISSION,
            Refusal::NotReady { .. } | Refusal::Busy { .. } => TEMPORARY,
            Refusal::Damaged { .. } => DATA,
            Refusal::InvalidReference { .. } => USAGE,
            Refusal::Internal { .. }
            | Refusal::InterfaceNotFound { .. }
            | Refusal::MethodNotFound { .. }
            | Refusal::InvalidParameter { .. } => OS,
        },
        // Not there, or not answering.
        _ => TEMPORARY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let agent = |source: siforge_agent_api::Error| Error::Agent { image: "sif://lab/x".into(), source };
        let refused = |refusal: Refusal| agent(siforge_agent_api::Error::Refused(refusal));
        let message = || String::from("why");
        let check = |error: Error, code: u8| assert_eq!(error.exit_code(), code, "{error}");
        check(Error::Image { value: "x".into() }, 64);
        check(Error::Argument { word: "x".into() }, 78);
        check(refused(Refusal::NotFound { message: message(), nearest: None }), 66);
        check(refused(Refusal::NotAllowed { message: message() }), 77);
        check(refused(Refusal::NotReady { message: message() }), 75);
        check(refused(Refusal::Busy { message: message() }), 75);
        check(refused(Refusal::Damaged { message: message() }), 65);
        check(refused(Refusal::Internal { message: message() }), 71);
        check(agent(siforge_agent_api::Error::Closed), 75);
        check(Error::FirstTaskFailed { code: 66 }, 66);
        check(Error::Panicked, 70);
    }
}
