//! Where a root file system is made: a process with mounts of its own, all of which go when it ends, by whatever end.
//!
//! ```text
//!  caller ── waits; SIGINT, SIGTERM, SIGHUP, SIGQUIT: kills
//!   └ worker      ── pid 1 of a new pid namespace, a new mount namespace: with it ends every process that it started
//!        mounts   lower + upper ─ overlay ─▶ a directory that only it and its children see
//! ```
//! A worker that is the first of its pid namespace cannot leave anything behind: the kernel kills what it started, and
//! takes its mounts down with the last of them. Files are the caller's to remove, after the worker has ended.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::wait::WaitStatus;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags};

use crate::mounts::{OVERLAY_FLAGS, OVERLAY_OPTIONS, descriptor_path, new_file_system, overlay_error};
use crate::syscall::{BlockedSignals, Forked};
use crate::userns::DENIED;
use crate::{Error, Plan, RootFs, process, syscall};

/// Signals by which a user or a batch system ends a command.
const END: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Runs `work` in a worker and returns its exit code: what `work` returns, or 128+n after signal n. The calling process
/// must have one thread, and CAP_SYS_ADMIN in its user namespace.
pub fn in_workshop(work: impl FnOnce() -> i32) -> Result<i32, Error> {
    let signals = BlockedSignals::block();
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| Error::Call {
        operation: "make a pid namespace for a build",
        source: errno.into(),
        hint: (errno == nix::Error::EPERM).then_some(DENIED),
    })?;
    let worker = match syscall::fork().map_err(Error::call("start the build's worker"))? {
        Forked::Parent(worker) => worker,
        Forked::Child => {
            // Where the kernel refuses it, the pid namespace alone still ends with the worker.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            signals.restore();
            let code = private_mounts().map_or_else(
                |error| {
                    eprintln!("siforge: error: {error}");
                    FAILED
                },
                |()| work(),
            );
            syscall::exit_now(code)
        }
    };
    let (code, ended_by) = wait_for(&signals, worker, |_| libc::SIGKILL);
    signals.restore();
    Ok(ended_by.map_or(code, |signal| 128 + signal))
}

/// Runs `work` in a child, whose namespaces are not this process's afterwards, and returns its exit code. A request to end
/// is for the child, which cleans up. The calling process must have one thread.
pub fn in_child(work: impl FnOnce() -> i32) -> Result<i32, Error> {
    let signals = BlockedSignals::block();
    let child = match syscall::fork().map_err(Error::call("start a build"))? {
        Forked::Parent(child) => child,
        Forked::Child => {
            signals.restore();
            syscall::exit_now(work())
        }
    };
    let (code, _) = wait_for(&signals, child, |signal| signal);
    signals.restore();
    Ok(code)
}

/// The exit code of `child`, which is sent what `pass` makes of a request to end; and the first such request.
fn wait_for(signals: &BlockedSignals, child: i32, pass: impl Fn(i32) -> i32) -> (i32, Option<i32>) {
    let mut ended_by = None;
    loop {
        let received = signals.wait();
        if received.signal == libc::SIGCHLD {
            if let Some(ended) = syscall::reap(child) {
                return (ended.code, ended_by);
            }
        } else if END.contains(&received.signal) {
            ended_by.get_or_insert(received.signal);
            syscall::kill(child, pass(received.signal));
        }
    }
}

/// As Apptainer: whatever goes wrong before a command runs.
const FAILED: i32 = 255;

/// A mount namespace of this process's own, in which nothing reaches the host.
fn private_mounts() -> Result<(), Error> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(Error::call("make a mount namespace"))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", slave).map_err(Error::call("make the mounts slaves of the host's"))?;
    // The host's shows other process ids than this namespace has. Where it is partly hidden the kernel refuses a new one,
    // and all but scripts that look for themselves there work with the host's.
    if let Ok(proc) = new_file_system("proc", &[], MountAttrFlags::MOUNT_ATTR_NODEV) {
        let _ = crate::attach(proc.as_fd(), Path::new("/proc"));
    }
    Ok(())
}

/// A detached, writable overlay of `lower` (an attached directory) with its upper and work directories, which lie on one
/// file system that is no overlay itself; nosuid and nodev, as all that images bring.
pub fn writable_overlay(lower: &Path, upper: &Path, work: &Path) -> Result<OwnedFd, Error> {
    // By descriptors: in a path, a colon would separate layers.
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::path("open", path))
    };
    let (lower, upper_fd, work) = (open(lower)?, open(upper)?, open(work)?);
    overlay(lower.as_fd(), upper_fd.as_fd(), work.as_fd()).map_err(|errno| match errno {
        rustix::io::Errno::INVAL => Error::Path {
            operation: "mount an overlay that writes to",
            path: upper.to_path_buf(),
            source: errno.into(),
            hint: Some("its file system cannot hold an overlay's upper layer: name a directory on a local disk, --tmpdir or APPTAINER_TMPDIR"),
        },
        errno => overlay_error(errno, None),
    })
}

fn overlay(lower: BorrowedFd<'_>, upper: BorrowedFd<'_>, work: BorrowedFd<'_>) -> Result<OwnedFd, rustix::io::Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, fd) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        rustix::mount::fsconfig_set_string(&context, key, descriptor_path(fd))?;
    }
    for flag in OVERLAY_FLAGS {
        rustix::mount::fsconfig_set_flag(&context, flag)?;
    }
    for (key, value) in OVERLAY_OPTIONS {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Runs the command of `plan`, which has a pid namespace, in a child, and returns its exit code (128+n after signal n).
/// The namespaces of this process stay as they are. Needs CAP_SYS_ADMIN.
pub fn run(plan: &Plan, root: RootFs) -> Result<i32, Error> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::call("make a pipe"))?;
    let child = match syscall::fork().map_err(Error::call("start a container"))? {
        Forked::Parent(child) => child,
        Forked::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            match crate::begin(plan, true).and_then(|begun| begun.enter_privileged(plan, root)) {
                Ok(code) => syscall::exit_now(code),
                Err(error) => process::fail(writer, &error),
            }
        }
    };
    drop(writer);
    let mut text = String::new();
    // The command has no copy of the other end, and the child ends with it.
    File::from(reader)
        .take(process::TEXT_LIMIT)
        .read_to_string(&mut text)
        .map_err(Error::call("wait for a container"))?;
    let code = loop {
        match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => break 128 + signal as i32,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(Error::call("wait for a container")(errno)),
        }
    };
    if text.is_empty() { Ok(code) } else { Err(Error::InChild(text)) }
}
