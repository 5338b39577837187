//! The mount tree of a launch, and the switch into it.
//!
//! ```text
//!  in the new mount namespace, in this order:
//!   binds     open_tree(CLONE|RECURSIVE) of each                            (detached; while an agent still looks for the image)
//!   others    fsmount of every new file system                              (detached)
//!   image     detached; every target is looked up in it: openat2(RESOLVE_IN_ROOT|NO_MAGICLINKS)
//!   "/dev" ◀─ [session tmpfs] [◀─ image, if there is an overlay]     stacked, as layers and to clone from
//!   "/"    ◀─ image, or the overlay                                  on top of "/": never seen by a path walk
//!   targets   ◀─ sources
//!   pivot_root(".", "."); umount(".", DETACH)
//! ```
//! A root that is written gets no overlay. Else there is one only when a mount point is missing in the image or a
//! writable layer is asked for.

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::plan::{Mount, PathKind, Plan, Source};
use crate::syscall::{ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY};
use crate::{Error, RootFs, accounts, syscall};

mod session;

use session::{Layer, Session};
pub(crate) use session::{OVERLAY_FLAGS, OVERLAY_OPTIONS, descriptor_path, overlay_error};

/// Longest passwd or group file of an image that is read.
const ACCOUNTS_LIMIT: u64 = 1024 * 1024;

/// openat2 gives EAGAIN when anything on the machine is renamed during a walk with `..`; this many are no accident.
const RESOLVE_ATTEMPTS: u32 = 256;

/// Where the new root is stacked: a walk from this process's root directory never looks for a mount on it.
const NEW_ROOT: &CStr = c"/";

/// Where layers are stacked, in this namespace's copy of the host's tree: a directory that every host has, and that
/// is not needed any more by then. They leave with the host's root.
const STAGE: &CStr = c"/dev";

/// What a mount shows, as far as it can be had before the root is there.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Made when the root is there: it is no bind, or has files of its own, which take complete id maps.
    Later,
    /// An optional bind that cannot be had.
    Absent,
    /// Detached.
    Bind(OwnedFd),
}

/// What will be attached: a detached mount, or a file still to be written into the session.
enum Content {
    Mount(OwnedFd),
    Text(Vec<u8>),
}

/// Where it will be attached.
enum Target {
    /// Exists in the image.
    Found(OwnedFd),
    /// Below the target of an earlier mount (its index): looked up when that is attached.
    Below(usize),
    /// Not in the image.
    Missing(Gap),
}

/// A mount point that the image lacks.
struct Gap {
    /// The deepest directory on the way that exists: its real path in the image, absolute.
    base: PathBuf,
    /// What is missing below.
    rest: PathBuf,
    kind: PathKind,
}

struct Item<'a> {
    mount: &'a Mount,
    content: Content,
    target: Target,
}

/// Opens the host's side of the binds of `plan`, in its order, in this process's mount namespace.
pub(crate) fn open_binds(plan: &Plan) -> Result<Vec<Opened>, Error> {
    with_exact_modes(|| {
        plan.create.iter().try_for_each(|directory| create_directory(directory))?;
        plan.mounts.iter().map(open_early).collect()
    })
}

/// Builds the tree of `plan` on `root` and makes it this process's root directory; the working directory is `/` then.
/// `binds` is what [`open_binds`] gave.
pub(crate) fn switch_root(plan: &Plan, binds: Vec<Opened>, root: RootFs) -> Result<(), Error> {
    let root = with_exact_modes(|| build(plan, binds, root))?;
    rustix::process::fchdir(&root).map_err(Error::call("enter the container's root"))?;
    rustix::process::pivot_root(c".", c".").map_err(Error::call("pivot to the container's root"))?;
    // Lazily, with all that is mounted below it.
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(Error::call("detach the host's root"))?;
    rustix::process::chdir(c"/").map_err(Error::call("enter the container's root"))
}

/// Modes of mount points are exact; the command gets the caller's umask back.
fn with_exact_modes<T>(make: impl FnOnce() -> T) -> T {
    let umask = rustix::process::umask(Mode::empty());
    let result = make();
    rustix::process::umask(umask);
    result
}

