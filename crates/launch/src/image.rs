//! An image's root as a detached mount: a descriptor that can be sent to another process and attached there.
//!
//! ```text
//!  file[offset..offset+size] ─ loop device ─ fsopen("squashfs") ─ fsmount ─▶ fd     (root only)
//!  fd or path ─ open_tree(CLONE) ─ mount_setattr(ro,nosuid,nodev [,idmap]) ─▶ fd
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::syscall::{ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY};
use crate::{Error, LoopDevice, syscall};

/// Attributes of every mount that shows an image.
pub(crate) const IMAGE_ATTRIBUTES: u64 = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV;

/// Mounts a squashfs that lies in a file, through a loop device. The mount (and with it the device) goes when the
/// descriptor and all clones are closed, unless it is attached. `name` is for messages and losetup. Needs root.
///
/// The mount and its clones may be sent to users: ro, nosuid and nodev are locked (see
/// [`syscall::lock_mount_flags`]), else a user could open the device nodes of an image.
pub fn mount_squashfs(file: BorrowedFd<'_>, name: &Path, offset: u64, size: u64) -> Result<OwnedFd, Error> {
    locked(name, || mount_unlocked(file, name, offset, size))
}

/// The same from a loop device that has the file already: one superblock serves all its mounts.
pub fn mount_loop_device(device: &LoopDevice, name: &Path) -> Result<OwnedFd, Error> {
    locked(name, || mount_device(device, name))
}

fn locked(name: &Path, mount: impl Fn() -> Result<OwnedFd, Error>) -> Result<OwnedFd, Error> {
    match syscall::lock_mount_flags(mount()?.as_fd()) {
        Ok(locked) => Ok(locked),
        // Nobody can clear flags, and nothing can lock them.
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && no_user_namespaces() => mount(),
        Err(e) => Err(Error::path("lock the mount flags of", name)(e)),
    }
}

/// Whether this host has user namespaces switched off. ENOSPC alone may also say that root has too many.
fn no_user_namespaces() -> bool {
    std::fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|limit| limit.trim() == "0")
}

/// The same for a launch by root itself, without the child that locking takes.
pub(crate) fn mount_unlocked(file: BorrowedFd<'_>, name: &Path, offset: u64, size: u64) -> Result<OwnedFd, Error> {
    let device = LoopDevice::attach(file, name, offset, size)?;
    mount_device(&device, name)
}

fn mount_device(device: &LoopDevice, name: &Path) -> Result<OwnedFd, Error> {
    let context = rustix::mount::fsopen("squashfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| Error::Path {
        operation: "mount squashfs",
        path: name.to_path_buf(),
        source: e.into(),
        hint: (e == rustix::io::Errno::NODEV).then_some("the kernel has no squashfs: modprobe squashfs"),
    })?;
    let failed = || Error::path::<rustix::io::Errno>("mount squashfs", name);
    rustix::mount::fsconfig_set_flag(&context, "ro").map_err(failed())?;
    rustix::mount::fsconfig_set_string(&context, "source", device.path.as_path()).map_err(failed())?;
    // One decompressor per processor; many kernels are built with one per mount and let the mount choose (Linux 6.2).
    // Refused where the choice is not built in, which is no reason to fail.
    let _ = rustix::mount::fsconfig_set_string(&context, "threads", "percpu");
    rustix::mount::fsconfig_create(&context).map_err(|e| Error::Path {
        operation: "mount squashfs",
        path: name.to_path_buf(),
        source: e.into(),
        hint: (e == rustix::io::Errno::INVAL)
            .then_some("no squashfs there, damaged, or of a compression that the kernel was built without"),
    })?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed())
}

/// A second, detached mount of what `mount` shows: read-only, nosuid, nodev, and id-mapped when a user namespace
/// ([`crate::idmap_namespace`]) is given. `mount` is a directory descriptor of an attached mount's root.
pub fn clone_detached(mount: impl AsFd, idmap: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = rustix::mount::open_tree(mount, c"", flags).map_err(Error::call("clone the image's mount"))?;
    syscall::mount_setattr(clone.as_fd(), IMAGE_ATTRIBUTES, false, idmap).map_err(|source| Error::Call {
        operation: "set attributes of the image's mount",
        hint: match (source.raw_os_error(), idmap) {
            (Some(libc::EINVAL), Some(_)) => Some("id-mapped mounts of squashfs need Linux 6.2 or later"),
            (Some(libc::ENOSYS), _) => Some("mount_setattr needs Linux 5.12 or later"),
            _ => None,
        },
        source,
    })?;
    Ok(clone)
}

/// Attaches a detached mount to a directory.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> Result<(), Error> {
    rustix::mount::move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::path("attach mount to", target))
}
