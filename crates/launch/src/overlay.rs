//! An image put below the upper layer of an overlay that is mounted already: what a container engine has prepared for one container
//! goes on counting what is written there, and unmounts at the same place.
//!
//! ```text
//!   before   target: overlay(lower L, upper U, work W)
//!   after    target: overlay(lower image, upper U, work W)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use crate::{Error, attach};

/// The writable part of an overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    pub upper: PathBuf,
    pub work: PathBuf,
    /// SELinux label of everything in it.
    pub context: Option<String>,
    /// Files' set-user-ID bits mean nothing. Device nodes never mean anything.
    pub nosuid: bool,
}

/// Replaces the overlay on `target` by one of `image` (detached) and `layers`, which are the old one's. The kernel wants a
/// layer's directory attached somewhere, and two overlays must not share an upper layer: so the old one goes first, and the target
/// is left bare if the new one cannot be had. Needs root.
pub fn replace_lower(target: &Path, image: BorrowedFd<'_>, layers: &Layers) -> Result<(), Error> {
    // Not lazily: a root that someone uses would go on writing to the upper layer.
    unmount(target, UnmountFlags::NOFOLLOW)?;
    attach(image, target)?;
    let made = overlay(target, layers);
    // Unmounted even so: the overlay has a copy of its own. Lazily, for `image` is a descriptor of this very mount.
    unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
    attach(made?.as_fd(), target)
}

fn unmount(target: &Path, flags: UnmountFlags) -> Result<(), Error> {
    rustix::mount::unmount(target, flags).map_err(Error::path("unmount", target))
}

fn overlay(lower: &Path, layers: &Layers) -> Result<OwnedFd, Error> {
    let failed = || Error::path::<rustix::io::Errno>("mount an overlay that writes to", &layers.upper);
    let lower = lower_directory(lower)?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed())?;
    let set = |key: &str, value: &Path| rustix::mount::fsconfig_set_string(&context, key, value).map_err(failed());
    // By descriptor: in a path, a colon would separate layers.
    set("lowerdir", &crate::mounts::descriptor_path(lower.as_fd()))?;
    set("upperdir", &layers.upper)?;
    set("workdir", &layers.work)?;
    // What an image's attributes say to an overlay must mean nothing.
    for (key, value) in crate::mounts::OVERLAY_OPTIONS {
        set(key, Path::new(value))?;
    }
    if let Some(label) = &layers.context {
        set("context", Path::new(label))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed())?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, layers.nosuid);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed())
}

fn lower_directory(path: &Path) -> Result<OwnedFd, Error> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::path("open", path))
}
