//! Why a launch failed: operation, path, errno, and what to do about it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A launch failed. Exit codes are the caller's business; Apptainer's is 255 for all of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path failed.
    #[error("{operation} {}: {source}{}", path.display(), in_parentheses(.hint))]
    Path {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
        /// What to do, if that is known.
        hint: Option<&'static str>,
    },
    /// A system call without a path failed.
    #[error("{operation}: {source}{}", in_parentheses(.hint))]
    Call {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: io::Error,
        /// What to do, if that is known.
        hint: Option<&'static str>,
    },
    /// The program is nowhere in PATH inside the container. Worded as Apptainer does: workflow tools look for it.
    #[error("{:?}: executable file not found in $PATH", .0)]
    NotFound(OsString),
    /// Only a directory can be written.
    #[error(
        "launch: a read-only image cannot be written: build a sandbox of it (build --sandbox), or use --writable-tmpfs"
    )]
    NotWritable,
    /// A mount point is missing in a root that is written.
    #[error("mount on {}: no such file or directory in the root: make it there first", .0.display())]
    NoMountPoint(PathBuf),
    /// There is no command.
    #[error("launch: no command given")]
    NoCommand,
    /// An argument or variable holds a NUL byte.
    #[error("{what} {value:?} holds a NUL byte")]
    Nul {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: OsString,
    },
    /// The mount points are missing in the image and an overlay that adds them cannot be had.
    #[error("add mount point {} to the image by an overlay: {source}{}", target.display(), in_parentheses(.hint))]
    Overlay {
        /// The first that is missing.
        target: PathBuf,
        /// Why there is no overlay.
        source: io::Error,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// The peer passed a user namespace that is not its own.
    #[error("map groups of process {pid}: {reason}")]
    ForeignNamespace {
        /// The peer.
        pid: u32,
        /// What does not fit.
        reason: &'static str,
    },
    /// No loop device became free.
    #[error("attach {}: no free loop device after {attempts} attempts{}", path.display(), in_parentheses(.hint))]
    NoLoopDevice {
        /// The image.
        path: PathBuf,
        /// How often one was tried.
        attempts: u32,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// Set-up failed in the container's init; the text is that error's.
    #[error("{0}")]
    InChild(String),
    /// A file of the image that is read is longer than the limit.
    #[error("read {} of the image: longer than {limit} bytes", path.display())]
    TooLong {
        /// Inside.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
}

fn in_parentheses(hint: &Option<&'static str>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}

impl Error {
    /// For `map_err` on a call that concerns a path.
    pub(crate) fn path<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        move |e| {
            let source = e.into();
            Error::Path { operation, path: path.to_path_buf(), hint: missing(&source), source }
        }
    }

    /// For `map_err` on any other call.
    pub(crate) fn call<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
        move |e| {
            let source = e.into();
            Error::Call { operation, hint: missing(&source), source }
        }
    }

    /// The errno, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Path { source, .. } | Error::Call { source, .. } | Error::Overlay { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

/// The hint for errors that mean the same whatever the call was.
fn missing(source: &io::Error) -> Option<&'static str> {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => Some("this kernel lacks the new mount API: Linux 5.12 or later is needed"),
        _ => None,
    }
}
