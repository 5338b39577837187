//! The partition of a SIF that is launched or unpacked.

use crate::error::Error;
use siforge_sif::{Filesystem, Partition, Sif};
use std::path::Path;

/// The primary partition if it is one that can be read: squashfs, not encrypted.
pub(crate) fn runnable(sif: &Sif, path: &Path) -> Result<Partition, Error> {
    let partition = sif.primary_partition().map_err(|source| Error::Sif { path: path.to_owned(), source })?;
    match partition.filesystem {
        Filesystem::Squashfs => Ok(partition),
        Filesystem::EncryptedSquashfs | Filesystem::GocryptfsSquashfs => {
            Err(Error::Encrypted { path: path.to_owned() })
        }
        other => Err(Error::FileSystem { path: path.to_owned(), name: other.name() }),
    }
}
