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

use std::io::Write;
use std::sync::Arc;

use super::image::{Image, stored_size};
use super::inode::{Body, File, Inode};
use super::metadata::Cursor;
use super::{Error, Reader};

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
        let stored = stored_size(BLOCK, place, word, self.block_size as usize)?;
        Image::check(BLOCK, place, stored as u64, self.end)?;
        self.place += stored as u64;
        Ok(Source::Block { place, word })
    }
}

/// What unpacking needs again and again: at most twice the block size.
#[derive(Default)]
pub(super) struct Buffers {
    stored: Vec<u8>,
    unpacked: Vec<u8>,
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

    /// Hands the bytes of an extent to `sink`; a hole has none, and `sink` is not called.
    pub(super) fn extent<R>(
        &self,
        extent: &Extent,
        buffers: &mut Buffers,
        sink: impl FnOnce(&[u8]) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        match extent.source {
            Source::Hole => Ok(None),
            Source::Block { place, word } => {
                let Buffers { stored, unpacked } = buffers;
                unpacked.resize(self.superblock.block_size as usize, 0);
                let output = &mut unpacked[..extent.length];
                let found = self.image.block(BLOCK, place, word, stored, output)?;
                if found != extent.length {
                    return Err(Error::UnpackedSize { what: BLOCK, offset: place, expected: extent.length, found });
                }
                sink(output).map(Some)
            }
            Source::Fragment { number, offset } => {
                let block = self.fragment(number)?;
                let end = u64::from(offset) + extent.length as u64;
                match block.get(offset as usize..end as usize) {
                    Some(tail) => sink(tail).map(Some),
                    None => Err(Error::Tail { offset: offset.into(), end, length: block.len() }),
                }
            }
        }
    }

    fn fragment(&self, number: u32) -> Result<Arc<Box<[u8]>>, Error> {
        self.fragments.get(number, || {
            // u64 place, u32 size word, u32 0
            let mut entry = self.fragment_table.entry(&self.metadata, &self.image, number.into())?;
            let (place, word) = (entry.u64()?, entry.u32()?);
            let mut block = vec![0; self.superblock.block_size as usize];
            let length = self.image.block(FRAGMENT, place, word, &mut Vec::new(), &mut block)?;
            block.truncate(length);
            Ok(block.into_boxed_slice())
        })
    }

    /// Writes a file's contents to `sink`, holes as zeros; the bytes written.
    pub fn read_file(&self, inode: &Inode, sink: &mut dyn Write) -> Result<u64, Error> {
        let mut buffers = Buffers::default();
        let mut written = 0;
        let write_error = |source| Error::Write { source };
        for extent in self.extents(inode)? {
            let extent = extent?;
            let write = |data: &[u8]| sink.write_all(data).map_err(write_error);
            if self.extent(&extent, &mut buffers, write)?.is_none() {
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

    /// Fills `into` from `offset` on; the bytes read, fewer only at the file's end. Takes the size words before `offset`
    /// one by one, so it is no way to read a large file from start to end.
    pub fn read_at(&self, inode: &Inode, offset: u64, into: &mut [u8]) -> Result<usize, Error> {
        let mut buffers = Buffers::default();
        let wanted = offset..offset.saturating_add(into.len() as u64);
        let mut read = 0;
        for extent in self.extents(inode)? {
            let extent = extent?;
            let (start, end) = (extent.at, extent.at + extent.length as u64);
            if end <= wanted.start {
                continue;
            }
            if start >= wanted.end {
                break;
            }
            // All of these lie within one block.
            let from = (wanted.start.max(start) - start) as usize;
            let to = (wanted.end.min(end) - start) as usize;
            let part = &mut into[read..read + to - from];
            let copy = |data: &[u8]| {
                part.copy_from_slice(&data[from..to]);
                Ok(())
            };
            if self.extent(&extent, &mut buffers, copy)?.is_none() {
                into[read..read + to - from].fill(0);
            }
            read += to - from;
        }
        Ok(read)
    }
}
