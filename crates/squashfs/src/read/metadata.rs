//! Metadata blocks and the records in them; `format.rs` draws them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Error;
use super::cache::Cache;
use super::image::Image;
use crate::format::{METADATA_SIZE, METADATA_STORED, MetaRef};

/// Blocks that are kept: those of some directories and of their inodes, 2 MiB at most.
const BLOCKS_CACHED: RangeInclusive<usize> = 16..=256;

/// One unpacked block and the place of the header behind it.
pub(super) struct Block {
    data: Box<[u8]>,
    next: u64,
}

pub(super) struct Metadata {
    blocks: Cache<Block>,
}

/// Where metadata blocks of one kind lie.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) what: &'static str,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Metadata {
    /// Keeps about so many bytes.
    pub(super) fn new(cache: usize) -> Self {
        let blocks = cache / METADATA_SIZE;
        Self { blocks: Cache::new(blocks.clamp(*BLOCKS_CACHED.start(), *BLOCKS_CACHED.end())) }
    }

    /// Reads records from `reference` on, which counts from the table's start.
    pub(super) fn cursor<'r>(&'r self, image: &'r Image, table: Table, reference: MetaRef) -> Cursor<'r> {
        Cursor {
            metadata: self,
            image,
            table,
            // At most 2^48 behind a place within the image: an overflow ends up outside.
            at: table.start.saturating_add(reference.block()),
            block: None,
            offset: reference.offset().into(),
        }
    }

    fn block(&self, image: &Image, table: Table, at: u64) -> Result<Arc<Block>, Error> {
        // Tables overlap only in broken images; then the smaller end must still hold for a cached block.
        Image::check(table.what, at, 2, table.end)?;
        let block = self.blocks.get((at, 0), || load(image, table, at))?;
        Image::check(table.what, at, block.next - at, table.end)?;
        Ok(block)
    }
}

fn load(image: &Image, table: Table, at: u64) -> Result<Block, Error> {
    let what = table.what;
    // Header and contents by one read; most blocks are shorter, and what is behind one is seldom needed in vain.
    let mut bytes = [0; 2 + METADATA_SIZE];
    let there = image.end.saturating_sub(at).min(bytes.len() as u64) as usize;
    image.read(what, at, &mut bytes[..there.max(2)])?;
    let header = u16::from_le_bytes([bytes[0], bytes[1]]);
    let stored = usize::from(header & !METADATA_STORED);
    // The kernel takes a length of 0 for 32 KiB, and refuses it thereby.
    if stored == 0 || stored > METADATA_SIZE {
        return Err(Error::StoredSize { what, offset: at, bytes: stored as u64, max: METADATA_SIZE });
    }
    Image::check(what, at + 2, stored as u64, image.end)?;
    let input = &bytes[2..2 + stored];
    let next = at + 2 + stored as u64;
    if header & METADATA_STORED != 0 {
        return Ok(Block { data: input.into(), next });
    }
    let mut output = [0; METADATA_SIZE];
    let failed = |source| Error::Decompress { what, offset: at, source };
    let length = image.decompressors.unpack(input, &mut output, failed)?;
    // A block without bytes would let a cursor run through the image in a single step.
    if length == 0 {
        return Err(Error::UnpackedSize { what, offset: at, expected: METADATA_SIZE, found: 0 });
    }
    Ok(Block { data: output[..length].into(), next })
}

/// A place in a table. Each block is longer than nothing and the next lies behind it, so a cursor ends with the table.
pub(super) struct Cursor<'r> {
    metadata: &'r Metadata,
    image: &'r Image,
    table: Table,
    /// Place of the current block's header.
    at: u64,
    block: Option<Arc<Block>>,
    offset: usize,
}

impl Cursor<'_> {
    /// Where the next record begins.
    pub(super) fn position(&self) -> MetaRef {
        // A block has at most 8192 bytes.
        MetaRef::new(self.at - self.table.start, self.offset as u16)
    }

    pub(super) fn read(&mut self, mut into: &mut [u8]) -> Result<(), Error> {
        while !into.is_empty() {
            let available = self.available()?;
            let count = available.len().min(into.len());
            let (now, rest) = into.split_at_mut(count);
            now.copy_from_slice(&available[..count]);
            self.offset += count;
            into = rest;
        }
        Ok(())
    }

    /// The rest of the current block, or all of the next; never empty.
    fn available(&mut self) -> Result<&[u8], Error> {
        let block = match &self.block {
            Some(block) => block,
            None => self.block.insert(self.metadata.block(self.image, self.table, self.at)?),
        };
        let length = block.data.len();
        if self.offset > length {
            return Err(Error::MetadataOffset { block: self.at, offset: self.offset, length });
        }
        if self.offset == length {
            self.at = block.next;
            self.offset = 0;
            self.block = Some(self.metadata.block(self.image, self.table, self.at)?);
        }
        // Set above, if it was not.
        Ok(self.block.as_ref().map_or(&[], |block| &block.data[self.offset..]))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }
}

/// An indexed table: u64 places of metadata blocks, each of which holds 8 KiB of entries.
#[derive(Clone, Copy)]
pub(super) struct Indexed {
    pub(super) what: &'static str,
    /// Where the places begin.
    pub(super) index: u64,
    pub(super) count: u64,
    /// Bytes of an entry; divides 8192.
    pub(super) entry: usize,
}

impl Indexed {
    pub(super) fn check(&self, image: &Image) -> Result<(), Error> {
        let blocks = (self.count * self.entry as u64).div_ceil(METADATA_SIZE as u64);
        Image::check(self.what, self.index, blocks * 8, image.end)
    }

    /// A cursor at entry `number`. Only for this entry: the blocks need not follow each other.
    pub(super) fn entry<'r>(&self, metadata: &'r Metadata, image: &'r Image, number: u64) -> Result<Cursor<'r>, Error> {
        if number >= self.count {
            return Err(Error::Index { what: self.what, index: number, count: self.count });
        }
        let place = number * self.entry as u64;
        let (block, offset) = (place / METADATA_SIZE as u64, place % METADATA_SIZE as u64);
        let mut start = [0; 8];
        image.read(self.what, self.index + block * 8, &mut start)?;
        let table = Table { what: self.what, start: u64::from_le_bytes(start), end: image.end };
        Ok(metadata.cursor(image, table, MetaRef::new(0, offset as u16)))
    }
}
