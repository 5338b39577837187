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
pub mod pack;
mod pipeline;
mod tables;
mod xattrs;

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use siforge_rootfs::{Contents, InodeId, Tree};

use blocks::{Blocks, FileEnd, Origin, Packed, Packer, Part, Task};
use codec::Compressor;
use groups::{Groups, Slots};
use pack::{LayerRows, Pack, Recorded, Scratch};
use pipeline::{Pipeline, Slot};

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

/// How the contents of a layer come, and what is kept of them.
#[derive(Clone, Debug, Default)]
pub enum Layer {
    #[default]
    Plain,
    /// A pack is to be made of it; `hidden`: with what the image does not show, too.
    Record { hidden: bool },
    /// They are in this pack, and not read.
    Pack(Arc<Pack>),
}

/// [`Layer`], begun.
enum Mode {
    Plain,
    /// `number` among the recorded layers.
    Record {
        number: u32,
        hidden: bool,
    },
    Pack(Arc<Pack>),
}

impl Mode {
    fn record(&self) -> Option<u32> {
        match self {
            Self::Record { number, .. } => Some(*number),
            _ => None,
        }
    }

    fn records_hidden(&self) -> bool {
        matches!(self, Self::Record { hidden: true, .. })
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
    next: Layer,
    mode: Mode,
    /// Of the layer that is written: its files so far, noted only if it is recorded.
    rows: Vec<(u64, u32)>,
    files: u32,
    recorded: Vec<LayerRows>,
    records: bool,
    /// The diff_ids of packs that lack what is needed: nothing more is written, and there will be no image. But the layers
    /// go on, so that all such packs are found by one pass; and the caller may yet find that this pass is in vain, and that
    /// the next one needs less.
    lacking: Vec<[u8; 32]>,
}

impl Writer {
    /// The image starts at `offset` of `file`, which may hold anything before that and is written with pwrite.
    /// All of the file from `offset` on belongs to the writer.
    pub fn new(file: File, offset: u64, options: Options) -> Result<Self, Error> {
        Self::start(file, offset, options, None)
    }

    /// A writer that can record layers; `scratch` holds what the image does not.
    pub fn recording(file: File, offset: u64, options: Options, scratch: Arc<Scratch>) -> Result<Self, Error> {
        Self::start(file, offset, options, Some(scratch))
    }

    fn start(file: File, offset: u64, options: Options, scratch: Option<Arc<Scratch>>) -> Result<Self, Error> {
        let means = options.check()?;
        let block = options.block_size as usize;
        let packer = |_| {
            let packer = Packer { compressor: Compressor::new(options.codec, options.block_size)? };
            Ok(Box::new(packer) as Box<dyn pipeline::Pack<Task, Packed>>)
        };
        let packers = (0..means.workers).map(packer).collect::<Result<_, Error>>()?;
        let zeros = |bytes: usize| vec![0; bytes].into_boxed_slice();
        let slot = |_| Slot { input: zeros(block), used: 0, output: zeros(options.codec.bound(block)) };
        let slots = (0..means.slots).map(slot).collect();
        let records = scratch.is_some();
        let blocks = Blocks::new(file, offset, tables::data_start(&options), scratch);
        let packing = Pipeline::start(packers, blocks, slots)?;
        Ok(Self {
            options,
            packing,
            groups: Groups::default(),
            in_layer: false,
            next: Layer::Plain,
            mode: Mode::Plain,
            rows: Vec::new(),
            files: 0,
            recorded: Vec::new(),
            records,
            lacking: Vec::new(),
        })
    }

    /// How the layer that begins next is read; each one after it is [`Layer::Plain`] again. A writer without scratch file
    /// records nothing.
    pub fn next_layer(&mut self, layer: Layer) {
        self.next = layer;
    }

    /// Writes the tables and the superblock, and ends the file behind the image.
    pub fn finish(self, tree: &Tree) -> Result<Finished, Error> {
        self.finish_recorded(tree).map(|(finished, _)| finished)
    }

