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
pub(crate) fn mount(path: &Path, file: &File, partition: &Partition) -> Result<(OwnedFd, UserNamespace), Refused> {
    let early = |reason: Error| Refused { reason: Box::new(reason), namespace: None };
    siforge_launch::fuse_available().map_err(|error| early(error.into()))?;
    let image = file.try_clone().map_err(|source| early(Error::Read { path: path.to_owned(), source }))?;
    let image = Arc::new(image);
    let limits = siforge_fuse::limits();
    let reader = Reader::with_limits(image.clone(), partition.offset, partition.size, limits)
        .map_err(|source| early(Error::Squashfs { path: path.to_owned(), source }))?;
    let namespace = UserNamespace::create().map_err(|error| early(error.into()))?;
    let (uid, gid) = namespace.owner();
    let serve = |device| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        // It ends with the mount. There is nobody to tell of anything else; whoever uses the mount sees ENOTCONN.
        let clone = siforge_launch::clone_fuse_device;
        let _ = siforge_fuse::serve(device, reader, Owners::All { uid, gid }, workers, clone);
    };
    match siforge_launch::mount_fuse(&namespace, "siforge", &[image.as_fd()], serve) {
        Ok(mount) => Ok((mount, namespace)),
        Err(error) => Err(Refused { reason: Box::new(error.into()), namespace: Some(namespace) }),
    }
}
