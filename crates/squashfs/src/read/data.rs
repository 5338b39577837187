//! Contents of files.
//!
//! ```text
//! size words:  4711 | 0 | 0x1001000 | …        in the inode, one for each block
//!               │     │       └ 4096 bytes, stored
//!               │     └ a hole: zeros, takes no place
//!               └ 4711 bytes, compressed
//! data:        start ┤4711 B├┤4096 B├ …        without gaps
//! tail:        the rest, size % block size, in a fragment block, if the inode has one
//! ```
//!
//! Where a block lies is known only from all size words before it: `index.rs` remembers some of the sums.

use std::io::Write;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::image::{Image, stored_size};
use super::index::Index;
use super::inode::{Body, File, Inode};
use super::metadata::Cursor;
use super::pool::Block;
use super::{Error, Reader};
use crate::format::MetaRef;

const BLOCK: &str = "data block";
const FRAGMENT: &str = "fragment block";
const ZEROS: [u8; 4096] = [0; 4096];

/// A stretch of a file's contents, at most one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset in the file.
    pub(super) at: u64,
    pub(super) length: usize,
    pub(super) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Hole,
    /// A block at this place of the image, with this size word.
    Block {
        place: u64,
        word: u32,
    },
    /// Bytes from this offset in this fragment block.
    Fragment {
        number: u32,
        offset: u32,
    },
}

/// The stretches of a file from its start to its end. Ends after the first error.
pub(super) struct Extents<'r> {
    cursor: Cursor<'r>,
    block_size: u64,
    end: u64,
    file: File,
    /// Offset in the file and place in the image of what comes next.
    at: u64,
    place: u64,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.file.size - self.at;
        if left == 0 {
            return None;
        }
        let extent = self.extent(left);
        match &extent {
            Ok(extent) => self.at += extent.length as u64,
            Err(_) => self.at = self.file.size,
        }
        Some(extent)
    }
}

impl Extents<'_> {
    fn extent(&mut self, left: u64) -> Result<Extent, Error> {
        let length = left.min(self.block_size) as usize;
        let source = match self.file.fragment {
            Some((number, offset)) if left < self.block_size => Source::Fragment { number, offset },
            _ => self.block()?,
        };
        Ok(Extent { at: self.at, length, source })
    }

    fn block(&mut self) -> Result<Source, Error> {
        let word = self.cursor.u32()?;
        let place = self.place;
        if word == 0 {
            return Ok(Source::Hole);
        }
        self.place = behind(place, word, self.block_size as usize, self.end)?;
        Ok(Source::Block { place, word })
    }
}

/// Where the block with this size word at `place` ends, which must lie within the image.
fn behind(place: u64, word: u32, block_size: usize, end: u64) -> Result<u64, Error> {
    let stored = stored_size(BLOCK, place, word, block_size)? as u64;
    Image::check(BLOCK, place, stored, end)?;
    Ok(place + stored)
}

/// Contents of a file, in the cache.
pub struct Part {
    block: Arc<Block>,
    range: Range<usize>,
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // Checked when it was made.
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}