fn build(plan: &Plan, binds: Vec<Opened>, root: RootFs) -> Result<OwnedFd, Error> {
    let image = root.into_mount(plan.writable)?;
    let mut items: Vec<Item> = Vec::with_capacity(binds.len());
    for (mount, opened) in plan.mounts.iter().zip(binds) {
        let content = match opened {
            Opened::Bind(fd) => Content::Mount(fd),
            Opened::Absent => continue,
            Opened::Later => match content(mount, plan, image.as_fd())? {
                Some(content) => content,
                None => continue,
            },
        };
        match find_target(mount, &items, image.as_fd())? {
            // Nothing is added to a root that somebody keeps.
            Some(Target::Missing(_)) if plan.writable && !mount.required => {}
            Some(Target::Missing(_)) if plan.writable => return Err(Error::NoMountPoint(mount.target.clone())),
            Some(target) => items.push(Item { mount, content, target }),
            None => {}
        }
    }
    let texts = items.iter().any(|item| matches!(item.content, Content::Text(_)));
    let gaps: Vec<&Gap> = items.iter().filter_map(|item| item.target.gap()).collect();
    let layer = match &plan.overlay {
        Some(overlay) => Layer::open(overlay)?,
        None if plan.writable_tmpfs => Layer::Session,
        None => Layer::None,
    };
    let overlaid = !gaps.is_empty() || !matches!(layer, Layer::None);
    let session = if texts || overlaid {
        let session = Session::mount()?;
        session.add_mount_points(&gaps, image.as_fd())?;
        attach(session.as_fd(), STAGE)?;
        Some(session)
    } else {
        None
    };
    let Some(session) = session.as_ref().filter(|_| overlaid) else {
        attach(image.as_fd(), NEW_ROOT)?;
        attach_all(items, image.as_fd(), session.as_ref())?;
        return Ok(image);
    };
    attach(image.as_fd(), STAGE)?;
    let overlay = session.overlay(image.as_fd(), !gaps.is_empty(), &layer).map_err(|e| {
        let target = items.iter().find(|i| i.target.gap().is_some()).map(|i| i.mount.target.clone());
        overlay_error(e, target)
    })?;
    attach(overlay.as_fd(), NEW_ROOT)?;
    // Descriptors found in the image itself would attach below the overlay.
    for item in &mut items {
        if !matches!(item.target, Target::Below(_)) {
            let found = resolve(overlay.as_fd(), &item.mount.target, item.mount.kind);
            item.target = Target::Found(found.map_err(Error::path("find mount point", &item.mount.target))?);
        }
    }
    attach_all(items, overlay.as_fd(), Some(session))?;
    Ok(overlay)
}

impl Target {
    fn gap(&self) -> Option<&Gap> {
        match self {
            Target::Missing(gap) => Some(gap),
            _ => None,
        }
    }
}

/// Attaches a detached mount somewhere in this namespace's copy of the host's tree.
fn attach(mount: BorrowedFd<'_>, place: &CStr) -> Result<(), Error> {
    rustix::mount::move_mount(mount, c"", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Error::path("attach the container's root to", Path::new(OsStr::from_bytes(place.to_bytes()))))
}

fn create_directory(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o1777)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                create_directory(parent)?;
                rustix::fs::mkdir(path, Mode::from_raw_mode(0o1777)).map_err(Error::path("make directory", path))
            }
            _ => Err(Error::path("make directory", path)(Errno::NOENT)),
        },
        Err(e) => Err(Error::path("make directory", path)(e)),
    }
}

fn open_early(mount: &Mount) -> Result<Opened, Error> {
    let Source::Bind(path) = &mount.source else {
        return Ok(Opened::Later);
    };
    match open_bind(mount, path) {
        Ok(fd) => Ok(Opened::Bind(fd)),
        Err(_) if !mount.required => Ok(Opened::Absent),
        Err(e) => Err(e),
    }
}

