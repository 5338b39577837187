//! Named pieces of a folder or of an archive.

use super::archive::Index;
use super::{Error, Options, unpack};
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Read at once when a whole piece is hashed.
const HASH_BUFFER: usize = 1 << 20;

/// Bytes that lie in a file.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Where the pieces of an image are.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) shown: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Archive(Index),
}

impl Files {
    pub(super) fn folder(shown: String, dir: &Path) -> Self {
        Self { shown, place: Place::Folder(dir.to_owned()) }
    }

    pub(super) fn archive(shown: String, path: &Path, options: &Options<'_>) -> Result<Self, Error> {
        let file = open_regular(&shown, path)?;
        Self::of(shown, file, options)
    }

    pub(super) fn of(shown: String, file: File, options: &Options<'_>) -> Result<Self, Error> {
        let file = unpack::unpacked(&shown, file, options)?;
        let index = Index::read(&shown, Arc::new(file))?;
        Ok(Self { shown, place: Place::Archive(index) })
    }

    /// The piece of this name. In a folder the name must be one that we made: it becomes a path.
    pub(super) fn find(&self, name: &str) -> Result<Extent, Error> {
        match &self.place {
            Place::Folder(dir) => {
                let file = open_regular(&self.shown, &dir.join(name))?;
                let io = |source| self.io("read the size of", name, source);
                let size = file.metadata().map_err(io)?.len();
                Ok(Extent { file: Arc::new(file), offset: 0, size })
            }
            Place::Archive(index) => index.find(&self.shown, name),
        }
    }

    /// A whole document of at most `max` bytes.
    pub(super) fn read(&self, name: &str, what: &'static str, max: u64) -> Result<Vec<u8>, Error> {
        let extent = self.find(name)?;
        if extent.size > max {
            return Err(Error::Limit { shown: self.shown.clone(), what, actual: extent.size, max });
        }
        let mut bytes = vec![0; extent.size as usize];
        extent.file.read_exact_at(&mut bytes, extent.offset).map_err(|source| self.io("read", name, source))?;
        Ok(bytes)
    }

    /// The first bytes of a piece; fewer than asked for when it has no more.
    pub(super) fn head<const N: usize>(&self, name: &str, extent: &Extent) -> Result<([u8; N], usize), Error> {
        let mut bytes = [0; N];
        let wanted = usize::try_from(extent.size).unwrap_or(N).min(N);
        extent
            .file
            .read_exact_at(&mut bytes[..wanted], extent.offset)
            .map_err(|source| self.io("read", name, source))?;
        Ok((bytes, wanted))
    }

    pub(super) fn hash(&self, name: &str, extent: &Extent) -> Result<Digest, Error> {
        let (mut sha, mut buffer, mut at) = (Sha256::new(), vec![0; HASH_BUFFER], 0);
        while at < extent.size {
            let wanted = usize::try_from(extent.size - at).map_or(HASH_BUFFER, |left| left.min(HASH_BUFFER));
            let piece = &mut buffer[..wanted];
            extent.file.read_exact_at(piece, extent.offset + at).map_err(|source| self.io("read", name, source))?;
            sha.update(&piece);
            at += wanted as u64;
        }
        Ok(Digest::from_bytes(sha.finalize().into()))
    }

    pub(super) fn malformed(&self, name: &str, detail: impl ToString) -> Error {
        let detail = crate::answer::one_line(&detail.to_string(), &[]);
        Error::Malformed { shown: self.shown.clone(), name: name.to_owned(), detail }
    }

    fn io(&self, operation: &'static str, name: &str, source: std::io::Error) -> Error {
        Error::Io { shown: self.shown.clone(), operation, name: name.to_owned(), source }
    }
}

/// A FIFO would block, and a device is no image.
fn open_regular(shown: &str, path: &Path) -> Result<File, Error> {
    let io =
        |operation, source| Error::Io { shown: shown.to_owned(), operation, name: path.display().to_string(), source };
    let metadata = path.metadata().map_err(|source| io("open", source))?;
    if !metadata.is_file() {
        let detail = match metadata.is_dir() {
            true => "is a directory, not a file; for a folder write oci:DIR",
            false => "is not a regular file",
        };
        return Err(Error::Format { shown: shown.to_owned(), detail: format!("{} {detail}", path.display()) });
    }
    File::open(path).map_err(|source| io("open", source))
}
