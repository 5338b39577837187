//! The session: a tmpfs of the launch's own, for what neither image nor host has.
//!
//! ```text
//!  lower/…          skeleton of missing mount points: upper layer of a read-only overlay
//!  upper/ work/     the writable layer of --writable-tmpfs
//!  <n>              generated files (passwd, group, hostname)
//! ```

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::{Gap, new_file_system, open_in_root};
use crate::plan::{Mount, PathKind, SESSION_SIZE_MIB};
use crate::request::Overlay;
use crate::{Error, image, syscall};

/// The session of one launch.
pub(super) struct Session {
    mount: OwnedFd,
}

/// Options of every overlay, explicit because distributions change the defaults: no trusted xattrs (a user namespace
/// has none), no metacopy or index (an image's own xattrs must mean nothing).
pub(crate) const OVERLAY_FLAGS: [&str; 1] = ["userxattr"];
pub(crate) const OVERLAY_OPTIONS: [(&str, &str); 2] = [("metacopy", "off"), ("index", "off")];

/// What lies over the image, besides mount points.
pub(super) enum Layer {
    None,
    /// In memory, for this launch.
    Session,
    /// In directories of the host.
    Kept {
        upper: OwnedFd,
        work: OwnedFd,
    },
    ReadOnly(OwnedFd),
}

impl Layer {
    /// Makes `upper` and `work` where they are to be written and missing.
    pub(super) fn open(overlay: &Overlay) -> Result<Layer, Error> {
        let open = |name: &str| {
            let path = overlay.directory.join(name);
            let made = rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755));
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(_) if overlay.read_only => {}
                Err(errno) => return Err(Error::path("make the overlay's directory", &path)(errno)),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(rustix::fs::CWD, &path, flags, Mode::empty())
                .map_err(Error::path("open the overlay", &path))
        };
        match overlay.read_only {
            true => open("upper").map(Layer::ReadOnly),
            false => Ok(Layer::Kept { upper: open("upper")?, work: open("work")? }),
        }
    }
}

