//! The writer: streaming, parallel, deterministic.
//!
//! ```text
//!  file contents, layer by layer, in tar order
//!    │ Writer (the caller's thread): cuts into blocks, packs small files into groups   groups.rs
//!    ▼
//!  worker threads: hash, compress                                                       pipeline.rs, codec.rs
//!    ▼
//!  one ordered thread: deduplicates large files, writes the data                        blocks.rs
//!    ┄┄┄ finish(tree) ┄┄┄
//!  inodes, listings, tables, superblock                  order.rs, inodes.rs, directory.rs, xattrs.rs, tables.rs
//! ```
//!
//! The image's bytes are a function of codec, level, block size, mtime, the layers' complete lists of files, which of
//! these are visible, and the tree; neither of threads nor of memory nor of the file they are written to:
//!
//! - A file of at least one block is cut into blocks, its tail being a short last block. Equal ones share their blocks in
//!   the whole image, the first in image order is the one written. Hidden ones are not read.
//! - Smaller files share fragment blocks within their layer; see `groups.rs`.
//! - A block that does not shrink is stored; a block of zeros in a large file is a hole.

mod blocks;
mod codec;
mod directory;
mod error;
mod groups;
mod inodes;
mod metadata;
mod order;
mod pipeline;
mod tables;
mod xattrs;

use std::fs::File;
use std::io::Read;

use siforge_rootfs::{Contents, InodeId, Tree};

use blocks::{Blocks, FileEnd, Packed, Packer, Task};
use codec::Compressor;
use groups::{Groups, Slots};
use pipeline::{Pack, Pipeline, Slot};

pub use codec::Codec;
pub use error::Error;

/// All that decides an image's bytes besides the contents and the tree, and how much of the machine may be used.
#[derive(Clone, Debug)]
pub struct Options {
    pub codec: Codec,
    /// Bytes, a power of two, 64 KiB..=1 MiB: kernels refuse blocks smaller than a page, and pages may have 64 KiB.
    pub block_size: u32,
    /// Compression threads, at least 1 is started; changes no byte of the image.
    pub threads: usize,
    /// Bytes of data in flight and codec state; fewer threads are started if need be. Changes no byte of the image.
    pub memory: usize,
    /// The superblock's modification time, seconds since 1970.
    pub mtime: u32,
}

impl Default for Options {
    /// zstd level 3, 256 KiB blocks, one thread, 192 MiB, mtime 0.
    fn default() -> Self {
        Self { codec: Codec::Zstd { level: 3 }, block_size: 256 << 10, threads: 1, memory: 192 << 20, mtime: 0 }
    }
}

/// Threads and buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Means {
    workers: usize,
    slots: usize,
}

impl Means {
    /// What the caller holds at most: the open group, what is read behind it, the refill group, one in the hand.
    const CALLERS: usize = 4;

    fn of(workers: usize) -> Self {
        // One block that is worked on and one that waits, for each worker.
        Self { workers, slots: 2 * workers + Self::CALLERS }
    }

    fn bytes(self, options: &Options) -> usize {
        let block = options.block_size as usize;
        let slot = block + options.codec.bound(block);
        // The tables' compressor comes when the workers' are gone.
        self.slots
            .saturating_mul(slot)
            .saturating_add(self.workers.saturating_mul(options.codec.context_bytes(options.block_size)))
    }
}

