//! The rung of the ladder between the agent's mount and unpacking: a server of the user's own.

use crate::error::Error;
use siforge_fuse::Owners;
use siforge_launch::UserNamespace;
use siforge_sif::Partition;
use siforge_squashfs::read::Reader;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// More readers than this gain nothing, as the kernel's queue is one.
const WORKERS_MAX: usize = 8;

/// Why there is no file system over FUSE, and what there is already.
pub(crate) struct Refused {
    pub(crate) reason: Box<Error>,
    /// The user namespace that this process is in by now.
    pub(crate) namespace: Option<UserNamespace>,
}

/// Serves the squashfs `partition` of `file` (at `path`, for messages): the mount, and the user namespace that this
/// process is in then. All files are shown as the user's own.
/// `enter` makes the namespace.
pub(crate) fn mount(
    path: &Path,
    file: &File,
    partition: &Partition,
    enter: impl FnOnce() -> Result<UserNamespace, Error>,
) -> Result<(OwnedFd, UserNamespace), Refused> {
    let early = |reason: Error| Refused { reason: Box::new(reason), namespace: None };
    // Before a namespace is made.
    let opened = open(path, file, partition).map_err(early)?;
    let namespace = enter().map_err(early)?;
    match serve(&namespace, opened) {
        Ok(mount) => Ok((mount, namespace)),
        Err(error) => Err(Refused { reason: Box::new(error), namespace: Some(namespace) }),
    }
}

/// The same for a process that is root in its user namespace. Files have the image's owners where there are other ids, else
/// they are all root's.
pub(crate) fn mount_for_root(
    namespace: &UserNamespace,
    path: &Path,
    file: &File,
    partition: &Partition,
) -> Result<OwnedFd, Error> {
    serve(namespace, open(path, file, partition)?)
}

fn open(path: &Path, file: &File, partition: &Partition) -> Result<(Arc<File>, Reader), Error> {
    siforge_launch::fuse_available()?;
    let image = file.try_clone().map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let image = Arc::new(image);
    let reader = Reader::with_limits(image.clone(), partition.offset, partition.size, siforge_fuse::limits());
    let reader = reader.map_err(|source| Error::Squashfs { path: path.to_owned(), source })?;
    Ok((image, reader))
}

fn serve(namespace: &UserNamespace, (image, reader): (Arc<File>, Reader)) -> Result<OwnedFd, Error> {
    let (uid, gid) = namespace.owner();
    let owners = if namespace.has_other_ids() { Owners::Image } else { Owners::All { uid, gid } };
    let serve = |device| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        // It ends with the mount. There is nobody to tell of anything else; whoever uses the mount sees ENOTCONN.
        let clone = siforge_launch::clone_fuse_device;
        let _ = siforge_fuse::serve(device, reader, owners, workers, clone);
    };
    Ok(siforge_launch::mount_fuse(namespace, "siforge", &[image.as_fd()], serve)?)
}
