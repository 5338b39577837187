//! Squashfs 4.0 on disk: what the writer and the reader share.
//!
//! ```text
//!  0 ┌───────────────────────────────┐
//!    │ superblock, 96 bytes          │ [`Superblock`]
//! 96 ├───────────────────────────────┤
//!    │ codec options, if any         │ one stored metadata block, flag COMPRESSOR_OPTIONS
//!    ├───────────────────────────────┤
//!    │ data blocks and fragment      │ sizes: in the file's inode, in the fragment table ([`BLOCK_STORED`])
//!    │ blocks, in any order          │
//!    ├───────────────────────────────┤ inode_table
//!    │ inodes                        │ metadata blocks; an inode is found by a [`MetaRef`]
//!    ├───────────────────────────────┤ directory_table
//!    │ directory listings            │ metadata blocks
//!    ├───────────────────────────────┤
//!    │ fragment entries, 16 bytes    │ metadata blocks ┐
//!    ├──────────────────────────────fragment_table      │ an indexed table: 8 KiB of entries in each metadata
//!    │ u64 place of each block above │                 ┘ block; the superblock names the *index*
//!    ├───────────────────────────────┤
//!    │ inode references, 8 bytes     │ indexed table export_table: entry n - 1 is where inode number n lies
//!    ├───────────────────────────────┤
//!    │ uid and gid values, 4 bytes   │ indexed table id_table; inodes hold indices into it
//!    ├───────────────────────────────┤
//!    │ extended attributes           │ metadata blocks: keys and values
//!    │ attribute set entries, 16 B   │ metadata blocks: where a set's keys begin, how many
//!    ├───────────────────────────────┤ xattr_table
//!    │ u64 start of the keys, u32    │
//!    │ sets, u32 0, u64 index …      │
//!    └───────────────────────────────┘ bytes_used; then zeros up to a multiple of 4096
//! ```
//!
//! All numbers are little endian; all places count from the image's first byte. The kernel demands the tables in this
//! order and without gaps (fs/squashfs/super.c, each table must end where the next begins).
//!
//! A **metadata block** is a u16 header, [`METADATA_STORED`] | stored length, and at most that many bytes that unpack to
//! exactly 8192 bytes (the last block of a table: to the rest). Records cross block borders freely.
//!
//! Sources: fs/squashfs/squashfs_fs.h and the readers beside it in Linux; squashfs-tools `mksquashfs.c`, `xattr.c`.

use std::num::NonZeroU16;

pub const MAGIC: u32 = 0x7371_7368;
pub const VERSION: (u16, u16) = (4, 0);
pub const SUPERBLOCK_SIZE: usize = 96;
/// Unpacked bytes of a full metadata block.
pub const METADATA_SIZE: usize = 8192;
/// Set in a metadata block's header when its bytes are stored as they are.
pub const METADATA_STORED: u16 = 0x8000;
/// Set in the size word of a data or fragment block when its bytes are stored as they are. A size word of 0 is a hole.
pub const BLOCK_STORED: u32 = 1 << 24;
/// Images are padded to this, as mksquashfs does: block devices are read in such units.
pub const PADDING: u64 = 4096;
/// "Absent" as a place of a table.
pub const NO_TABLE: u64 = u64::MAX;
/// "Absent" as a fragment number.
pub const NO_FRAGMENT: u32 = u32::MAX;
/// "Absent" as an index of an attribute set.
pub const NO_XATTRS: u32 = u32::MAX;
/// The largest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// The largest symlink target: PATH_MAX without its NUL.
pub const SYMLINK_MAX: usize = 4095;
/// Distinct owner and group ids: their number is a u16.
pub const IDS_MAX: usize = 65_535;
/// Entries under one directory header (SQUASHFS_DIR_COUNT).
pub const HEADER_ENTRIES_MAX: usize = 256;
/// The listing's size in a directory's inode counts `.` and `..` as three bytes.
pub const LISTING_EXTRA: u32 = 3;
/// The largest extended attribute that getxattr can return (XATTR_SIZE_MAX).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// The largest name of an extended attribute, with its prefix (XATTR_NAME_MAX).
pub const XATTR_NAME_MAX: usize = 255;
/// Set in a key's type when the value is a reference to a value elsewhere in the keys' table.
pub const XATTR_OUT_OF_LINE: u16 = 0x100;
/// Namespaces that can be stored; the index is the key's type.
pub const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Superblock flags.
pub mod flags {
    /// Inodes, blocks, fragments, attributes and ids are stored as they are; the kernel does not look at it.
    pub const STORED: u16 = 1 | 1 << 1 | 1 << 3 | 1 << 8 | 1 << 11;
    /// Equal files share their blocks.
    pub const DUPLICATES: u16 = 1 << 6;
    /// There is an export table.
    pub const EXPORTABLE: u16 = 1 << 7;
    /// There is no attribute table.
    pub const NO_XATTRS: u16 = 1 << 9;
    /// A codec option block follows the superblock.
    pub const COMPRESSOR_OPTIONS: u16 = 1 << 10;
}

