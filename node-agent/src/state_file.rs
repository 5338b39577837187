//! Small JSON files in the state directory that survive a kill -9: written whole beside their place, then renamed onto it.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Ten thousand leases and verified files fit; a larger file is not one of ours.
const LIMIT: u64 = 8 * 1024 * 1024;

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// Its text is not what this agent writes.
    #[error("state file {path} is not understood: {source} (it is safe to remove)", path = path.display())]
    Content { path: PathBuf, source: serde_json::Error },
    /// Longer than any that this agent writes.
    #[error("state file {path} is larger than {LIMIT} bytes (it is safe to remove)", path = path.display())]
    TooLarge { path: PathBuf },
}

/// The file's value; None when there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Io { operation: "open", path: path.into(), source });
        }
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
        operation: "read",
        path: path.into(),
        source,
    })?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::TooLarge { path: path.into() });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Content { path: path.into(), source })
}

/// Replaces the file. One writer at a time: callers hold the lock of what they write.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::Content { path: path.into(), source })?;
    let beside = path.with_extension("new");
    let failed = |operation| {
        let path = beside.clone();
        move |source| Error::Io { operation, path, source }
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("create"))?;
    file.write_all(&bytes).map_err(failed("write"))?;
    std::fs::rename(&beside, path).map_err(failed("rename"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_bad_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &vec![1u8, 2]).unwrap();
        write(&path, &vec![3u8]).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![3]));
        std::fs::write(&path, "[1,").unwrap();
        let error = read::<Vec<u8>>(&path).unwrap_err().to_string();
        assert!(error.contains("x.json is not understood"), "{error}");
        std::fs::File::create(&path).unwrap().set_len(LIMIT + 1).unwrap();
        assert!(matches!(read::<Vec<u8>>(&path), Err(Error::TooLarge { .. })));
    }
}
