//! A file that appears complete or not at all.
//!
//! Written without a name (O_TMPFILE, open(2)), so that a killed build leaves nothing; file systems without it (NFS) get a
//! hidden name beside the target, which is removed unless the process is killed.

use crate::Error;
use crate::convert::file_error;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::linkat;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A SIF starts with `#!`: it can be executed.
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// A file in the making. See the module.
#[derive(Debug)]
pub struct Output {
    file: File,
    target: PathBuf,
    force: bool,
    /// Its hidden name, on file systems without O_TMPFILE.
    temp: Option<PathBuf>,
}

impl Output {
    /// `force`: an existing file is replaced.
    pub fn create(target: &Path, force: bool) -> Result<Self, Error> {
        if !force && target.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: target.to_owned() });
        }
        let dir = match target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let (file, temp) = match open(dir, OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC, MODE) {
            Ok(fd) => (File::from(fd), None),
            Err(nix::Error::EOPNOTSUPP | nix::Error::EISDIR | nix::Error::EINVAL) => {
                let temp = hidden(target);
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
                let fd = open(&temp, flags, MODE).map_err(|errno| file_error("create", &temp, errno.into()))?;
                (File::from(fd), Some(temp))
            }
            Err(errno) => return Err(file_error("create a file in", dir, errno.into())),
        };
        Ok(Self { file, target: target.to_owned(), force, temp })
    }

    /// Where to write.
    pub fn file(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(|source| file_error("duplicate the descriptor of", &self.target, source))
    }

    /// Writes through to the disk and gives the file its name.
    pub fn publish(mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(|source| file_error("write through", &self.target, source))?;
        if self.temp.is_none() {
            // With force, first to a hidden name: rename replaces in one step, link never does.
            let name = if self.force { hidden(&self.target) } else { self.target.clone() };
            self.link(&name)?;
            if !self.force {
                return Ok(());
            }
            self.temp = Some(name);
        }
        let Some(temp) = self.temp.clone() else {
            return Ok(());
        };
        let result = if self.force {
            std::fs::rename(&temp, &self.target).map_err(|source| file_error("replace", &self.target, source))
        } else {
            std::fs::hard_link(&temp, &self.target).map_err(|source| self.link_error(&self.target, source))
        };
        if result.is_ok() && self.force {
            self.temp = None;
        }
        result
    }

    fn link(&self, name: &Path) -> Result<(), Error> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)
            .map_err(|errno| self.link_error(name, errno.into()))
    }

    fn link_error(&self, name: &Path, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::AlreadyExists {
            Error::Exists { path: self.target.clone() }
        } else {
            file_error("name", name, source)
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            // It may be gone already; there is nobody left to tell otherwise.
            let _ = std::fs::remove_file(temp);
        }
    }
}

/// `.NAME.<pid>.partial` beside the target.
fn hidden(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn write(path: &Path, force: bool, text: &str) -> Result<(), Error> {
        let output = Output::create(path, force)?;
        output.file()?.write_all(text.as_bytes()).unwrap();
        assert!(names(path.parent().unwrap()).iter().all(|name| name == "x.sif"), "visible before it is complete");
        output.publish()
    }

    #[test]
    fn a_file_appears_complete_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sif");
        write(&path, false, "one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o700, 0o700);
        let error = write(&path, false, "two").unwrap_err().to_string();
        assert!(error.contains("will not overwrite"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write(&path, true, "three").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        drop(Output::create(&path, true).unwrap());
        assert_eq!(names(dir.path()), ["x.sif"]);
    }

    #[test]
    fn a_name_taken_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sif");
        let output = Output::create(&path, false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(matches!(output.publish(), Err(Error::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    }
}