/// Codec numbers of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CodecId {
    Gzip = 1,
    /// Old and unloved: the kernel has never read it, only squashfs-tools and squashfs-tools-ng do.
    Lzma = 2,
    Lzo = 3,
    Xz = 4,
    Lz4 = 5,
    Zstd = 6,
}

impl CodecId {
    pub fn from_u16(id: u16) -> Option<Self> {
        Some(match id {
            1 => Self::Gzip,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => return None,
        })
    }
}

/// A place in a table of metadata blocks: `block << 16 | offset`, where `block` is the distance in bytes of the metadata
/// block's header from the table's start and `offset` is within the unpacked block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct MetaRef(pub u64);

impl MetaRef {
    pub fn new(block: u64, offset: u16) -> Self {
        Self(block << 16 | u64::from(offset))
    }

    pub fn block(self) -> u64 {
        self.0 >> 16
    }

    pub fn offset(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// The first 96 bytes.
///
/// ```text
///  0 u32 magic "hsqs"  4 u32 inodes         8 u32 mtime    12 u32 block size
/// 16 u32 fragments    20 u16 codec         22 u16 log2 of the block size
/// 24 u16 flags        26 u16 ids           28 u16 4        30 u16 0
/// 32 u64 root inode   40 u64 bytes used    48 u64 id table 56 u64 xattr table
/// 64 u64 inode table  72 u64 directories   80 u64 fragments  88 u64 export table
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub inodes: u32,
    pub mtime: u32,
    pub block_size: u32,
    pub fragments: u32,
    pub codec: u16,
    pub flags: u16,
    pub ids: u16,
    pub root: MetaRef,
    pub bytes_used: u64,
    pub id_table: u64,
    pub xattr_table: u64,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: u64,
    pub export_table: u64,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK_SIZE);
        for word in [MAGIC, self.inodes, self.mtime, self.block_size, self.fragments] {
            put32(&mut out, word);
        }
        let log = self.block_size.trailing_zeros() as u16;
        for half in [self.codec, log, self.flags, self.ids, VERSION.0, VERSION.1] {
            put16(&mut out, half);
        }
        for long in [
            self.root.0,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            put64(&mut out, long);
        }
        out
    }
}

/// Types of inodes. Directory entries hold the basic type also when the inode is an extended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum InodeType {
    Directory = 1,
    File = 2,
    Symlink = 3,
    BlockDevice = 4,
    CharDevice = 5,
    Fifo = 6,
    Socket = 7,
}

impl InodeType {
    /// The extended inode of a type is this much further.
    pub const EXTENDED: u16 = 7;

    /// None unless it is a basic type.
    pub fn from_u16(kind: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Directory,
            2 => Self::File,
            3 => Self::Symlink,
            4 => Self::BlockDevice,
            5 => Self::CharDevice,
            6 => Self::Fifo,
            7 => Self::Socket,
            _ => return None,
        })
    }
}

/// What all inodes begin with: u16 type, u16 mode, u16 uid index, u16 gid index, u32 mtime, u32 number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InodeHeader {
    /// Permission bits: 0o7777.
    pub mode: u16,
    pub uid_index: u16,
    pub gid_index: u16,
    pub mtime: u32,
    pub number: u32,
}