impl Session {
    /// A detached tmpfs.
    pub(super) fn mount() -> Result<Session, Error> {
        let size = format!("{SESSION_SIZE_MIB}m");
        let options = [("size", Some(size.as_str())), ("mode", Some("0755"))];
        Ok(Session { mount: new_file_system("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV)? })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Makes the skeleton. Directories that exist in the image keep their mode and owner: an overlay shows those of
    /// its upper layer.
    pub(super) fn add_mount_points(&self, gaps: &[&Gap], image: BorrowedFd<'_>) -> Result<(), Error> {
        if gaps.is_empty() {
            return Ok(());
        }
        self.directory_like(Path::new("lower"), Path::new("/"), image)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lower = rustix::fs::openat(&self.mount, "lower", flags, Mode::empty())
            .map_err(Error::call("open the session's skeleton"))?;
        for gap in gaps {
            let mut made = PathBuf::from("lower");
            let mut own = PathBuf::from("/");
            let base = gap.base.strip_prefix("/").unwrap_or(&gap.base);
            for name in base {
                made.push(name);
                own.push(name);
                self.directory_like(&made, &own, image)?;
            }
            make_mount_point(lower.as_fd(), &base.join(&gap.rest), gap.kind)?;
        }
        Ok(())
    }

    fn directory_like(&self, made: &Path, own: &Path, image: BorrowedFd<'_>) -> Result<(), Error> {
        let failed = || Error::path::<Errno>("copy directory of the image", own);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let original = open_in_root(image, own, flags).map_err(failed())?;
        let stat = rustix::fs::fstat(&original).map_err(failed())?;
        match rustix::fs::mkdirat(&self.mount, made, Mode::from_raw_mode(stat.st_mode & 0o7777)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(failed()(errno)),
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        // Only root can, and only for a user is it of no use: what root owns in the image is the user's already.
        match rustix::fs::chownat(&self.mount, made, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::OVERFLOW) => Ok(()),
            Err(errno) => Err(failed()(errno)),
        }
    }

    /// The overlay over the attached image and session; read-only unless there is a layer that is written.
    pub(super) fn overlay(&self, image: BorrowedFd<'_>, skeleton: bool, layer: &Layer) -> Result<OwnedFd, Errno> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let session = descriptor_path(self.mount.as_fd());
        let image = descriptor_path(image);
        let mut lower = image.into_os_string();
        if skeleton {
            let mut both = session.join("lower").into_os_string();
            both.push(":");
            both.push(&lower);
            lower = both;
        }
        if let Layer::ReadOnly(upper) = layer {
            let mut both = descriptor_path(upper.as_fd()).into_os_string();
            both.push(":");
            both.push(&lower);
            lower = both;
        }
        rustix::mount::fsconfig_set_string(&context, "lowerdir", lower.as_os_str())?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        match layer {
            Layer::None | Layer::ReadOnly(_) => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            Layer::Session => {
                for name in ["upper", "work"] {
                    rustix::fs::mkdirat(&self.mount, name, Mode::from_raw_mode(0o755))?;
                }
                rustix::mount::fsconfig_set_string(&context, "upperdir", session.join("upper"))?;
                rustix::mount::fsconfig_set_string(&context, "workdir", session.join("work"))?;
            }
            Layer::Kept { upper, work } => {
                rustix::mount::fsconfig_set_string(&context, "upperdir", descriptor_path(upper.as_fd()))?;
                rustix::mount::fsconfig_set_string(&context, "workdir", descriptor_path(work.as_fd()))?;
            }
        }
        for flag in OVERLAY_FLAGS {
            rustix::mount::fsconfig_set_flag(&context, flag)?;
        }
        for (key, value) in OVERLAY_OPTIONS {
            rustix::mount::fsconfig_set_string(&context, key, value)?;
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// Writes a generated file and returns a read-only detached mount of it. The session is attached by now: older
    /// kernels clone nothing else.
    pub(super) fn file(&self, index: usize, text: &[u8], mount: &Mount) -> Result<OwnedFd, Error> {
        let name = index.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&self.mount, &name, flags, Mode::from_raw_mode(0o644))
            .map_err(std::io::Error::from)
            .and_then(|fd| File::from(fd).write_all(text))
            .map_err(Error::path("write the container's", &mount.target))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let file = rustix::mount::open_tree(&self.mount, &name, flags)
            .map_err(Error::path("bind the container's", &mount.target))?;
        syscall::mount_setattr(file.as_fd(), image::IMAGE_ATTRIBUTES, false, None)
            .map_err(Error::path("bind the container's", &mount.target))?;
        Ok(file)
    }
}

/// A path by which the kernel finds what a descriptor refers to.
pub(crate) fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Why there is no overlay: for a mount point that is missing, or for the writable layer.
pub(crate) fn overlay_error(errno: Errno, target: Option<PathBuf>) -> Error {
    let hint = match errno {
        Errno::PERM | Errno::ACCESS => {
            Some("overlay in user namespaces needs Linux 5.11; or make the mount point in the image")
        }
        Errno::NODEV => Some("the kernel has no overlay: modprobe overlay, or make the mount point in the image"),
        Errno::INVAL => Some("overlay on an id-mapped image needs Linux 5.19; or make the mount point in the image"),
        _ => None,
    };
    match target {
        Some(target) => Error::Overlay { target, source: errno.into(), hint },
        None => Error::Call { operation: "mount a writable overlay", source: errno.into(), hint },
    }
}

/// The tmpfs of a minimal /dev.
pub(super) fn minimal_dev(
    links: &[(&'static str, &'static str)],
    files: &[&'static str],
    directories: &[&'static str],
) -> Result<OwnedFd, Error> {
    let options = [("size", Some("1m")), ("mode", Some("0755"))];
    let dev = new_file_system("tmpfs", &options, MountAttrFlags::empty())?;
    for (name, target) in links {
        rustix::fs::symlinkat(*target, &dev, *name).map_err(Error::path("make link in /dev:", Path::new(name)))?;
    }
    for name in files {
        make_mount_point(dev.as_fd(), Path::new(name), PathKind::File)?;
    }
    for name in directories {
        make_mount_point(dev.as_fd(), Path::new(name), PathKind::Directory)?;
    }
    Ok(dev)
}

/// Makes directories as needed and the mount point itself, below a directory of ours in which there are no symlinks.
pub(super) fn make_mount_point(root: BorrowedFd<'_>, path: &Path, kind: PathKind) -> Result<(), Error> {
    let directory = if kind == PathKind::Directory { Some(path) } else { path.parent() };
    let mut made = PathBuf::new();
    for name in directory.into_iter().flatten() {
        made.push(name);
        match rustix::fs::mkdirat(root, &made, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::path("make mount point", path)(errno)),
        }
    }
    if kind == PathKind::File {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(root, path, flags, Mode::from_raw_mode(0o644))
            .map_err(Error::path("make mount point", path))?;
    }
    Ok(())
}
