//! The writer.

mod error;

use std::fs::File;
use std::io::Read;

use siforge_rootfs::{Contents, InodeId, Tree};

pub use error::Error;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Levels 1 to 22.
    Zstd { level: i32 },
    /// zlib streams by libdeflate, levels 1 to 12.
    Gzip { level: i32 },
}

/// All that decides an image's bytes besides the contents and the tree, and how much of the machine may be used.
#[derive(Clone, Debug)]
pub struct Options {
    pub codec: Codec,
    /// Bytes, a power of two, 64 KiB..=1 MiB.
    pub block_size: u32,
    /// Compression threads, at least 1; changes no byte of the image.
    pub threads: usize,
    /// Bytes of data in flight and codec state; fewer threads are started if need be. Changes no byte of the image.
    pub memory: usize,
    /// The superblock's modification time, seconds since 1970.
    pub mtime: u32,
}

impl Default for Options {
    /// zstd level 3, 256 KiB blocks, one thread, 192 MiB, mtime 0.
    fn default() -> Self {
        Self {
            codec: Codec::Zstd { level: 3 },
            block_size: 256 << 10,
            threads: 1,
            memory: 192 << 20,
            mtime: 0,
        }
    }
}

/// An image that is complete in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes from the image's offset to its end, padded to 4096. The file ends there.
    pub bytes: u64,
    /// What the image could not hold and what became of it, at most one line of each kind.
    pub warnings: Vec<String>,
}

/// Writes one image. File contents come first, through [`Contents`]; then [`Writer::finish`] writes the tables.
pub struct Writer {}

impl Writer {
    /// The image starts at `offset` of `file`, which may hold anything before that and is written with pwrite.
    /// All of the file from `offset` on belongs to the writer.
    pub fn new(_file: File, _offset: u64, _options: Options) -> Result<Self, Error> {
        todo!()
    }

    /// Writes the tables and the superblock, and ends the file behind the image.
    pub fn finish(self, _tree: &Tree) -> Result<Finished, Error> {
        todo!()
    }
}

impl Contents for Writer {
    type Error = Error;

    fn begin_layer(&mut self) -> Result<(), Error> {
        todo!()
    }

    fn file(
        &mut self,
        _inode: Option<InodeId>,
        _size: u64,
        _data: &mut dyn Read,
    ) -> Result<(), Error> {
        todo!()
    }

    fn end_layer(&mut self) -> Result<(), Error> {
        todo!()
    }
}
