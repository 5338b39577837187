//! `%files`: copies from the host, as `cp -fLr` would, or from another stage, owners and links as they are. Destinations,
//! and sources in a stage, are paths as that root file system sees them.
//!
//! ```text
//!   destination ends with /, or is a directory     → below it, by the source's name
//!   else                                           → the destination itself; parents are made
//!   no destination                                 → the source's own path
//! ```

use super::Error;
use super::root::{Root, names, normal, remove_at};
use glob::{MatchOptions, Pattern};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use siforge_definition::FilePair;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Levels of directories.
const MAX_DEPTH: usize = 1024;
/// Names that one pattern may match.
const MAX_MATCHES: usize = 100_000;

/// How files are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// From the host: links are followed, the copies are new files.
    Anew,
    /// From a stage: owners, times, modes, attributes and links stay.
    AsIs,
}

/// Where a copy comes from and goes to.
pub(crate) struct Copy<'a> {
    pub(crate) from: &'a Root,
    /// What a relative source is relative to, inside `from`.
    pub(crate) directory: &'a Path,
    pub(crate) to: &'a Root,
    pub(crate) how: How,
}

impl Copy<'_> {
    /// Copies what one line names; `home`: where a line's destination is taken to lie (an app's directory), if not at `/`.
    pub(crate) fn pair(&self, file: &str, pair: &FilePair, home: Option<&str>) -> Result<(), Error> {
        let told = |problem: String| Error::Files {
            file: file.to_owned(),
            line: pair.line,
            source_path: pair.source.clone(),
            problem,
        };
        let matches = self.matches(&pair.source)?;
        if matches.is_empty() {
            return Err(told("no such file or directory".to_owned()));
        }
        for source in matches {
            let given = pair.destination.clone().unwrap_or_else(|| source.shown.clone());
            let destination = format!("{}/{given}", home.unwrap_or_default());
            self.one(&source, &destination).map_err(|error| match error {
                Error::Path { operation, path, source } => told(format!("{operation} {}: {source}", path.display())),
                error => error,
            })?;
        }
        Ok(())
    }

    fn one(&self, source: &Match, destination: &str) -> Result<(), Error> {
        let contents_only = source.shown.ends_with("/.");
        let name = source.path.file_name().unwrap_or_default();
        let mut target = normal(Path::new(destination));
        if destination.ends_with('/') {
            self.to.make_dirs(&target)?;
        }
        if self.to.is_dir(&target) && !contents_only && !name.is_empty() {
            target.push(name);
        }
        let stat = self.from.stat(&source.path).ok_or(Errno::NOENT).map_err(Error::at("open", &source.path))?;
        let failed = || Error::at::<Errno>("copy to", &target);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let from = self.from.dir(&source.path)?;
            let existed = self.to.is_dir(&target);
            let into = self.to.make_dirs(&target)?;
            if !existed {
                self.finish_directory(&from, &into, &stat).map_err(failed())?;
            }
            return self.directory(&from, &into, &target, 0);
        }
        let (parent, name) = self.to.place(&target)?;
        // Links that were named are followed, as the source's root sees them.
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let from = self.from.open_in(&source.path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed())?;
            return self.regular(from, &parent, &name, &stat).map_err(Error::at("copy to", &target));
        }
        let above = self.from.dir(source.path.parent().unwrap_or(Path::new("/")))?;
        self.entry(&above, source.path.file_name().unwrap_or_default(), &parent, &name, &target, 0)
    }

    fn directory(&self, from: &OwnedFd, into: &OwnedFd, shown: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::at("copy to", shown)(Errno::LOOP));
        }
        for name in names(from).map_err(Error::at("list", shown))? {
            self.entry(from, &name, into, &name, &shown.join(&name), depth)?;
        }
        Ok(())
    }

    /// Copies `name` of `from` to `new` of `into`.
    fn entry(
        &self,
        from: &OwnedFd,
        name: &OsStr,
        into: &OwnedFd,
        new: &OsStr,
        shown: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        let failed = || Error::at::<Errno>("copy to", shown);
        let follow = self.how == How::Anew;
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let stat = rustix::fs::statat(from, name, flags).map_err(failed())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let from = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed())?;
                let made = match rustix::fs::mkdirat(into, new, Mode::from_raw_mode(0o700)) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(errno) => return Err(failed()(errno)),
                };
                // A link in its place is not followed: it may lead out of the image.
                let into = rustix::fs::openat(into, new, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed())?;
                self.directory(&from, &into, shown, depth + 1)?;
                if made { self.finish_directory(&from, &into, &stat).map_err(failed()) } else { Ok(()) }
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let from = rustix::fs::openat(from, name, flags, Mode::empty()).map_err(failed())?;
                self.regular(from, into, new, &stat).map_err(Error::at("copy to", shown))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new()).map_err(failed())?;
                remove_at(into, new).map_err(failed())?;
                rustix::fs::symlinkat(&target, into, new).map_err(failed())?;
                self.owner(into, new, &stat).map_err(failed())
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                remove_at(into, new).map_err(failed())?;
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(into, new, kind, mode, stat.st_rdev).map_err(failed())?;
                self.owner(into, new, &stat).map_err(failed())
            }
            // What no image holds.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn regular(&self, from: OwnedFd, into: &OwnedFd, new: &OsStr, stat: &Stat) -> io::Result<()> {
        remove_at(into, new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = File::from(rustix::fs::openat(into, new, flags, Mode::from_raw_mode(0o600))?);
        let from = File::from(from);
        // Copies in the kernel where it can.
        io::copy(&mut &from, &mut &made)?;
        self.attributes(&from.into(), &made.into(), stat)?;
        Ok(())
    }

    fn finish_directory(&self, from: &OwnedFd, into: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
        self.attributes(from, into, stat)
    }

    /// What the copy has of its original besides its contents.
    fn attributes(&self, from: &OwnedFd, into: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
        if self.how == How::Anew {
            // As cp without -p, with the umask that the reference builds with.
            return rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o777 & !0o002));
        }
        rustix::fs::fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        for (name, value) in xattrs(from)? {
            match rustix::fs::fsetxattr(into, &name[..], &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::futimens(into, &times(stat))
    }

    fn owner(&self, dir: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<(), Errno> {
        if self.how == How::Anew {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What a source means, sorted.
    fn matches(&self, source: &str) -> Result<Vec<Match>, Error> {
        let path = self.directory.join(source);
        if !source.contains(['*', '?', '[']) {
            let path = normal(&path);
            let there = self.from.stat(&path).is_some();
            return Ok(if there { vec![Match { path, shown: source.to_owned() }] } else { Vec::new() });
        }
        let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
        let mut found = vec![(PathBuf::from("/"), PathBuf::new())];
        let given = Path::new(source).components().count();
        let skip = path.components().count() - given;
        for (number, component) in path.components().enumerate().skip(1) {
            let text = component.as_os_str().to_string_lossy().into_owned();
            let shown = number >= skip;
            let pattern = match text.contains(['*', '?', '[']) && shown {
                true => Pattern::new(&text).ok(),
                false => None,
            };
            let mut next = Vec::new();
            for (path, told) in found {
                let told = |name: &OsStr| if shown { told.join(name) } else { told.clone() };
                match &pattern {
                    None => next.push((path.join(&text), told(component.as_os_str()))),
                    Some(pattern) => {
                        for name in self.from.names(&path)? {
                            if name.to_str().is_some_and(|name| pattern.matches_with(name, options)) {
                                next.push((path.join(&name), told(&name)));
                            }
                        }
                    }
                }
            }
            if next.len() > MAX_MATCHES {
                return Err(Error::at("match", &path)(Errno::TOOBIG));
            }
            found = next;
        }
        let root = if source.starts_with('/') { "/" } else { "" };
        let there = found.into_iter().filter(|(path, _)| self.from.stat(path).is_some());
        let one = |(path, told): (PathBuf, PathBuf)| Match { path, shown: format!("{root}{}", told.display()) };
        Ok(there.map(one).collect())
    }
}

struct Match {
    /// In the source's root.
    path: PathBuf,
    /// As the definition names it.
    shown: String,
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    }
}

/// XATTR_LIST_MAX and XATTR_SIZE_MAX of Linux.
const XATTR_MAX: usize = 64 << 10;

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

fn xattrs(file: &OwnedFd) -> Result<Vec<Xattr>, Errno> {
    let mut list = vec![0; XATTR_MAX];
    let length = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno),
    };
    let wanted = |name: &&[u8]| {
        (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) || *name == b"security.capability"
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(wanted) {
        let mut value = vec![0; XATTR_MAX];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}