/// What all but a bind shows; `None` for a generated file that is not needed, or for an optional source that cannot be
/// had.
fn content(mount: &Mount, plan: &Plan, image: BorrowedFd<'_>) -> Result<Option<Content>, Error> {
    let result = match &mount.source {
        Source::Bind(path) => open_bind(mount, path),
        Source::Proc => {
            new_file_system("proc", &[], MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC)
        }
        Source::Mqueue => new_file_system("mqueue", &[], MountAttrFlags::MOUNT_ATTR_NODEV),
        Source::Devpts => {
            let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
            new_file_system("devpts", &options, MountAttrFlags::empty())
        }
        Source::Tmpfs { size_mib, mode } => {
            let (size, mode) = (format!("{size_mib}m"), format!("{mode:o}"));
            let options = [("size", Some(size.as_str())), ("mode", Some(mode.as_str()))];
            new_file_system("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV)
        }
        Source::Dev { links, files, directories } => session::minimal_dev(links, files, directories),
        Source::Passwd(_) | Source::Group { .. } | Source::Text(_) => {
            return Ok(generate(mount, plan, image)?.map(Content::Text));
        }
    };
    match result {
        Ok(fd) => Ok(Some(Content::Mount(fd))),
        Err(_) if !mount.required => Ok(None),
        Err(e) => Err(e),
    }
}

fn open_bind(mount: &Mount, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let fd = rustix::mount::open_tree(CWD, path, flags).map_err(Error::path("bind", path))?;
    let mut attributes = ATTR_NOSUID;
    if mount.nodev {
        attributes |= ATTR_NODEV;
    }
    if mount.read_only {
        attributes |= ATTR_RDONLY;
    }
    syscall::mount_setattr(fd.as_fd(), attributes, true, None).map_err(Error::path("set mount attributes of", path))?;
    Ok(fd)
}

/// A new file system of a kind that user namespaces may mount; nosuid always.
pub(crate) fn new_file_system(
    kind: &'static str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::Path {
        operation: "mount a new file system of type",
        path: PathBuf::from(kind),
        source: errno.into(),
        hint: (errno == Errno::PERM).then_some("in a container whose own /proc is partly hidden the kernel refuses it"),
    };
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value),
            None => rustix::mount::fsconfig_set_flag(&context, *key),
        }
        .map_err(failed)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(failed)?;
    let attributes = attributes | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)
}

/// The text of a generated file; `None` when the image's own will do or it has none.
fn generate(mount: &Mount, plan: &Plan, image: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Error> {
    match &mount.source {
        Source::Text(text) => Ok(Some(text.clone().into_bytes())),
        Source::Passwd(entry) => {
            let own = read_file(image, &mount.target)?;
            Ok(own.and_then(|text| accounts::with_user(&text, plan.uid, plan.gid, entry)))
        }
        Source::Group { user, groups } => {
            let own = read_file(image, &mount.target)?;
            Ok(own.and_then(|text| accounts::with_groups(&text, user, groups)))
        }
        _ => Ok(None),
    }
}

/// A file of the image; `None` if it is not there or not readable.
fn read_file(image: BorrowedFd<'_>, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    // Non-blocking: an image may hold a FIFO by that name.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = open_in_root(image, path, flags) else {
        return Ok(None);
    };
    let mut text = Vec::with_capacity(8192);
    match std::fs::File::from(file).take(ACCOUNTS_LIMIT + 1).read_to_end(&mut text) {
        Ok(_) if text.len() as u64 > ACCOUNTS_LIMIT => {
            Err(Error::TooLong { path: path.to_path_buf(), limit: ACCOUNTS_LIMIT })
        }
        Ok(_) => Ok(Some(text)),
        Err(_) => Ok(None),
    }
}

