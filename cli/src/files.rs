//! Small files that a user names, and folders that are the user's alone.

use crate::error::Error;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// The whole file; one larger than `limit` bytes is refused.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let wrong = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(wrong)?.take(limit + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > limit {
        return Err(Error::FileTooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// A file without a name in `dir`, which goes with its last descriptor.
pub(crate) fn temporary(dir: &Path) -> Result<File, Error> {
    tempfile::tempfile_in(dir).map_err(|source| Error::Temporary { path: dir.to_owned(), source })
}

/// Puts a file of these bytes in the place of the one that is there, whole; whoever reads it sees the old or the new one.
/// The folder is made if it is missing, for this user alone.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // The file that a link of somebody's dotfiles points at.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file =
        tempfile::Builder::new().prefix(".siforge-").permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
    // The umask does not count.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// Makes the directory, and those above it that are missing, for this user alone: images may hold what others must not
/// read, and unpacked they have the modes of the image. One that is there stays as it is, and is refused when another user
/// could put images there that this user (root, under sudo) would run.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Cache { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if is_trusted(uid, mode, nix::unistd::geteuid().as_raw()) {
        return Ok(());
    }
    Err(Error::ForeignCache { path: path.to_owned(), uid, mode })
}

/// Whether nobody but root, `user` and a group that it chose can write to a directory of `owner` with `mode`.
fn is_trusted(owner: u32, mode: u32, user: u32) -> bool {
    (owner == user || owner == 0) && mode & 0o002 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_cache_is_used() {
        let check = |owner, mode, user, expect| {
            assert_eq!(is_trusted(owner, mode, user), expect, "{owner} {mode:o} {user}");
        };
        check(1000, 0o700, 1000, true);
        check(1000, 0o775, 1000, true);
        check(0, 0o755, 1000, true);
        check(0, 0o700, 0, true);
        check(1000, 0o700, 0, false);
        check(1001, 0o755, 1000, false);
        check(0, 0o1777, 1000, false);
        check(1000, 0o777, 1000, false);
    }

    #[test]
    fn a_file_is_replaced_where_a_link_points() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("new/auth.json");
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        for (at, text) in [(&path, "one"), (&link, "two")] {
            replace(at, text.as_bytes(), 0o600).expect("write");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
            assert_eq!(path.metadata().expect("stat").permissions().mode() & 0o777, 0o600);
        }
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(dir.path().join("new")).expect("list").count(), 1);
    }
}
