//! A directory as it lies there. Symlinks are never followed: everything is opened beneath the directory above it.

use super::tar::told;
use super::{Item, Kind, MAX_DEPTH, Walk};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, major, minor, openat, readlinkat, statat,
};
use rustix::io::Errno;
use siforge_squashfs::read::OWNER_XATTR;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// XATTR_LIST_MAX and XATTR_SIZE_MAX of Linux.
const XATTR_MAX: usize = 64 << 10;

pub(super) struct Walker {
    /// Open directories from the root on; each with the names that are still to be given, last first.
    open: Vec<Level>,
    root: Option<OwnedFd>,
    what: What,
}

/// What a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A root file system.
    Tree,
    /// One in which everything shall be root's.
    TreeOfRoot,
    /// The upper layer of an overlay with the option userxattr (Linux Documentation/filesystems/overlayfs.rst): a character
    /// device 0:0 hides a name, and user.overlay.opaque=y all that is below a directory.
    Upper,
}

struct Level {
    dir: OwnedFd,
    path: Vec<u8>,
    names: Vec<CString>,
}

impl Walker {
    pub(super) fn new(path: &Path, what: What) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { open: Vec::new(), root: Some(root), what })
    }

    fn enter(&mut self, dir: OwnedFd, path: Vec<u8>) -> io::Result<()> {
        if self.open.len() >= MAX_DEPTH {
            return Err(told(&path, "directories are too deep"));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_by(|a, b| b.cmp(a));
        self.open.push(Level { dir, path, names });
        Ok(())
    }

    fn item(&self, stat: &Stat, path: Vec<u8>, kind: Kind, mut xattrs: Vec<Xattr>) -> Item {
        let owner = |id: u32| if self.what == What::TreeOfRoot { 0 } else { id };
        let mut owned = (owner(stat.st_uid), owner(stat.st_gid), stat.st_mode & 0o7777);
        // Only whoever could not keep the owners wrote them down.
        if self.what == What::TreeOfRoot
            && let Some(at) = xattrs.iter().position(|(name, _)| name == OWNER_XATTR.as_bytes())
            && let Some(recorded) = recorded(&xattrs[at].1)
        {
            owned = recorded;
            xattrs.remove(at);
        }
        // All whiteouts of an upper layer may be names of one inode.
        let several = stat.st_nlink > 1 && !matches!(kind, Kind::Directory { .. } | Kind::Whiteout);
        Item {
            path,
            kind,
            uid: owned.0,
            gid: owned.1,
            mode: owned.2,
            mtime: stat.st_mtime,
            xattrs,
            inode: several.then_some((stat.st_dev, stat.st_ino)),
        }
    }

    /// Whether it is opaque, and its attributes.
    fn directory(&self, dir: &OwnedFd) -> Result<(bool, Vec<Xattr>), Errno> {
        let xattrs = xattrs_of(dir)?;
        let opaque = |(name, value): &Xattr| name == b"user.overlay.opaque" && value == b"y";
        Ok((self.what == What::Upper && xattrs.iter().any(opaque), self.own(xattrs)))
    }

    /// Without those that are an overlay's.
    fn own(&self, mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
        if self.what == What::Upper {
            xattrs.retain(|(name, _)| !name.starts_with(b"user.overlay."));
        }
        xattrs
    }

    /// None: a socket, which no image holds.
    fn child(&mut self, name: &CStr, path: Vec<u8>) -> io::Result<Option<Item>> {
        let failed = |error: Errno| told(&path, &io::Error::from(error).to_string());
        let level = self.open.last().map(|level| level.dir.as_fd());
        let Some(dir) = level else {
            return Ok(None);
        };
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let (kind, xattrs) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let child = openat(dir, name, DIRECTORY, Mode::empty()).map_err(failed)?;
                let (opaque, xattrs) = self.directory(&child).map_err(failed)?;
                self.enter(child, path.clone())?;
                (Kind::Directory { opaque }, xattrs)
            }
            FileType::RegularFile => {
                let file = openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
                let file = file.map_err(failed)?;
                let xattrs = self.own(xattrs_of(&file).map_err(failed)?);
                (Kind::File { size: stat.st_size.unsigned_abs(), contents: Box::new(File::from(file)) }, xattrs)
            }
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new()).map_err(failed)?.into_bytes();
                (Kind::Symlink { target }, Vec::new())
            }
            FileType::CharacterDevice if self.what == What::Upper && stat.st_rdev == 0 => (Kind::Whiteout, Vec::new()),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
                (Kind::Device { block, major: major(stat.st_rdev), minor: minor(stat.st_rdev) }, Vec::new())
            }
            FileType::Fifo => (Kind::Fifo, Vec::new()),
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        Ok(Some(self.item(&stat, path, kind, xattrs)))
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Walk for Walker {
    fn next(&mut self) -> io::Result<Option<Item>> {
        if let Some(root) = self.root.take() {
            let (stat, (opaque, xattrs)) = (rustix::fs::fstat(&root)?, self.directory(&root)?);
            self.enter(root, Vec::new())?;
            return Ok(Some(self.item(&stat, Vec::new(), Kind::Directory { opaque }, xattrs)));
        }
        while let Some(level) = self.open.last_mut() {
            let Some(name) = level.names.pop() else {
                self.open.pop();
                continue;
            };
            let separator: &[u8] = if level.path.is_empty() { b"" } else { b"/" };
            let path = [level.path.as_slice(), separator, name.to_bytes()].concat();
            if let Some(item) = self.child(&name, path)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// Owner, group and mode of `uid:gid:mode[:…]`.
fn recorded(value: &[u8]) -> Option<(u32, u32, u32)> {
    let mut parts = std::str::from_utf8(value).ok()?.split(':');
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    Some((uid, gid, mode & 0o7777))
}

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Attributes that belong to the file and not to the host that it lies on (labels of its security modules, say).
fn xattrs_of(file: &OwnedFd) -> Result<Vec<Xattr>, Errno> {
    let mut list = vec![0; XATTR_MAX];
    let length = match flistxattr(file, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !(name.starts_with(b"user.") || name == b"security.capability") {
            continue;
        }
        let mut value = vec![0; XATTR_MAX];
        // One that went meanwhile is not there.
        if let Ok(length) = fgetxattr(file, name, &mut value[..]) {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}
