//! A root file system that a process of ours serves over FUSE, for users without an agent.
//!
//! ```text
//!  caller, in its new user namespace          server, outside the container's mount namespace
//!  open /dev/fuse (its opener's user namespace must be the mount's, else EINVAL)
//!  fork ─────────────────────────────────────▶ setsid, fork; the first ends, the second is nobody's child
//!  unshare(NEWNS)                              close all but device and image; no capabilities
//!  fsopen("fuse") … fsmount ─▶ fd              wait for the caller
//!  "go" ─────────────────────────────────────▶ serve until the device says ENODEV
//! ```
//! Inside the container's mount namespace the server would keep it, and with it the mount, alive for ever. So it lives
//! outside, and ends when the last process of the container and the descriptor are gone.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::syscall::Forked;
use crate::userns::DENIED;
use crate::{Error, Groups, UserNamespace, exec, syscall};

const DEVICE: &str = "/dev/fuse";

/// `_IOR(229, 0, uint32_t)` of linux/fuse.h.
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// Exit codes of the first child, for whom the caller waits, and of the server, for whom nobody does.
const DONE: i32 = 0;
const NO_SERVER: i32 = 1;

/// Whether this user may open /dev/fuse; the error says why not. Costs nothing, so that a host without it is found out
/// before a namespace is made.
pub fn fuse_available() -> Result<(), Error> {
    open_device().map(drop)
}

fn open_device() -> Result<OwnedFd, Error> {
    let path = Path::new(DEVICE);
    OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from).map_err(|source| {
        let hint = match source.raw_os_error() {
            Some(libc::EACCES) => Some("users need its mode to be 0666, as most distributions have it"),
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Some("the kernel has no FUSE: modprobe fuse"),
            _ => None,
        };
        Error::Path { operation: "open", path: path.to_path_buf(), source, hint }
    })
}

/// A second device for the same file system (Linux 4.2): its reader waits in a queue of its own.
pub fn clone_fuse_device(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let clone = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let number = device.as_raw_fd().unsigned_abs();
    // SAFETY: the ioctl reads one u32, which outlives the call.
    match unsafe { libc::ioctl(clone.as_raw_fd(), FUSE_DEV_IOC_CLONE as _, std::ptr::from_ref(&number)) } {
        0 => Ok(clone),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts a FUSE file system that a new process serves: it calls `serve` with the device, and ends when that returns.
/// The mount is detached, read-only, nosuid and nodev, and open to everybody in the user namespace, by the modes that it
/// shows. This process must have one thread, and be in `namespace`, whose groups are mapped afterwards to the caller's own
/// ([`Groups::OwnOnly`]); it gets a mount namespace of its own. `keep`: the descriptors that `serve` needs; all others are
/// closed in the new process.
pub fn mount_fuse(
    namespace: &UserNamespace,
    name: &str,
    keep: &[BorrowedFd<'_>],
    serve: impl FnOnce(OwnedFd),
) -> Result<OwnedFd, Error> {
    let device = open_device()?;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::call("make a pipe"))?;
    let child = match syscall::fork().map_err(Error::call("start the FUSE server"))? {
        Forked::Parent(child) => child,
        Forked::Child => {
            drop(writer);
            become_server(device, reader, keep, serve)
        }
    };
    drop(reader);
    // It ends at once; the server is its child, and then nobody's.
    if !ended_well(child) {
        return Err(Error::call("start the FUSE server")(io::Error::from_raw_os_error(libc::EAGAIN)));
    }
    namespace.map_groups(Groups::OwnOnly)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| Error::Call {
        operation: "make a mount namespace",
        source: errno.into(),
        hint: (errno == nix::Error::EPERM).then_some(DENIED),
    })?;
    let mount = mount(&device, name, namespace.owner())?;
    // If it is gone the first look at the mount says so: ENOTCONN.
    let _ = File::from(writer).write_all(b"!");
    Ok(mount)
}

fn mount(device: &OwnedFd, name: &str, (uid, gid): (u32, u32)) -> Result<OwnedFd, Error> {
    let failed = |errno: rustix::io::Errno| Error::Call {
        operation: "mount a FUSE file system",
        source: errno.into(),
        hint: match errno {
            rustix::io::Errno::PERM => Some("Linux 4.18 or later lets users mount FUSE in their own namespaces"),
            rustix::io::Errno::NODEV => Some("the kernel has no FUSE: modprobe fuse"),
            _ => None,
        },
    };
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (key, value) in [
        ("source", name),
        ("subtype", "siforge"),
        ("fd", &device.as_raw_fd().to_string()),
        // A directory.
        ("rootmode", "40000"),
        ("user_id", &uid.to_string()),
        ("group_id", &gid.to_string()),
    ] {
        rustix::mount::fsconfig_set_string(&context, key, value).map_err(failed)?;
    }
    for flag in ["ro", "allow_other", "default_permissions"] {
        rustix::mount::fsconfig_set_flag(&context, flag).map_err(failed)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)
}

fn ended_well(child: i32) -> bool {
    loop {
        match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None) {
            Err(nix::Error::EINTR) => {}
            ended => return matches!(ended, Ok(nix::sys::wait::WaitStatus::Exited(_, DONE))),
        }
    }
}

/// In the first child. Never returns, so that nothing that was the caller's is dropped here.
fn become_server(device: OwnedFd, go: OwnedFd, keep: &[BorrowedFd<'_>], serve: impl FnOnce(OwnedFd)) -> ! {
    // Own session: no signal of the caller's terminal reaches it. Batch systems and systemd ask every process of a job to
    // end, and let those finish that need a while: they need their files. It ends with the last of them.
    let _ = rustix::process::setsid();
    syscall::ignore_requests_to_end();
    match syscall::fork() {
        Ok(Forked::Child) => {}
        Ok(Forked::Parent(_)) => syscall::exit_now(DONE),
        Err(_) => syscall::exit_now(NO_SERVER),
    }
    let _ = rustix::thread::set_name(c"siforge-fuse");
    let _ = rustix::process::chdir(c"/");
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend([device.as_raw_fd(), go.as_raw_fd()]);
    // Whoever reads what the command writes waits for all that hold the pipe's other end.
    let ready = silence().and_then(|()| close_all_but(kept));
    let mut byte = [0];
    // No byte: the mount failed, and whoever wanted it has said why.
    let wanted = ready.is_ok() && File::from(go).read(&mut byte).is_ok_and(|count| count == 1);
    if wanted && exec::drop_privileges().is_ok() {
        serve(device);
    }
    syscall::exit_now(DONE)
}

/// Standard input, output and error become /dev/null.
fn silence() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Closes all descriptors but these and 0 to 2.
fn close_all_but(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.sort_unstable();
    let mut first: libc::c_uint = 3;
    for fd in kept.into_iter().map(RawFd::unsigned_abs).filter(|fd| *fd > 2) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: in a process that ends without running a destructor, so that no owner of these descriptors misses them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // Before Linux 5.9.
    let open: Vec<libc::c_uint> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in open {
        // SAFETY: as above; the directory's own descriptor is closed already, which EBADF says.
        unsafe { libc::close(fd as libc::c_int) };
    }
    Ok(())
}