impl Options {
    fn check(&self) -> Result<Means, Error> {
        if !self.block_size.is_power_of_two() || !(64 << 10..=1 << 20).contains(&self.block_size) {
            return Err(Error::BlockSize(self.block_size));
        }
        self.codec.check()?;
        let needed = Means::of(1).bytes(self);
        if needed > self.memory {
            return Err(Error::Memory { given: self.memory, needed });
        }
        // The cost is linear in the workers.
        let each = Means::of(2).bytes(self) - needed;
        let more = (self.memory - needed) / each;
        Ok(Means::of(self.threads.clamp(1, 1 + more)))
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

type Packing = Pipeline<Task, Packed, Blocks>;

impl Slots for Packing {
    fn slot(&self) -> Result<Slot, Error> {
        self.slot()
    }

    fn release(&self, slot: Slot) {
        self.release(slot);
    }

    fn submit(&self, slot: Slot, task: Task) {
        self.submit(slot, task);
    }
}

/// Writes one image. File contents come first, through [`Contents`]; then [`Writer::finish`] writes the tables.
///
/// After an error all further calls answer [`Error::Stopped`]. Dropping the writer ends its threads; the file then holds
/// an image without superblock.
pub struct Writer {
    options: Options,
    packing: Packing,
    groups: Groups,
    in_layer: bool,
}

impl Writer {
    /// The image starts at `offset` of `file`, which may hold anything before that and is written with pwrite.
    /// All of the file from `offset` on belongs to the writer.
    pub fn new(file: File, offset: u64, options: Options) -> Result<Self, Error> {
        let means = options.check()?;
        let block = options.block_size as usize;
        let packer = |_| {
            let packer = Packer { compressor: Compressor::new(options.codec)? };
            Ok(Box::new(packer) as Box<dyn Pack<Task, Packed>>)
        };
        let packers = (0..means.workers).map(packer).collect::<Result<_, Error>>()?;
        let zeros = |bytes: usize| vec![0; bytes].into_boxed_slice();
        let slot = |_| Slot { input: zeros(block), used: 0, output: zeros(options.codec.bound(block)) };
        let slots = (0..means.slots).map(slot).collect();
        let blocks = Blocks::new(file, offset, tables::data_start(&options));
        let packing = Pipeline::start(packers, blocks, slots)?;
        Ok(Self { options, packing, groups: Groups::default(), in_layer: false })
    }

    /// Writes the tables and the superblock, and ends the file behind the image.
    pub fn finish(self, tree: &Tree) -> Result<Finished, Error> {
        self.expect("finish", false)?;
        let blocks = self.packing.finish()?;
        tables::write(tree, &blocks, &self.groups.into_places(), &self.options)
    }

    /// Fails unless a call comes inside a layer, or outside of all.
    fn expect(&self, call: &'static str, in_layer: bool) -> Result<(), Error> {
        self.packing.check()?;
        match (self.in_layer, in_layer) {
            (true, false) => Err(Error::Layer { call, found: "inside" }),
            (false, true) => Err(Error::Layer { call, found: "outside" }),
            _ => Ok(()),
        }
    }

    /// A failure ends the threads: an image with something left out must not be finished.
    fn settle(&self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.packing.stop();
        }
        result
    }

    fn add(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        self.expect("file", true)?;
        match (inode, size) {
            (_, 0) => Ok(()),
            (_, small) if small < u64::from(self.options.block_size) => {
                self.groups.add(inode, small as usize, data, &self.packing)
            }
            (Some(inode), _) => self.add_blocks(inode, size, data),
            (None, _) => Ok(()),
        }
    }

    fn add_blocks(&self, inode: InodeId, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let mut slot = self.packing.slot()?;
            slot.used = left.min(u64::from(self.options.block_size)) as usize;
            data.read_exact(&mut slot.input[..slot.used]).map_err(|source| Error::Read { size, source })?;
            left -= slot.used as u64;
            let end = (left == 0).then_some(FileEnd { inode, size });
            self.packing.submit(slot, Task::File { end });
        }
        Ok(())
    }
}

impl Contents for Writer {
    type Error = Error;

    fn begin_layer(&mut self) -> Result<(), Error> {
        self.settle(self.expect("begin_layer", false))?;
        self.in_layer = true;
        Ok(())
    }

    fn file(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let result = self.add(inode, size, data);
        self.settle(result)
    }

    fn end_layer(&mut self) -> Result<(), Error> {
        let result = self.expect("end_layer", true).and_then(|()| self.groups.end_layer(&self.packing));
        self.in_layer = false;
        self.settle(result)
    }
}
