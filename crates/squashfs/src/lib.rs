//! Squashfs 4.0 images: a streaming, parallel, deterministic writer (feature `write`) and a hardened reader (feature `read`).

use std::fs::File;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec { Zstd { level: i32 }, Gzip { level: i32 } }

#[derive(Clone, Debug)]
pub struct Options {
    pub codec: Codec,
    /// Bytes, a power of two, 64 KiB..=1 MiB.
    pub block_size: u32,
    /// Worker threads; changes no byte of the output.
    pub threads: usize,
    /// Bytes of data in flight and codec state.
    pub memory: usize,
    /// Superblock modification time, seconds since 1970.
    pub mtime: u32,
}

// write::Writer: implements siforge_rootfs::Contents
//   pub fn new(file: File, offset: u64, options: Options) -> Result<Writer, Error>   // image starts at `offset` of `file`; written with pwrite
//   pub fn finish(self, tree: &siforge_rootfs::Tree) -> Result<Finished { bytes: u64 /* padded to 4096 */, warnings: Vec<String> }, Error>
//
// read::Reader
//   pub fn open(file: Arc<File>, offset: u64, size: u64) -> Result<Reader, Error>
//   root(), stat(inode), read_dir(inode), read_file(inode, &mut dyn Write) / pread, read_link, xattrs; lookup(path)
//   read::unpack(reader, into: &Path /* empty dir */, Ownership::{Keep, Caller}) -> Result<Unpacked{warnings}, Error>