    /// As [`Writer::finish`]; and what was noted of the recorded layers, in their order.
    pub fn finish_recorded(self, tree: &Tree) -> Result<(Finished, Vec<Recorded>), Error> {
        self.expect("finish", false)?;
        if !self.lacking.is_empty() {
            return Err(Error::Lacking { diff_ids: self.lacking });
        }
        let mut blocks = self.packing.finish()?;
        let finished = tables::write(tree, &blocks, &self.groups.into_places(), &self.options)?;
        let mut sinks = blocks.take_records();
        sinks.resize_with(self.recorded.len(), Default::default);
        let recorded = self.recorded.into_iter().zip(sinks).map(|(rows, sink)| Recorded::new(rows, sink));
        Ok((finished, recorded.collect()))
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
    fn settle(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(Error::Pack { diff_id, fault: pack::Fault::Lacks }) = result {
            if !self.lacking.contains(&diff_id) {
                self.lacking.push(diff_id);
            }
            return Ok(());
        }
        if result.is_err() {
            self.packing.stop();
        }
        result
    }

    fn add(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        self.expect("file", true)?;
        let number = self.files;
        self.files = number.checked_add(1).ok_or(Error::TooMany { what: "files in a layer" })?;
        if let Mode::Pack(pack) = &self.mode {
            return self.add_packed(inode, size, number, &pack.clone());
        }
        if !self.lacking.is_empty() {
            return Ok(());
        }
        let content = match (inode, size) {
            (_, 0) => 0,
            (_, small) if small < u64::from(self.options.block_size) => {
                self.groups.add(inode, small as usize, data, &self.mode, &self.packing)?
            }
            (Some(inode), _) => {
                self.add_blocks(size, data, |last| Part::File {
                    end: last.then_some(FileEnd { inode, size, number, key: None }),
                })?;
                0
            }
            (None, _) if self.mode.records_hidden() => {
                self.add_blocks(size, data, |last| Part::HiddenFile { end: last.then_some((number, size)) })?;
                0
            }
            (None, _) => 0,
        };
        if self.mode.record().is_some() {
            self.rows.push((size, content));
        }
        Ok(())
    }

    fn add_blocks(&self, size: u64, data: &mut dyn Read, part: impl Fn(bool) -> Part) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let mut slot = self.packing.slot()?;
            slot.used = left.min(u64::from(self.options.block_size)) as usize;
            data.read_exact(&mut slot.input[..slot.used]).map_err(|source| Error::Read { size, source })?;
            left -= slot.used as u64;
            let record = self.mode.record();
            self.packing.submit(slot, Task { part: part(left == 0), from: Origin::Slot, record });
        }
        Ok(())
    }

    /// A file of a layer whose pack is there.
    fn add_packed(&mut self, inode: Option<InodeId>, size: u64, number: u32, pack: &Arc<Pack>) -> Result<(), Error> {
        let blame = |fault| Error::Pack { diff_id: pack.key().diff_id, fault };
        let contradiction = || blame(pack::Fault::Damaged("its files are not those of its framing"));
        let row = pack.files().get(number as usize).filter(|row| row.size == size);
        let content = row.ok_or_else(contradiction)?.content;
        let block_size = u64::from(self.options.block_size);
        if size == 0 {
            return Ok(());
        }
        if !self.lacking.is_empty() {
            return look_up(inode, size, content, pack).map_err(blame);
        }
        if size < block_size {
            let sound = self.groups.add_packed(inode, content, pack, &self.packing)?;
            return if sound { Ok(()) } else { Err(contradiction()) };
        }
        let Some(inode) = inode else {
            return Ok(());
        };
        let large = pack.large(content).map_err(blame)?;
        let count = size.div_ceil(block_size);
        for block in 0..count {
            let mut slot = self.packing.slot()?;
            slot.used = block_size.min(size - block * block_size) as usize;
            let end = FileEnd { inode, size, number, key: Some(large.key) };
            let part = Part::File { end: (block + 1 == count).then_some(end) };
            let from = Origin::Pack(pack.clone(), pack.block(&large, block as usize));
            self.packing.submit(slot, Task { part, from, record: None });
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.expect("begin_layer", false)?;
        self.mode = match std::mem::take(&mut self.next) {
            Layer::Record { hidden } if self.records => Mode::Record { number: self.recorded.len() as u32, hidden },
            Layer::Plain | Layer::Record { .. } => Mode::Plain,
            Layer::Pack(pack) => Mode::Pack(pack),
        };
        self.in_layer = true;
        self.files = 0;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.expect("end_layer", true)?;
        if self.lacking.is_empty() {
            let smalls = self.groups.end_layer(&self.mode, &self.packing)?;
            if self.mode.record().is_some() {
                self.recorded.push(LayerRows { files: std::mem::take(&mut self.rows), smalls });
            }
        }
        match &self.mode {
            Mode::Pack(pack) if pack.files().len() != self.files as usize => Err(Error::Pack {
                diff_id: pack.key().diff_id,
                fault: pack::Fault::Damaged("its files are not those of its framing"),
            }),
            _ => Ok(()),
        }
    }
}

/// Whether the pack has a file's contents, as writing them would find out.
fn look_up(inode: Option<InodeId>, size: u64, content: u32, pack: &Pack) -> Result<(), pack::Fault> {
    if inode.is_none() {
        return Ok(());
    }
    if size < u64::from(pack.key().block_size) {
        pack.group(pack.small(content).group).map(drop)
    } else {
        pack.large(content).map(drop)
    }
}

impl Contents for Writer {
    type Error = Error;

    fn begin_layer(&mut self) -> Result<(), Error> {
        let result = self.begin();
        self.settle(result)
    }

    fn file(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let result = self.add(inode, size, data);
        self.settle(result)
    }

    fn end_layer(&mut self) -> Result<(), Error> {
        let result = self.end();
        self.in_layer = false;
        self.settle(result)
    }
}
