//! The system calls that neither rustix nor nix offers safely. The only unsafe code of this crate.
//!
//! Everything here is a thin, safe function: descriptors are borrowed or owned, results are `io::Result`, and no
//! policy is decided.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `struct mount_attr` of <linux/mount.h>.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// MOUNT_ATTR_RDONLY
pub const ATTR_RDONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID
pub const ATTR_NOSUID: u64 = 0x2;
/// MOUNT_ATTR_NODEV
pub const ATTR_NODEV: u64 = 0x4;
/// MOUNT_ATTR_IDMAP
const ATTR_IDMAP: u64 = 0x0010_0000;

/// mount_setattr(2) on a mount descriptor (Linux 5.12): sets attributes, and an id map when a user namespace is given
/// (only before the mount is attached).
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    recursive: bool,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attr = MountAttr { set, ..MountAttr::default() };
    if let Some(user_namespace) = idmap {
        attr.set |= ATTR_IDMAP;
        attr.user_namespace = user_namespace.as_raw_fd().unsigned_abs().into();
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string; attr outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_mut(&mut attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Supplementary groups of the process at the other end of a Unix socket (SO_PEERGROUPS, Linux 4.13).
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * size_of::<libc::gid_t>())
            .map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))?;
        // SAFETY: the buffer is `length` bytes long and writable.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        match check(result.into()) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // The kernel wrote how much room it wants; NGROUPS_MAX bounds it.
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => groups.resize(count, 0),
            Err(e) => return Err(e),
        }
    }
}

/// The user id, as seen from here, that owns a user namespace (NS_GET_OWNER_UID, Linux 4.11).
pub fn namespace_owner(user_namespace: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the ioctl writes one uid_t.
    check(unsafe { libc::ioctl(user_namespace.as_raw_fd(), libc::NS_GET_OWNER_UID, &raw mut uid) }.into())?;
    Ok(uid)
}

/// A child that does nothing; killed and reaped on drop. The raw clone runs no atfork handlers and the child makes only
/// raw calls, so that a process with threads may do this.
#[derive(Debug)]
pub struct Bystander {
    pid: libc::pid_t,
}

impl Bystander {
    /// In a user namespace of its own.
    pub fn with_user_namespace() -> io::Result<Bystander> {
        Bystander::start(libc::CLONE_NEWUSER)
    }

    /// With a copy of all descriptors, which go when it is killed.
    pub fn with_descriptors() -> io::Result<Bystander> {
        Bystander::start(0)
    }

    fn start(namespaces: libc::c_int) -> io::Result<Bystander> {
        let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
        // SAFETY: clone without CLONE_VM and with a null stack is fork; the child only makes async-signal-safe calls.
        let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })?;
        if pid == 0 {
            // SAFETY: prctl and pause are plain system calls.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
        }
        Ok(Bystander { pid: pid as libc::pid_t })
    }

    /// The child.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // SAFETY: pid is our own unreaped child.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
        }
    }
}

/// A copy of a detached mount whose flags (ro, nosuid, nodev) nobody but the host's root can clear any more; the
/// original is used up. Needs CAP_SYS_ADMIN.
///
/// Without this, a user to whom the mount is sent attaches it in namespaces of its own and clears nodev there: the
/// kernel locks flags only when a mount namespace is copied into another user namespace (lock_mnt_tree in
/// fs/namespace.c). So a child, in which nothing else happens, attaches the mount in a namespace of its own, copies
/// that into a new user namespace, and clones the mount out of it. It shares this process's descriptor table, so that
/// the clone needs no sending, and makes only raw system calls, so that a process with threads may do this.
pub fn lock_mount_flags(mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut ends = [0; 2];
    // SAFETY: pipe2 fills the two descriptors, which are owned at once.
    let (reader, writer) = unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC).into())?;
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    let flags = libc::c_long::from(libc::CLONE_FILES | libc::SIGCHLD);
    // SAFETY: clone without CLONE_VM and with a null stack is fork; the child only makes raw calls and ends by _exit.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })?;
    if pid == 0 {
        let result = match locked_clone(mount) {
            Ok(fd) => fd,
            Err(errno) => -errno,
        };
        // SAFETY: result is four readable bytes.
        unsafe {
            libc::write(writer.as_raw_fd(), ptr::from_ref(&result).cast(), size_of::<i32>());
            libc::_exit(0);
        }
    }
    let mut result: i32 = -libc::ECHILD;
    // SAFETY: result is four writable bytes; pid is our own unreaped child, after which nobody writes to the pipe.
    unsafe {
        libc::waitpid(pid as libc::pid_t, ptr::null_mut(), 0);
        drop(writer);
        libc::read(reader.as_raw_fd(), ptr::from_mut(&mut result).cast(), size_of::<i32>());
    }
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the child opened it in the table that it shared with us, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// In the child of [`lock_mount_flags`]: a descriptor or an errno.
fn locked_clone(mount: BorrowedFd<'_>) -> Result<i32, i32> {
    // Any directory will do: it is covered in this child's namespaces alone.
    const PLACE: &std::ffi::CStr = c"/dev";
    let errno = |_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all paths are C strings; no memory is written.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS).into()).map_err(errno)?;
        check(libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null()).into()).map_err(errno)?;
        let from_fd = 4; // MOVE_MOUNT_F_EMPTY_PATH
        let (empty, place) = (c"".as_ptr(), PLACE.as_ptr());
        check(libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, libc::AT_FDCWD, place, from_fd))
            .map_err(errno)?;
        check(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).into()).map_err(errno)?;
        let flags = 1 | libc::O_CLOEXEC; // OPEN_TREE_CLONE
        check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, place, flags)).map(|fd| fd as i32).map_err(errno)
    }
}