impl Reader {
    pub(super) fn extents(&self, inode: &Inode) -> Result<Extents<'_>, Error> {
        let Body::File(file) = inode.body else {
            return Err(Error::Kind { reference: inode.reference.0, expected: "regular file" });
        };
        Ok(Extents {
            cursor: self.cursor(self.inode_table, file.words),
            block_size: self.superblock.block_size.into(),
            end: self.image.end,
            file,
            at: 0,
            place: file.start,
        })
    }

    /// The same from the stretch on that holds `offset`.
    fn extents_from(&self, inode: &Inode, offset: u64) -> Result<Extents<'_>, Error> {
        let mut extents = self.extents(inode)?;
        let (size, block_size) = (extents.file.size, extents.block_size);
        let block = offset / block_size;
        if offset >= size {
            extents.at = size;
        } else if extents.file.fragment.is_some() && block == size / block_size {
            // The tail, which has no size word.
            extents.at = block * block_size;
        } else if block > 0 {
            let (words, place) = self.block_place(inode.reference, &extents.file, block)?;
            extents.cursor = self.cursor(self.inode_table, words);
            extents.place = place;
            extents.at = block * block_size;
        }
        Ok(extents)
    }

    /// Where the size word of block `number` stands, and where the block lies.
    fn block_place(&self, reference: MetaRef, file: &File, number: u64) -> Result<(MetaRef, u64), Error> {
        let max = self.limits.blocks;
        if number >= max {
            return Err(Error::TooManyBlocks { max });
        }
        let blocks = (file.size / u64::from(self.superblock.block_size)).min(max);
        let index = self.indices.get((reference.0, 0), || Ok(Index::new(blocks, file)))?;
        let (block_size, end) = (self.superblock.block_size as usize, self.image.end);
        let cursor = |words| self.cursor(self.inode_table, words);
        index.find(number, cursor, |place, word| behind(place, word, block_size, end))
    }

    /// Hands the bytes of an extent to `sink`; a hole has none, and `sink` is not called. `buffer` grows to a block.
    pub(super) fn extent<R>(
        &self,
        extent: &Extent,
        buffer: &mut Vec<u8>,
        sink: impl FnOnce(&[u8]) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        match extent.source {
            Source::Hole => Ok(None),
            Source::Block { place, word } => {
                buffer.resize(self.superblock.block_size as usize, 0);
                let output = &mut buffer[..extent.length];
                self.block(place, word, output)?;
                sink(output).map(Some)
            }
            Source::Fragment { number, offset } => {
                let block = self.fragment(number)?;
                sink(tail(&block, offset, extent.length)?).map(Some)
            }
        }
    }

    /// Unpacks a block to all of `output`.
    fn block(&self, place: u64, word: u32, output: &mut [u8]) -> Result<(), Error> {
        let found = self.image.block(BLOCK, place, word, output)?;
        whole(place, output.len(), found)
    }

    fn fragment(&self, number: u32) -> Result<Arc<Block>, Error> {
        // u64 place, u32 size word, u32 0
        let mut entry = self.fragment_table.entry(&self.metadata, &self.image, number.into())?;
        let (place, word) = (entry.u64()?, entry.u32()?);
        let unpack = |block: &mut [u8]| self.image.block(FRAGMENT, place, word, block);
        self.blocks.get((place, word), || self.pool.block(unpack))
    }

    /// A block of which not all is wanted, out of the cache.
    fn cached(&self, place: u64, word: u32, length: usize) -> Result<Arc<Block>, Error> {
        let unpack = |block: &mut [u8]| self.block(place, word, &mut block[..length]).map(|()| length);
        let block = self.blocks.get((place, word), || self.pool.block(unpack))?;
        // Another file may have taken the same place for a block of another length.
        whole(place, length, block.len()).map(|()| block)
    }

    /// Fills `part` with the bytes of an extent from its byte `from` on.
    fn part(&self, extent: &Extent, from: usize, part: &mut [u8]) -> Result<(), Error> {
        match extent.source {
            Source::Hole => part.fill(0),
            // Who reads whole blocks does not come back for them.
            Source::Block { place, word } if part.len() == extent.length => self.block(place, word, part)?,
            Source::Block { place, word } => {
                let block = self.cached(place, word, extent.length)?;
                part.copy_from_slice(&block[from..from + part.len()]);
            }
            Source::Fragment { number, offset } => {
                let block = self.fragment(number)?;
                part.copy_from_slice(&tail(&block, offset, extent.length)?[from..from + part.len()]);
            }
        }
        Ok(())
    }

    /// Writes a file's contents to `sink`, holes as zeros; the bytes written.
    pub fn read_file(&self, inode: &Inode, sink: &mut dyn Write) -> Result<u64, Error> {
        let mut buffer = Vec::new();
        let mut written = 0;
        let write_error = |source| Error::Write { source };
        for extent in self.extents(inode)? {
            let extent = extent?;
            let write = |data: &[u8]| sink.write_all(data).map_err(write_error);
            if self.extent(&extent, &mut buffer, write)?.is_none() {
                let mut left = extent.length;
                while left > 0 {
                    let count = left.min(ZEROS.len());
                    sink.write_all(&ZEROS[..count]).map_err(write_error)?;
                    left -= count;
                }
            }
            written += extent.length as u64;
        }
        Ok(written)
    }

    /// Fills `into` from `offset` on; the bytes read, fewer only at the file's end. It costs what the blocks cost that
    /// are read, wherever they lie; blocks of which only a part is read are kept for a while.
    pub fn read_at(&self, inode: &Inode, offset: u64, into: &mut [u8]) -> Result<usize, Error> {
        let wanted = offset..offset.saturating_add(into.len() as u64);
        let mut read = 0;
        for extent in self.extents_from(inode, offset)? {
            let extent = extent?;
            let (start, end) = (extent.at, extent.at + extent.length as u64);
            if start >= wanted.end {
                break;
            }
            // All of these lie within one block.
            let from = (wanted.start.max(start) - start) as usize;
            let to = (wanted.end.min(end) - start) as usize;
            self.part(&extent, from, &mut into[read..read + to - from])?;
            read += to - from;
            if end >= wanted.end {
                break;
            }
        }
        Ok(read)
    }

    /// At most `length` bytes from `offset` on without a copy: if they lie in one block of which not all is wanted, or in
    /// one that holds the ends of files. None if [`Reader::read_at`] has to fetch them.
    pub fn read_part(&self, inode: &Inode, offset: u64, length: usize) -> Result<Option<Part>, Error> {
        let mut extents = self.extents_from(inode, offset)?;
        let size = extents.file.size;
        let Some(extent) = extents.next().transpose()? else {
            return Ok(None);
        };
        let from = (offset - extent.at) as usize;
        let length = (size - offset).min(length as u64) as usize;
        if from + length > extent.length {
            return Ok(None);
        }
        let (block, start) = match extent.source {
            Source::Fragment { number, offset } => {
                let block = self.fragment(number)?;
                tail(&block, offset, extent.length)?;
                (block, offset as usize)
            }
            Source::Block { place, word } if length < extent.length => (self.cached(place, word, extent.length)?, 0),
            Source::Block { .. } | Source::Hole => return Ok(None),
        };
        let start = start + from;
        Ok(Some(Part { block, range: start..start + length }))
    }

    /// Where the next data or, if `hole`, the next hole begins at `offset` or behind it: lseek(2)'s SEEK_DATA and
    /// SEEK_HOLE, by blocks. The file's end is a hole; None if there is nothing there, or `offset` is not in the file.
    pub fn seek(&self, inode: &Inode, offset: u64, hole: bool) -> Result<Option<u64>, Error> {
        let extents = self.extents_from(inode, offset)?;
        let size = extents.file.size;
        if offset >= size {
            return Ok(None);
        }
        for (count, extent) in (0u64..).zip(extents) {
            let extent = extent?;
            if (extent.source == Source::Hole) == hole {
                return Ok(Some(extent.at.max(offset)));
            }
            if count >= self.limits.blocks {
                return Err(Error::TooManyBlocks { max: self.limits.blocks });
            }
        }
        Ok(hole.then_some(size))
    }
}

fn whole(offset: u64, expected: usize, found: usize) -> Result<(), Error> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::UnpackedSize { what: BLOCK, offset, expected, found }),
    }
}

fn tail(block: &[u8], offset: u32, length: usize) -> Result<&[u8], Error> {
    let end = u64::from(offset) + length as u64;
    block.get(offset as usize..end as usize).ok_or(Error::Tail { offset: offset.into(), end, length: block.len() })
}
