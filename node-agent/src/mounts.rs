//! Carries out what the mount table decided. Thin: every decision was made elsewhere.
//!
//! ```text
//! <state>/                    0755, local (/run)
//!   agent.lock                flock: one agent per state directory
//!   leases.json verified.json
//!   mounts/                   0700, a bind mount of itself, private: nothing leaks into or out of other namespaces
//!     <64 hex>/               the node's one mount of an artifact: squashfs on a read-only loop device with autoclear,
//!                             bound to the descriptor that was checked; ro,nosuid,nodev
//! ```
//!
//! The artifact is opened by the agent with its own rights, as root. On a store that squashes root this needs the agent's fsuid, which
//! comes with the store's private files; until then such a store must let root read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use siforge_launch::LoopDevice;
use siforge_reference::Digest;
use siforge_store::{Layout, Store};

use crate::adopt::{self, Verdict};
use crate::integrity::{self, Verifier};
use crate::loops::{self, FileId, Loop};

/// Most bytes of mountinfo: a node with a hundred thousand mounts has other troubles.
const MOUNTINFO_LIMIT: u64 = 64 * 1024 * 1024;

/// An image could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ref names an artifact that is not there.
    #[error("artifact {digest} is not in the store: {path} does not exist", path = path.display())]
    Missing { digest: Digest, path: PathBuf },
    /// The artifact can't be opened.
    #[error("open artifact {digest}: {source}")]
    Open { digest: Digest, source: siforge_store::Error },
    /// A system call on a path failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// The artifact did not pass its checks.
    #[error(transparent)]
    Integrity(#[from] integrity::Error),
    /// The kernel refused.
    #[error("mount artifact {digest}: {source}")]
    Mount { digest: Digest, source: siforge_launch::Error },
    /// The node's lease could not be written, so the artifact was not opened.
    #[error("lease artifact {digest} in the store: {source}")]
    Lease { digest: Digest, source: siforge_store::Error },
    /// No thread could be had for the work.
    #[error("start a thread to mount artifact {digest}: {source}")]
    Thread { digest: Digest, source: io::Error },
    /// The work ended without a result.
    #[error("mounting artifact {digest} ended unexpectedly: see the agent's log")]
    Panicked { digest: Digest },
}

/// The places of one agent's mounts.
#[derive(Debug, Clone)]
pub struct Mounts {
    directory: PathBuf,
}

impl Mounts {
    /// Nothing is touched yet.
    pub fn new(state_dir: &Path) -> Self {
        Mounts { directory: state_dir.join("mounts") }
    }

    /// Where an artifact is mounted.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Makes the directory, and a private mount of it unless an earlier agent did.
    pub fn prepare(&self) -> Result<(), Error> {
        let io = |operation| {
            let path = self.directory.clone();
            move |source: io::Error| Error::Io { operation, path, source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(io("create"))?;
        std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o700))
            .map_err(io("set the mode of"))?;
        if !adopt::is_mount_point(&mountinfo()?, &self.directory) {
            let here = Some(&self.directory);
            mount(here, &self.directory, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| io("bind to itself")(errno.into()))?;
        }
        // Always: an earlier agent may have died between the two calls.
        mount(None::<&str>, &self.directory, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(|errno| io("make private")(errno.into()))
    }

    /// Looks at what an earlier agent left: cleans what is stale, gives what is good.
    pub fn adopt(&self, layout: &Layout) -> Result<Vec<Digest>, Error> {
        let device = |number| {
            let device = loops::read(Path::new(loops::SYSFS), number)?;
            // Unknown is not good: the mount is made anew.
            let backing = LoopDevice::open(number).and_then(|device| device.backing());
            Some((device, backing.ok()?.into()))
        };
        let artifact = |digest: &Digest| {
            let path = real_path(layout, digest)?;
            let metadata = std::fs::metadata(&path).ok()?;
            Some((path, FileId::of(&metadata)))
        };
        let verdicts = adopt::judge(&mountinfo()?, &self.directory, &device, &artifact);
        let mut adopted = Vec::new();
        for verdict in verdicts {
            match verdict {
                Verdict::Adopt(digest) => adopted.push(digest),
                Verdict::Clean { path, layers, reason } => {
                    tracing::warn!(path = %path.display(), reason, "unmounting what an earlier agent left");
                    (0..layers).try_for_each(|_| unmount(&path))?;
                }
            }
        }
        self.remove_empty_directories(&adopted)?;
        Ok(adopted)
    }

    /// Checks and mounts an artifact; the caller has leased it. Mounts are made one at a time per digest.
    pub fn mount(&self, store: &Store, digest: &Digest, verifier: &Verifier) -> Result<(), Error> {
        let artifact = store.layout().artifact(digest);
        let file = store.open_artifact(digest).map_err(|source| Error::Open { digest: *digest, source })?;
        let file = file.ok_or_else(|| Error::Missing { digest: *digest, path: artifact.clone() })?;
        let partition = verifier.verify(&file, digest)?;
        let target = self.path(digest);
        let directory = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&target);
        directory.map_err(|source| Error::Io { operation: "create", path: target.clone(), source })?;
        let metadata =
            file.metadata().map_err(|source| Error::Io { operation: "stat", path: artifact.clone(), source })?;
        let failed = |source| Error::Mount { digest: *digest, source };
        let detached = match live_device(FileId::of(&metadata), partition.offset)? {
            Some(device) => siforge_launch::mount_loop_device(&device, &artifact),
            None => siforge_launch::mount_squashfs(file.as_fd(), &artifact, partition.offset, partition.size),
        };
        siforge_launch::attach(detached.map_err(failed)?.as_fd(), &target).map_err(failed)
    }