/// `struct loop_info64` of <linux/loop.h>.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of <linux/loop.h>.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);

const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Number of a loop device that was free a moment ago (LOOP_CTL_GET_FREE on /dev/loop-control).
pub fn loop_get_free(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: takes no argument.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
    u32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))
}

/// Attaches `size` bytes of a file from `offset` on, read-only, to go by itself after the last user (LOOP_CONFIGURE,
/// Linux 5.8). `name` is what losetup shows.
pub fn loop_configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    size: u64,
    name: &[u8],
) -> io::Result<()> {
    // SAFETY: all fields are integers, for which zero is valid.
    let mut config: LoopConfig = unsafe { mem::zeroed() };
    config.fd = file.as_raw_fd().unsigned_abs();
    config.info.offset = offset;
    config.info.size_limit = size;
    config.info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    let length = name.len().min(config.info.file_name.len() - 1);
    config.info.file_name[..length].copy_from_slice(&name[..length]);
    // SAFETY: config outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, ptr::from_ref(&config)) }.into()).map(drop)
}

/// Device and inode number of the file behind a loop device, as stat(2) gives them (LOOP_GET_STATUS64). ENXIO: no file.
pub fn loop_backing(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: all fields are integers, for which zero is valid.
    let mut info: LoopInfo = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one struct loop_info64, which outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, ptr::from_mut(&mut info)) }.into())?;
    Ok((info.device, info.inode))
}

/// Brings `lo` up in the current network namespace, as the reference does for a network of its own.
pub fn loopback_up() -> io::Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: plain call; the descriptor is owned at once.
    let socket = unsafe {
        let fd = check(libc::socket(libc::AF_INET, kind, 0).into())?;
        OwnedFd::from_raw_fd(fd as i32)
    };
    // SAFETY: zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: request outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, ptr::from_ref(&request)) }.into()).map(drop)
}

/// What fork(2) returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the parent: the child's id.
    Parent(i32),
    /// In the child.
    Child,
}

/// fork(2). The caller has one thread: a launch checks that, because unshare(CLONE_NEWUSER) needs it too.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: single-threaded by contract, so that the child may allocate.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// _exit(2): for a forked child, whose destructors and buffers are the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// A null-terminated array of strings for [`execve`].
#[derive(Debug)]
pub struct StringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringArray {
    /// Takes the strings.
    pub fn new(strings: Vec<CString>) -> StringArray {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        StringArray { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// execve(2); returns only on failure.
pub fn execve(path: &std::ffi::CStr, argv: &StringArray, env: &StringArray) -> io::Error {
    // SAFETY: both arrays are null-terminated, and their strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives SIGPIPE its default action back: Rust's start-up ignores it, and exec would pass that on.
pub fn default_sigpipe() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Ignores whatever ends a process by request: only SIGKILL does then.
pub fn ignore_requests_to_end() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// A blocked set of signals, and the mask from before.
pub struct BlockedSignals {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

/// A signal that was received by [`BlockedSignals::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Number.
    pub signal: i32,
    /// Whether a process sent it; false for the kernel's own (a terminal's go to the whole process group anyway).
    pub from_process: bool,
}

impl BlockedSignals {
    /// Blocks all signals but those by which faults and job control work.
    pub fn block() -> BlockedSignals {
        const LEFT: [i32; 10] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
        ];
        // SAFETY: both sets are initialised by the calls before they are read.
        unsafe {
            let mut set = mem::zeroed();
            let mut before = mem::zeroed();
            libc::sigfillset(&raw mut set);
            for signal in LEFT {
                libc::sigdelset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, &raw mut before);
            BlockedSignals { set, before }
        }
    }

    /// Waits for one of them.
    pub fn wait(&self) -> Received {
        loop {
            // SAFETY: set is initialised, info is written by the call.
            let (signal, info) = unsafe {
                let mut info: libc::siginfo_t = mem::zeroed();
                (libc::sigwaitinfo(&raw const self.set, &raw mut info), info)
            };
            if signal > 0 {
                return Received { signal, from_process: info.si_code <= 0 };
            }
        }
    }

    /// The mask from before.
    pub fn restore(&self) {
        // SAFETY: before was written by sigprocmask.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Sends a signal by number (real-time signals too); the target may be gone.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: plain call.
    unsafe { libc::kill(pid, signal) };
}

/// A child that ended: its id and its exit code, 128+n for one that signal n ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which child.
    pub pid: i32,
    /// Its code.
    pub code: i32,
}

/// Reaps one child that has ended, if there is one (waitpid with WNOHANG). `pid` -1 means any.
pub fn reap(pid: i32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: status is writable.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Some(Ended { pid, code })
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER, for this process and all that it becomes. Needs CAP_SYS_ADMIN in the user
/// namespace, or no_new_privs.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies the program, which outlives the call, and does not write to it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, ptr::from_ref(&program)) }).map(drop)
}
