//! What each kind of member does to its layer.

use crate::entry::{Entry, EntryKind};
use crate::path::printable;
use crate::tar::{Header, Type};
use crate::tree::{InodeId, Kind, Meta};
use crate::{Error, Merge, Warning};

use super::Offer;
use super::layer::{Layer, MAX_NAME, Place};
use super::nodes::{Above, Body, Directory, NodeId};

/// Linux: PATH_MAX without its NUL.
const MAX_TARGET: usize = 4095;

/// Of a member's own name.
enum Marker<'a> {
    /// `.wh.NAME`
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`
    Opaque,
    /// Any other `.wh..wh.*`, at any depth: what AUFS kept for itself.
    Aufs,
}

impl Merge {
    /// Places one member of a tar; a regular file's bytes are asked for.
    pub(super) fn member(&mut self, layer: &mut Layer, header: Header) -> Result<Option<Offer>, Error> {
        self.count_entry()?;
        if let Some(marker) = marker(&header.path) {
            self.mark(layer, &header.path, marker)?;
            return Ok(None);
        }
        let path = &header.path;
        let kind = match header.kind {
            Type::HardLink => {
                self.hard_link(layer, path, &header.link)?;
                return Ok(None);
            }
            Type::Directory => Kind::Directory,
            Type::File => Kind::File { size: header.size },
            Type::Symlink => Kind::Symlink { target: self.target(path, &header.link)? },
            Type::CharDevice => {
                let (major, minor) = device(&header)?;
                Kind::CharDevice { major, minor }
            }
            Type::BlockDevice => {
                let (major, minor) = device(&header)?;
                Kind::BlockDevice { major, minor }
            }
            Type::Fifo => Kind::Fifo,
            Type::Other(kind) => {
                return Err(Error::UnknownType { path: printable(path), kind: char::from(kind) });
            }
        };
        let meta = self.meta(&header)?;
        self.place(layer, path, meta, kind)
    }

    /// Places one entry of ours, and hands back its data.
    pub(super) fn entry<'a>(
        &mut self,
        layer: &mut Layer,
        entry: &Entry<'a>,
    ) -> Result<Option<(Offer, &'a [u8])>, Error> {
        self.count_entry()?;
        let (kind, data): (_, &[u8]) = match entry.kind {
            EntryKind::Directory => (Kind::Directory, b""),
            EntryKind::File { data } => (Kind::File { size: data.len() as u64 }, data),
            EntryKind::Symlink { target } => (Kind::Symlink { target: self.target(entry.path, target)? }, b""),
        };
        let offer = self.place(layer, entry.path, entry.meta.clone(), kind)?;
        Ok(offer.map(|offer| (offer, data)))
    }

    fn place(&mut self, layer: &mut Layer, path: &[u8], meta: Meta, kind: Kind) -> Result<Option<Offer>, Error> {
        let (dir, name) = match self.locate(layer, path)? {
            Place::Child { dir, name } => (dir, name),
            Place::Root if kind == Kind::Directory => {
                if let Some(root) = self.nodes.directory_mut(layer.root) {
                    root.meta = Some(meta);
                }
                return Ok(None);
            }
            Place::Root => {
                return Err(Error::RootNotDirectory { path: printable(path), kind: kind_name(&kind) });
            }
        };
        let Kind::File { size } = kind else {
            if kind == Kind::Directory {
                self.put_directory(layer, dir, name, meta)?;
            } else {
                let inode = self.add_inode(meta, kind);
                self.put_leaf(layer, dir, name, inode)?;
            }
            return Ok(None);
        };
        self.apparent_bytes = self.apparent_bytes.saturating_add(size);
        if self.apparent_bytes > self.limits.apparent_bytes {
            return Err(Error::TooManyBytes { path: printable(path), limit: self.limits.apparent_bytes });
        }
        let emit = if self.known.is_known() {
            self.known.get(self.files.len(), layer.files.len())
        } else {
            self.nodes.above_child(dir, name) == Above::Free || layer.is_wanted(path)
        };
        let inode = self.add_inode(meta, Kind::File { size });
        self.states[inode as usize].emitted = emit;
        layer.files.push(inode);
        self.put_leaf(layer, dir, name, inode)?;
        Ok(Some(Offer { inode, size, emit }))
    }

    fn put_directory(&mut self, layer: &mut Layer, dir: NodeId, name: &[u8], meta: Meta) -> Result<(), Error> {
        let child = self.nodes.child(dir, name);
        if let Some(directory) = child.and_then(|child| self.nodes.directory_mut(child)) {
            directory.meta = Some(meta);
            return Ok(());
        }
        self.keep(name.len())?;
        let above = self.nodes.above_child(dir, name);
        if self.put(dir, name, Directory::body(Some(meta), above)).1 {
            layer.forget_parent();
        }
        Ok(())
    }

    pub(super) fn put_leaf(
        &mut self,
        layer: &mut Layer,
        dir: NodeId,
        name: &[u8],
        inode: InodeId,
    ) -> Result<(), Error> {
        self.keep(name.len())?;
        if self.put(dir, name, Body::Leaf(inode)).1 {
            layer.forget_parent();
        }
        Ok(())
    }

    fn mark(&mut self, layer: &mut Layer, path: &[u8], marker: Marker<'_>) -> Result<(), Error> {
        if let Marker::Aufs = marker {
            return Ok(());
        }
        let Place::Child { dir, .. } = self.locate(layer, path)? else {
            return Ok(());
        };
        match marker {
            Marker::Whiteout(name) => {
                if matches!(name, b"" | b"." | b"..") {
                    return Err(Error::BadWhiteout { path: printable(path) });
                }
                self.keep(name.len())?;
                let node = match self.nodes.child(dir, name) {
                    Some(node) => node,
                    None => self.put(dir, name, Body::Nothing).0,
                };
                self.nodes.get_mut(node).cut = true;
            }
            Marker::Opaque => {
                if let Some(directory) = self.nodes.directory_mut(dir) {
                    directory.opaque = true;
                }
            }
            Marker::Aufs => {}
        }
        Ok(())
    }

    fn target(&mut self, path: &[u8], target: &[u8]) -> Result<Vec<u8>, Error> {
        if target.is_empty() {
            return Err(Error::EmptySymlink { path: printable(path) });
        }
        if target.len() > MAX_TARGET {
            return Err(Error::SymlinkTooLong { path: printable(path), limit: MAX_TARGET });
        }
        self.keep(target.len())?;
        Ok(target.to_vec())
    }

    /// Once for each name.
    fn warn_of_xattr(&mut self, path: &[u8], dropped: &[u8]) {
        let dropped = printable(dropped);
        let is_same = |warning: &Warning| matches!(warning, Warning::XattrDropped { name, .. } if *name == dropped);
        if !self.warnings.iter().any(is_same) {
            self.warn(Warning::XattrDropped { path: printable(path), name: dropped });
        }
    }

    fn meta(&mut self, header: &Header) -> Result<Meta, Error> {
        let path = || printable(&header.path);
        let mut xattrs = Vec::with_capacity(header.xattrs.len());
        let mut bytes = 0;
        for (name, value) in &header.xattrs {
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(Error::XattrName { path: path() });
            }
            bytes += name.len() + value.len();
            if bytes > self.limits.xattr_bytes {
                return Err(Error::XattrsTooLarge { path: path(), limit: self.limits.xattr_bytes });
            }
            if is_kept_xattr(name) {
                xattrs.push((name.clone(), value.clone()));
            } else {
                self.warn_of_xattr(&header.path, name);
            }
        }
        self.keep(bytes)?;
        Ok(Meta {
            mode: (header.mode & 0o7777) as u16,
            uid: owner(header, "uid", header.uid)?,
            gid: owner(header, "gid", header.gid)?,
            mtime: header.mtime,
            xattrs,
        })
    }
}

impl Layer {
    fn is_wanted(&self, path: &[u8]) -> bool {
        !self.wanted.is_empty() && self.wanted.contains(&crate::path::components(path).join(&b'/'))
    }
}

fn marker(path: &[u8]) -> Option<Marker<'_>> {
    // Nearly no path has one, and this look is cheap.
    if !path.windows(4).any(|window| window == b".wh.") {
        return None;
    }
    let components = crate::path::components(path);
    let (last, parents) = components.split_last()?;
    let is_aufs = |name: &[u8]| name.starts_with(b".wh..wh.");
    if *last == b".wh..wh..opq" && !parents.iter().any(|name| is_aufs(name)) {
        return Some(Marker::Opaque);
    }
    if components.iter().any(|name| is_aufs(name)) {
        return Some(Marker::Aufs);
    }
    last.strip_prefix(b".wh.").map(Marker::Whiteout)
}

/// What an image keeps. Overlayfs's own attributes would take effect when the image is a lower layer of a mount;
/// labels and ACLs belong to the host's policy and are not in squashfs.
fn is_kept_xattr(name: &[u8]) -> bool {
    match name.strip_prefix(b"user.").or_else(|| name.strip_prefix(b"trusted.")) {
        Some(rest) => !rest.is_empty() && !rest.starts_with(b"overlay."),
        None => name == b"security.capability",
    }
}

/// Negative ids are what a C writer makes of ids above 2^31 (nobody is -2 on some); -1 is none at all for `chown`.
fn owner(header: &Header, what: &'static str, value: i64) -> Result<u32, Error> {
    let id = u32::try_from(value).or_else(|_| i32::try_from(value).map(|id| id as u32));
    match id {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::OutOfRange { path: printable(&header.path), what, value }),
    }
}

/// Linux: 12 bits of major, 20 of minor.
fn device(header: &Header) -> Result<(u32, u32), Error> {
    let number = |what, value: i64, limit: u32| match u32::try_from(value) {
        Ok(number) if number <= limit => Ok(number),
        _ => Err(Error::OutOfRange { path: printable(&header.path), what, value }),
    };
    Ok((number("device major", header.major, 0xfff)?, number("device minor", header.minor, 0xf_ffff)?))
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory => "directory",
        Kind::File { .. } => "file",
        Kind::Symlink { .. } => "symlink",
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}