/// What follows an inode's header. One shape for the basic and the extended form; encoding takes the basic form unless
/// something needs the extended one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    Directory(Directory<'a>),
    File(File<'a>),
    /// `u32 links, u32 length, target`, extended: `…, u32 xattrs`.
    Symlink {
        links: u32,
        target: &'a [u8],
        xattrs: u32,
    },
    /// `u32 links, u32 rdev`, extended: `…, u32 xattrs`. The kind is BlockDevice or CharDevice.
    Device {
        kind: InodeType,
        links: u32,
        rdev: u32,
        xattrs: u32,
    },
    /// `u32 links`, extended: `…, u32 xattrs`. The kind is Fifo or Socket.
    Ipc {
        kind: InodeType,
        links: u32,
        xattrs: u32,
    },
}

/// ```text
/// basic:    u32 listing block, u32 links, u16 size, u16 listing offset, u32 parent
/// extended: u32 links, u32 size, u32 listing block, u32 parent, u16 index entries, u16 listing offset, u32 xattrs,
///           index entries: u32 offset in the listing, u32 its metadata block, u32 name length - 1, name
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory<'a> {
    /// Where the listing begins in the directory table.
    pub listing: MetaRef,
    /// Bytes of the listing + [`LISTING_EXTRA`].
    pub size: u32,
    /// 2 + subdirectories.
    pub links: u32,
    /// The parent's inode number; the root's is the number of inodes + 1, as mksquashfs writes it.
    pub parent: u32,
    pub xattrs: u32,
    /// Sorted by offset and by name.
    pub index: &'a [DirectoryIndex],
}

/// Lets a lookup start at the header behind which a name must stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIndex {
    /// Where a directory header begins, in bytes of the listing.
    pub offset: u32,
    /// The metadata block that holds the header, as in [`MetaRef::block`].
    pub block: u32,
    /// The first name under the header.
    pub name: Box<[u8]>,
}

/// ```text
/// basic:    u32 start, u32 fragment, u32 offset in it, u32 size, u32 block sizes …
/// extended: u64 start, u64 size, u64 sparse, u32 links, u32 fragment, u32 offset, u32 xattrs, u32 block sizes …
/// ```
///
/// Without a fragment the block list covers the tail; with one, only the full blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Place of the first block; the others follow without gaps, holes take nothing.
    pub start: u64,
    pub size: u64,
    /// Bytes in holes.
    pub sparse: u64,
    pub links: u32,
    pub fragment: u32,
    pub fragment_offset: u32,
    pub xattrs: u32,
    /// Size words, see [`BLOCK_STORED`].
    pub blocks: &'a [u32],
}

impl InodeHeader {
    /// Appends the header and the body.
    pub fn encode(&self, body: &Body<'_>, out: &mut Vec<u8>) {
        let extended = body.needs_extended();
        let kind = body.kind() as u16 + if extended { InodeType::EXTENDED } else { 0 };
        for half in [kind, self.mode, self.uid_index, self.gid_index] {
            put16(out, half);
        }
        put32(out, self.mtime);
        put32(out, self.number);
        match body {
            Body::Directory(directory) => directory.encode(extended, out),
            Body::File(file) => file.encode(extended, out),
            Body::Symlink { links, target, .. } => {
                put32(out, *links);
                put32(out, target.len() as u32);
                out.extend_from_slice(target);
            }
            Body::Device { links, rdev, .. } => {
                put32(out, *links);
                put32(out, *rdev);
            }
            Body::Ipc { links, .. } => put32(out, *links),
        }
        if let (true, Body::Symlink { xattrs, .. } | Body::Device { xattrs, .. } | Body::Ipc { xattrs, .. }) =
            (extended, body)
        {
            put32(out, *xattrs);
        }
    }
}