    /// A detached copy of an artifact's mount: read-only, nosuid, nodev; id-mapped by `namespace` if that is given. The caller
    /// has pinned it.
    pub fn detached_clone(&self, digest: &Digest, namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
        let path = self.path(digest);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(&path, flags, Mode::empty()).map_err(|errno| Error::Io {
            operation: "open mount",
            path: path.clone(),
            source: errno.into(),
        })?;
        siforge_launch::clone_detached(root, namespace).map_err(|source| Error::Mount { digest: *digest, source })
    }

    /// Undoes a mount lazily: who uses a copy of it keeps it. No error when there is none.
    pub fn unmount(&self, digest: &Digest) -> Result<(), Error> {
        unmount(&self.path(digest))
    }

    /// Undoes everything, the directory's own mount too. For `cleanup`, with the state directory locked.
    pub fn unmount_all(&self) -> Result<usize, Error> {
        let mounts = mountinfo()?;
        let mut undone = 0;
        for mounted in mounts.iter().filter(|mounted| mounted.path.parent() == Some(&self.directory)) {
            unmount(&mounted.path)?;
            undone += 1;
        }
        for mounted in mounts.iter().filter(|mounted| mounted.path == self.directory) {
            unmount_only(&mounted.path)?;
        }
        self.remove_empty_directories(&[])?;
        Ok(undone)
    }

    fn remove_empty_directories(&self, kept: &[Digest]) -> Result<(), Error> {
        let failed = |source| Error::Io { operation: "list", path: self.directory.clone(), source };
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            match adopt::digest_of_name(&entry.file_name()) {
                Some(digest) if !kept.contains(&digest) => remove_directory(&entry.path())?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where the store has an artifact, without symbolic links, as the kernel prints backing files.
fn real_path(layout: &Layout, digest: &Digest) -> Option<PathBuf> {
    std::fs::canonicalize(layout.artifact(digest)).ok()
}

/// The loop device by which copies of an earlier mount keep this very file in use, if there is one. Mounted again, the same
/// superblock serves old and new: one page cache and one device per artifact, however often it was let go.
fn live_device(file: FileId, offset: u64) -> Result<Option<LoopDevice>, Error> {
    let sysfs = Path::new(loops::SYSFS);
    let fits = |device: &Loop| !device.deleted && device.read_only && device.offset == offset;
    let loops = loops::list(sysfs).map_err(|source| Error::Io { operation: "list", path: sysfs.to_owned(), source })?;
    for found in loops.into_iter().filter(fits) {
        // Open, it can't be cleared; only then is what is said about it good for longer than the moment.
        let Ok(device) = LoopDevice::open(found.number) else {
            continue;
        };
        let same = device.backing().is_ok_and(|backing| FileId::from(backing) == file);
        if same && loops::read(sysfs, found.number).as_ref().is_some_and(fits) {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// The kernel's list of this namespace's mounts.
fn mountinfo() -> Result<Vec<adopt::MountPoint>, Error> {
    use std::io::Read;
    let path = Path::new("/proc/self/mountinfo");
    let failed = |operation| move |source| Error::Io { operation, path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed("open"))?;
    file.take(MOUNTINFO_LIMIT).read_to_end(&mut text).map_err(failed("read"))?;
    Ok(adopt::parse_mountinfo(&text))
}

fn unmount(path: &Path) -> Result<(), Error> {
    unmount_only(path)?;
    remove_directory(path)
}

/// By errno: EINVAL says that nothing is mounted there, ENOENT that the directory is gone too; both are what was wanted.
fn unmount_only(path: &Path) -> Result<(), Error> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::Io { operation: "unmount", path: path.to_owned(), source: errno.into() }),
    }
}

/// EBUSY: another mount lies below, whose turn comes. ENOTEMPTY can only be someone else's file.
fn remove_directory(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::EBUSY)) => Ok(()),
        Err(source) => Err(Error::Io { operation: "remove", path: path.to_owned(), source }),
    }
}
