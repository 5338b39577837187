//! Files of a root file system that is being made, by paths that never leave it: every path is resolved as the image
//! itself would see it (openat2(2), RESOLVE_IN_ROOT), so that a link in an image means nothing on the host.

use super::Error;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// openat2 gives EAGAIN when something is renamed during a walk with `..`; this many are no accident.
const ATTEMPTS: u32 = 256;

/// A root directory.
pub(crate) struct Root {
    fd: OwnedFd,
    /// On the host, for messages and for programs of the host.
    pub(crate) path: PathBuf,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::at("open", path))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The host's own.
    pub(crate) fn host() -> Result<Self, Error> {
        Self::open(Path::new("/"))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn open_in(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The parent of a relative path's first name.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// What lies at `path`, links followed; None: nothing.
    pub(crate) fn stat(&self, path: &Path) -> Option<Stat> {
        self.open_in(path, OFlags::PATH).and_then(|fd| rustix::fs::fstat(&fd)).ok()
    }

    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        self.stat(path).is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// An open directory.
    pub(crate) fn dir(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(Error::at("open directory", path))
    }

    /// A file of at most `limit` bytes; None: there is none.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        // NONBLOCK: a fifo in that place must not hang the build.
        let fd = match self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(Error::at("read", path)(errno)),
        };
        let mut bytes = Vec::new();
        File::from(fd).take(limit + 1).read_to_end(&mut bytes).map_err(Error::at("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { path: path.to_owned(), limit });
        }
        Ok(Some(bytes))
    }

    /// Names in a directory, sorted; none if there is no such directory.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
        let dir = match self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
            Err(errno) => return Err(Error::at("list", path)(errno)),
        };
        names(&dir).map_err(Error::at("list", path))
    }

    /// Makes a directory and what is missing above it, 0755.
    pub(crate) fn make_dirs(&self, path: &Path) -> Result<OwnedFd, Error> {
        if let Ok(dir) = self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            return Ok(dir);
        }
        let parent = match path.parent() {
            Some(parent) => self.make_dirs(parent)?,
            None => return self.dir(path),
        };
        if let Some(name) = path.file_name() {
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::at("make directory", path)(errno)),
            }
        }
        self.dir(path)
    }

    /// Writes a file anew, in a directory that is made if need be. A link in its place is replaced, not followed.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        let (parent, name) = self.place(path)?;
        remove_at(&parent, &name).map_err(Error::at("replace", path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(mode)).map_err(Error::at("create", path))?;
        // The umask does not count.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::at("set the mode of", path))?;
        File::from(file).write_all(bytes).map_err(Error::at("write", path))
    }

    pub(crate) fn symlink(&self, path: &Path, target: &str) -> Result<(), Error> {
        let (parent, name) = self.place(path)?;
        remove_at(&parent, &name).map_err(Error::at("replace", path))?;
        rustix::fs::symlinkat(target, &parent, &name).map_err(Error::at("make link", path))
    }

    /// Removes a file or a link; nothing there is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Error> {
        let Some((Ok(parent), name)) = path.parent().map(|parent| self.dir(parent)).zip(path.file_name()) else {
            return Ok(());
        };
        remove_at(&parent, name).map_err(Error::at("remove", path))
    }

    /// The directory that holds the last name of `path`, made if need be, and that name.
    pub(crate) fn place(&self, path: &Path) -> Result<(OwnedFd, std::ffi::OsString), Error> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok((self.make_dirs(parent)?, name.to_owned())),
            _ => Err(Error::at("write", path)(Errno::ISDIR)),
        }
    }
}

/// The path without `.` and `..`, by name alone.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// Removes a name that is no directory.
pub(crate) fn remove_at(dir: &OwnedFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn names(dir: &OwnedFd) -> Result<Vec<std::ffi::OsString>, Errno> {
    use std::os::unix::ffi::OsStringExt;
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}