/// Looks a mount point up. `None`: it cannot be used, and the mount is optional.
fn find_target(mount: &Mount, earlier: &[Item], image: BorrowedFd<'_>) -> Result<Option<Target>, Error> {
    let covering = earlier.iter().rposition(|item| {
        item.mount.kind == PathKind::Directory
            && mount.target != item.mount.target
            && mount.target.starts_with(&item.mount.target)
    });
    if let Some(index) = covering {
        return Ok(Some(Target::Below(index)));
    }
    match resolve(image, &mount.target, mount.kind) {
        Ok(fd) => Ok(Some(Target::Found(fd))),
        Err(errno) if is_missing(errno) => find_gap(mount, image).map(|gap| Some(Target::Missing(gap))),
        Err(_) if !mount.required => Ok(None),
        Err(errno) => Err(Error::path("find mount point", &mount.target)(errno)),
    }
}

/// Nothing there, or nothing of the right kind: what an overlay mends.
fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// A descriptor of a mount point, as the container would see the path.
fn resolve(root: BorrowedFd<'_>, path: &Path, kind: PathKind) -> Result<OwnedFd, Errno> {
    let directory = if kind == PathKind::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
    open_in_root(root, path, OFlags::PATH | OFlags::CLOEXEC | directory)
}

fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RESOLVE_ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// The deepest existing directory on the way to a target, by its real path.
fn find_gap(mount: &Mount, image: BorrowedFd<'_>) -> Result<Gap, Error> {
    let target = &mount.target;
    for base in target.ancestors().skip(1) {
        match resolve(image, base, PathKind::Directory) {
            Ok(fd) => {
                let link = descriptor_path(fd.as_fd());
                let base_path = rustix::fs::readlink(&link, Vec::new()).map_err(Error::path("read", &link))?;
                let rest = target.strip_prefix(base).unwrap_or(target).to_path_buf();
                let real = PathBuf::from(OsString::from_vec(base_path.into_bytes()));
                return Ok(Gap { base: real, rest, kind: mount.kind });
            }
            Err(errno) if is_missing(errno) => {}
            Err(errno) => return Err(Error::path("find mount point", target)(errno)),
        }
    }
    Err(Error::path("find mount point", target)(Errno::NOENT))
}

fn attach_all(items: Vec<Item>, root: BorrowedFd<'_>, session: Option<&Session>) -> Result<(), Error> {
    for (index, item) in items.iter().enumerate() {
        let made;
        let source = match &item.content {
            Content::Mount(fd) => fd.as_fd(),
            Content::Text(text) => {
                // There is a session whenever there is a text.
                let Some(session) = session else { continue };
                made = session.file(index, text, item.mount)?;
                made.as_fd()
            }
        };
        let below;
        let target = match &item.target {
            Target::Found(fd) => fd.as_fd(),
            Target::Missing(_) => continue,
            Target::Below(outer) => {
                if let Some(fd) = target_below(item.mount, &items[*outer], root)? {
                    below = fd;
                    below.as_fd()
                } else {
                    continue;
                }
            }
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        match rustix::mount::move_mount(source, c"", target, c"", flags) {
            Ok(()) => {}
            Err(_) if !item.mount.required => {}
            Err(errno) => return Err(Error::path("mount on", &item.mount.target)(errno)),
        }
    }
    Ok(())
}

/// A mount point within an earlier mount; made if that is a tmpfs of ours, never in a directory of the host.
fn target_below(mount: &Mount, outer: &Item, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let mut result = resolve(root, &mount.target, mount.kind);
    let ours = matches!(outer.mount.source, Source::Tmpfs { .. } | Source::Dev { .. });
    if ours
        && matches!(result, Err(Errno::NOENT))
        && let Content::Mount(tmpfs) = &outer.content
        && let Ok(rest) = mount.target.strip_prefix(&outer.mount.target)
    {
        session::make_mount_point(tmpfs.as_fd(), rest, mount.kind)?;
        result = resolve(root, &mount.target, mount.kind);
    }
    match result {
        Ok(fd) => Ok(Some(fd)),
        Err(_) if !mount.required => Ok(None),
        Err(errno) => Err(Error::Path {
            operation: "find mount point",
            path: mount.target.clone(),
            source: io::Error::from(errno),
            hint: is_missing(errno).then_some("it lies in another bind: make it there, on the host"),
        }),
    }
}
