//! The reader: images from anywhere, by positioned reads of a file, and [`unpack`] for users who may not mount.
//!
//! ```text
//! Reader ── superblock.rs   what must hold before anything else is read
//!   │ ───── inode.rs, directory.rs, xattrs.rs   records ┐ metadata.rs: cursors over metadata blocks, indexed tables
//!   │ ───── data.rs, index.rs   contents of files       ┘ image.rs: checked reads; decompress.rs; cache.rs
//!   └ unpack/               a tree of files
//! ```
//!
//! An image is not trusted. Every place and length is checked against the part of the image that it must lie in; what is
//! allocated is bounded by the format (a block, a name, a symlink's target) or by [`Limits`]; every step of every loop
//! takes bytes from a table that ends.

mod cache;
mod data;
mod decompress;
mod directory;
mod error;
mod image;
mod index;
mod inode;
mod metadata;
mod pool;
mod superblock;
mod unpack;
mod xattrs;

use std::fs::File as OsFile;
use std::sync::Arc;

use cache::Cache;
use decompress::Decompressors;
use image::Image;
use index::Index;
use metadata::{Cursor, Indexed, Metadata, Table};
use pool::Pool;

use crate::format::{MetaRef, NO_TABLE, SUPERBLOCK_SIZE, Superblock, flags};

pub use data::Part;
pub use directory::{Entry, Position, ReadDir};
pub use error::Error;
pub use inode::{Body, Directory, File, Inode};
pub use unpack::{OWNER_XATTR, Options as UnpackOptions, Owners, Unpacked, unpack, unpack_as};
pub use xattrs::Xattr;

/// Unpacked blocks that are kept at least: some files are read side by side, and the blocks of their ends.
const BLOCKS_CACHED_MIN: usize = 3;
/// The same at most, for small blocks.
const BLOCKS_CACHED_MAX: usize = 256;
/// Files whose blocks' places are remembered, each in at most 128 KiB.
const INDICES_CACHED: usize = 64;

/// How much an image may make its reader do. Images of real software stay far below the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of one inode, names and values. Linux lists at most 64 KiB of names.
    pub xattr_bytes: usize,
    /// Levels of directories that are unpacked; each holds a file descriptor.
    pub depth: usize,
    /// Names that are unpacked.
    pub entries: u64,
    /// Inodes with several names that are remembered at a time.
    pub links: usize,
    /// Blocks of all files, holes too.
    pub blocks: u64,
    /// Unpacked blocks that are kept, in bytes, whether of fragments or of files that are read in parts; three at least.
    /// A quarter more for blocks of inodes and directories.
    pub cache: usize,
    /// Bytes of all files without holes: so many, and [`Limits::RATIO`] for each stored byte.
    pub bytes: u64,
}

impl Limits {
    /// Unpacked bytes for a stored one. Equal files share their blocks, so it is more than the codec's ratio.
    pub const RATIO: u64 = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            xattr_bytes: 4 << 20,
            depth: 512,
            entries: 1 << 23,
            links: 1 << 20,
            blocks: 1 << 28,
            cache: 32 << 20,
            bytes: 64 << 30,
        }
    }
}

/// An open image. Threads can share it.
pub struct Reader {
    image: Image,
    superblock: Superblock,
    limits: Limits,
    ids: Box<[u32]>,
    metadata: Metadata,
    inode_table: Table,
    directory_table: Table,
    fragment_table: Indexed,
    xattr_tables: Option<xattrs::Tables>,
    export_table: Option<Indexed>,
    blocks: Cache<pool::Block>,
    pool: Pool,
    indices: Cache<Index>,
}

impl Reader {
    /// Opens the image of at most `size` bytes at `offset` of `file`.
    pub fn open(file: Arc<OsFile>, offset: u64, size: u64) -> Result<Self, Error> {
        Self::with_limits(file, offset, size, Limits::default())
    }

