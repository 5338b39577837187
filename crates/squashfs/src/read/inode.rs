//! Inodes of all seven types, basic and extended; `format.rs` has their layouts.

use super::metadata::Cursor;
use super::{Error, Reader};
use crate::format::{InodeType, LISTING_EXTRA, MetaRef, NO_FRAGMENT, NO_XATTRS, SYMLINK_MAX, decode_device};

/// One inode. Owner and group are values, not indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Where it lies; the same for all names of a hard-linked inode.
    pub reference: MetaRef,
    /// Permission bits, 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    pub number: u32,
    pub links: u32,
    /// The set of attributes, for [`Reader::xattrs`].
    pub xattrs: Option<u32>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Directory(Directory),
    File(File),
    Symlink {
        target: Box<[u8]>,
    },
    /// `block` or character device.
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    pub(super) listing: MetaRef,
    /// Bytes of the listing.
    pub(super) size: u32,
    /// The parent's inode number.
    pub parent: u32,
    /// Where its index begins in the inode table, and the entries of it.
    pub(super) index: (MetaRef, u16),
}

impl Directory {
    /// What stat(2) shows as a directory's size: its listing's bytes, `.` and `..` counted as three.
    pub fn size(&self) -> u64 {
        u64::from(self.size) + u64::from(LISTING_EXTRA)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Bytes, holes included.
    pub size: u64,
    /// Bytes in holes, as the image claims it; all but one if there is nothing else.
    pub sparse: u64,
    /// Place of the first block.
    pub(super) start: u64,
    /// Number of the fragment block and offset of the tail in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// Where the size words begin in the inode table.
    pub(super) words: MetaRef,
}

impl Inode {
    pub fn kind(&self) -> InodeType {
        match self.body {
            Body::Directory(_) => InodeType::Directory,
            Body::File(_) => InodeType::File,
            Body::Symlink { .. } => InodeType::Symlink,
            Body::Device { block: true, .. } => InodeType::BlockDevice,
            Body::Device { block: false, .. } => InodeType::CharDevice,
            Body::Fifo => InodeType::Fifo,
            Body::Socket => InodeType::Socket,
        }
    }
}

/// Decodes the inode that `cursor` stands at.
pub(super) fn decode(reader: &Reader, reference: MetaRef, cursor: &mut Cursor<'_>) -> Result<Inode, Error> {
    let kind = cursor.u16()?;
    let mode = cursor.u16()? & 0o7777;
    let uid = reader.id(cursor.u16()?)?;
    let gid = reader.id(cursor.u16()?)?;
    let mtime = cursor.u32()?;
    let number = cursor.u32()?;
    let extended = kind > InodeType::EXTENDED;
    let basic = if extended { kind - InodeType::EXTENDED } else { kind };
    let unknown = || Error::InodeType { reference: reference.0, kind };
    let basic = InodeType::from_u16(basic).ok_or_else(unknown)?;
    let (links, xattrs, body) = match basic {
        InodeType::Directory => directory(extended, cursor)?,
        InodeType::File => file(extended, cursor)?,
        _ => {
            let links = cursor.u32()?;
            let body = special(basic, cursor)?;
            (links, if extended { cursor.u32()? } else { NO_XATTRS }, body)
        }
    };
    Ok(Inode { reference, mode, uid, gid, mtime, number, links, xattrs: (xattrs != NO_XATTRS).then_some(xattrs), body })
}

fn directory(extended: bool, cursor: &mut Cursor<'_>) -> Result<(u32, u32, Body), Error> {
    let (block, links, size, offset, parent, xattrs, indexed);
    if extended {
        links = cursor.u32()?;
        size = cursor.u32()?;
        block = cursor.u32()?;
        parent = cursor.u32()?;
        indexed = cursor.u16()?;
        offset = cursor.u16()?;
        xattrs = cursor.u32()?;
    } else {
        block = cursor.u32()?;
        links = cursor.u32()?;
        size = cursor.u16()?.into();
        offset = cursor.u16()?;
        parent = cursor.u32()?;
        xattrs = NO_XATTRS;
        indexed = 0;
    }
    let directory = Directory {
        listing: MetaRef::new(block.into(), offset),
        size: size.saturating_sub(LISTING_EXTRA),
        parent,
        index: (cursor.position(), indexed),
    };
    Ok((links, xattrs, Body::Directory(directory)))
}

fn file(extended: bool, cursor: &mut Cursor<'_>) -> Result<(u32, u32, Body), Error> {
    let (start, size, sparse, links, fragment, offset, xattrs);
    if extended {
        start = cursor.u64()?;
        size = cursor.u64()?;
        sparse = cursor.u64()?;
        links = cursor.u32()?;
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        xattrs = cursor.u32()?;
    } else {
        start = cursor.u32()?.into();
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        size = cursor.u32()?.into();
        sparse = 0;
        links = 1;
        xattrs = NO_XATTRS;
    }
    let file = File {
        size,
        sparse,
        start,
        fragment: (fragment != NO_FRAGMENT).then_some((fragment, offset)),
        words: cursor.position(),
    };
    Ok((links, xattrs, Body::File(file)))
}

/// What lies between the links and the attributes of all other types.
fn special(kind: InodeType, cursor: &mut Cursor<'_>) -> Result<Body, Error> {
    Ok(match kind {
        InodeType::Symlink => {
            let len = cursor.u32()?;
            if len == 0 || len as usize > SYMLINK_MAX {
                return Err(Error::SymlinkTarget { len });
            }
            let mut target = vec![0; len as usize].into_boxed_slice();
            cursor.read(&mut target)?;
            if target.contains(&0) {
                return Err(Error::SymlinkNul);
            }
            Body::Symlink { target }
        }
        InodeType::BlockDevice | InodeType::CharDevice => {
            let (major, minor) = decode_device(cursor.u32()?);
            let block = kind == InodeType::BlockDevice;
            Body::Device { block, major, minor }
        }
        InodeType::Fifo => Body::Fifo,
        // Directories and files have layouts of their own.
        _ => Body::Socket,
    })
}