impl Body<'_> {
    pub fn kind(&self) -> InodeType {
        match self {
            Self::Directory(_) => InodeType::Directory,
            Self::File(_) => InodeType::File,
            Self::Symlink { .. } => InodeType::Symlink,
            Self::Device { kind, .. } | Self::Ipc { kind, .. } => *kind,
        }
    }

    /// Whether something here has no room in the basic form.
    pub fn needs_extended(&self) -> bool {
        match self {
            Self::Directory(d) => d.xattrs != NO_XATTRS || !d.index.is_empty() || d.size > u32::from(u16::MAX),
            Self::File(f) => {
                f.xattrs != NO_XATTRS
                    || f.links > 1
                    || f.sparse > 0
                    || f.size > u64::from(u32::MAX)
                    || f.start > u64::from(u32::MAX)
            }
            Self::Symlink { xattrs, .. } | Self::Device { xattrs, .. } | Self::Ipc { xattrs, .. } => {
                *xattrs != NO_XATTRS
            }
        }
    }
}

impl Directory<'_> {
    fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        let block = self.listing.block() as u32;
        if !extended {
            put32(out, block);
            put32(out, self.links);
            put16(out, self.size as u16);
            put16(out, self.listing.offset());
            put32(out, self.parent);
            return;
        }
        for word in [self.links, self.size, block, self.parent] {
            put32(out, word);
        }
        put16(out, self.index.len() as u16);
        put16(out, self.listing.offset());
        put32(out, self.xattrs);
        for entry in self.index {
            put32(out, entry.offset);
            put32(out, entry.block);
            put32(out, entry.name.len() as u32 - 1);
            out.extend_from_slice(&entry.name);
        }
    }
}

impl File<'_> {
    fn encode(&self, extended: bool, out: &mut Vec<u8>) {
        if extended {
            // A file of nothing but holes would have no blocks at all, and tar and cp take such a file for empty;
            // mksquashfs leaves it one byte, and so do we.
            let sparse = self.sparse.min(self.size.saturating_sub(1));
            for long in [self.start, self.size, sparse] {
                put64(out, long);
            }
            for word in [self.links, self.fragment, self.fragment_offset, self.xattrs] {
                put32(out, word);
            }
        } else {
            for word in [self.start as u32, self.fragment, self.fragment_offset, self.size as u32] {
                put32(out, word);
            }
        }
        for block in self.blocks {
            put32(out, *block);
        }
    }
}

/// Heads up to 256 entries of a listing: u32 entries - 1, u32 metadata block of their inodes, u32 base inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryHeader {
    pub entries: NonZeroU16,
    /// All entries' inodes begin in this metadata block.
    pub block: u32,
    /// Entries hold their inode number's distance from this as an i16.
    pub base: u32,
}

impl DirectoryHeader {
    pub const SIZE: usize = 12;

    pub fn encode(&self, out: &mut Vec<u8>) {
        put32(out, u32::from(self.entries.get()) - 1);
        put32(out, self.block);
        put32(out, self.base);
    }
}

/// One name: u16 offset of the inode in its metadata block, i16 distance from the header's base, u16 basic type,
/// u16 name length - 1, name. Names ascend by unsigned byte through the whole listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    pub offset: u16,
    pub distance: i16,
    pub kind: InodeType,
    /// 1..=255 bytes.
    pub name: &'a [u8],
}

impl DirectoryEntry<'_> {
    /// Bytes beside the name.
    pub const SIZE: usize = 8;

    pub fn encode(&self, out: &mut Vec<u8>) {
        put16(out, self.offset);
        out.extend_from_slice(&self.distance.to_le_bytes());
        put16(out, self.kind as u16);
        put16(out, self.name.len() as u16 - 1);
        out.extend_from_slice(self.name);
    }
}

/// Where a fragment block lies: u64 place, u32 size word, u32 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    pub start: u64,
    pub size: u32,
}

impl Fragment {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put64(out, self.start);
        put32(out, self.size);
        put32(out, 0);
    }
}

/// A device number as inodes hold it (the kernel's new_encode_dev): minor bits 0–7, 12 bits of major, minor bits 8–19.
/// None when it does not fit.
pub fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major <= 0xfff && minor <= 0xf_ffff).then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor of a device number as inodes hold it.
pub fn decode_device(rdev: u32) -> (u32, u32) {
    (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00)
}

pub(crate) fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}