    pub fn with_limits(file: Arc<OsFile>, offset: u64, size: u64, limits: Limits) -> Result<Self, Error> {
        if offset.checked_add(size).is_none() {
            return Err(Error::Place { offset, size });
        }
        if size < SUPERBLOCK_SIZE as u64 {
            let bytes_used = SUPERBLOCK_SIZE as u64;
            return Err(Error::CutOff { bytes_used, size });
        }
        let mut bytes = [0; SUPERBLOCK_SIZE];
        image::read_exact(&file, offset, 0, &mut bytes)?;
        let (superblock, codec) = superblock::decode(&bytes, size)?;
        let image = Image { file, offset, end: superblock.bytes_used, decompressors: Decompressors::new(codec) };
        let metadata = Metadata::new(limits.cache / 4);
        let fragment_table = Indexed {
            what: "fragment",
            index: superblock.fragment_table,
            count: superblock.fragments.into(),
            entry: 16,
        };
        if fragment_table.count > 0 {
            fragment_table.check(&image)?;
        }
        let kept = limits.cache / superblock.block_size as usize;
        Ok(Self {
            ids: ids(&superblock, &metadata, &image)?,
            xattr_tables: xattrs::Tables::open(&image, &superblock)?,
            inode_table: Table { what: "inode table", start: superblock.inode_table, end: superblock.directory_table },
            directory_table: Table {
                what: "directory table",
                start: superblock.directory_table,
                end: superblock.bytes_used,
            },
            export_table: export_table(&superblock, &image)?,
            blocks: Cache::new(kept.clamp(BLOCKS_CACHED_MIN, BLOCKS_CACHED_MAX)),
            pool: Pool::new(superblock.block_size as usize),
            indices: Cache::new(INDICES_CACHED),
            fragment_table,
            image,
            superblock,
            limits,
            metadata,
        })
    }

    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode, Error> {
        let root = self.inode(self.superblock.root)?;
        match root.body {
            Body::Directory(_) => Ok(root),
            _ => Err(Error::Kind { reference: root.reference.0, expected: "directory" }),
        }
    }

    /// The inode at a place that a directory's entry or the superblock names.
    pub fn inode(&self, reference: MetaRef) -> Result<Inode, Error> {
        let mut cursor = self.cursor(self.inode_table, reference);
        inode::decode(self, reference, &mut cursor)
    }

    /// Where the inode with this number lies, 1 to [`Superblock::inodes`]; None if the image has no export table.
    pub fn reference(&self, number: u32) -> Result<Option<MetaRef>, Error> {
        let Some(table) = self.export_table else {
            return Ok(None);
        };
        // Number 0 ends up behind the table.
        let index = u64::from(number).wrapping_sub(1);
        table.entry(&self.metadata, &self.image, index)?.u64().map(|reference| Some(MetaRef(reference)))
    }

    /// Whether any inode can have extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.xattr_tables.is_some()
    }

    /// A symlink's target.
    pub fn read_link<'i>(&self, inode: &'i Inode) -> Result<&'i [u8], Error> {
        match &inode.body {
            Body::Symlink { target } => Ok(target),
            _ => Err(Error::Kind { reference: inode.reference.0, expected: "symlink" }),
        }
    }

    fn cursor(&self, table: Table, reference: MetaRef) -> Cursor<'_> {
        self.metadata.cursor(&self.image, table, reference)
    }

    fn id(&self, index: u16) -> Result<u32, Error> {
        self.ids.get(usize::from(index)).copied().ok_or(Error::Index {
            what: "owner or group",
            index: index.into(),
            count: self.ids.len() as u64,
        })
    }
}

/// All owner and group ids, at most 256 KiB.
fn ids(superblock: &Superblock, metadata: &Metadata, image: &Image) -> Result<Box<[u32]>, Error> {
    let table = Indexed { what: "owner or group", index: superblock.id_table, count: superblock.ids.into(), entry: 4 };
    table.check(image)?;
    (0..table.count).map(|number| table.entry(metadata, image, number)?.u32()).collect()
}

fn export_table(superblock: &Superblock, image: &Image) -> Result<Option<Indexed>, Error> {
    if superblock.flags & flags::EXPORTABLE == 0 || superblock.export_table == NO_TABLE {
        return Ok(None);
    }
    let (index, count) = (superblock.export_table, superblock.inodes.into());
    let table = Indexed { what: "inode number", index, count, entry: 8 };
    table.check(image)?;
    Ok(Some(table))
}
