//! Maps of sparse files: which pieces of the file the archive holds; all else is zeros.
//!
//! ```text
//!   old GNU (type S)   12 bytes offset, 12 bytes length; 4 in the header, 21 in each block that follows
//!   PAX 0.0            records GNU.sparse.offset, GNU.sparse.numbytes, …
//!   PAX 0.1            record GNU.sparse.map = "offset,length,offset,length,…", GNU.sparse.numblocks pieces
//!   PAX 1.0            before the data: "pieces\noffset\nlength\n…", filled with zeros to a whole block
//! ```

use super::pax::{self, Records};
use super::{Error, header};

/// The pieces of one file, and how far it has been read.
#[derive(Debug)]
pub(super) struct Map {
    /// Bytes of the file, holes included.
    pub(super) size: u64,
    pub(super) position: u64,
    /// Offset and length, ascending, not overlapping, within the size (after [`Map::check`]).
    pieces: Vec<(u64, u64)>,
    next: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Hole(usize),
    Data(usize),
    End,
}

impl Map {
    pub(super) fn new(size: Option<i64>, offset: u64) -> Result<Map, Error> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or(Error::Sparse { offset, what: "size is not a number in range" })?;
        Ok(Map { size, position: 0, pieces: Vec::new(), next: 0 })
    }

    fn push(&mut self, start: Option<i64>, length: Option<i64>, offset: u64) -> Result<(), Error> {
        let unsigned = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
        let piece = unsigned(start).zip(unsigned(length));
        self.pieces.push(piece.ok_or(Error::Sparse { offset, what: "piece is not a number in range" })?);
        Ok(())
    }

    /// As GNU and BSD tar read it: the pieces of one block end at an offset that begins with NUL, but blocks may follow
    /// even then.
    pub(super) fn push_old_gnu(&mut self, table: &[u8], offset: u64) -> Result<(), Error> {
        for entry in table.chunks_exact(24).take_while(|entry| entry[0] != 0) {
            self.push(header::number(&entry[..12]), header::number(&entry[12..]), offset)?;
        }
        Ok(())
    }

    pub(super) fn parse_records(&mut self, records: &Records, offset: u64) -> Result<(), Error> {
        let count = records.get(b"GNU.sparse.numblocks").and_then(pax::number);
        let map = records.get(b"GNU.sparse.map").unwrap_or(b"");
        let numbers: Vec<&[u8]> = if map.is_empty() { Vec::new() } else { map.split(|&b| b == b',').collect() };
        if count.and_then(|count| count.checked_mul(2)) != i64::try_from(numbers.len()).ok() {
            return Err(Error::Sparse { offset, what: "number of pieces is wrong" });
        }
        for pair in numbers.chunks_exact(2) {
            self.push(pax::number(pair[0]), pax::number(pair[1]), offset)?;
        }
        Ok(())
    }

    /// `stored`: bytes of data in the archive.
    pub(super) fn check(&self, stored: u64, offset: u64) -> Result<(), Error> {
        let (mut end, mut sum) = (0u64, 0u64);
        for &(start, length) in &self.pieces {
            if start < end {
                return Err(Error::Sparse { offset, what: "pieces overlap or are out of order" });
            }
            // Both are below 2^63.
            end = start + length;
            sum = sum.saturating_add(length);
            if end > self.size {
                return Err(Error::Sparse { offset, what: "piece lies beyond the file's end" });
            }
        }
        if sum != stored {
            return Err(Error::Sparse { offset, what: "pieces do not add up to the data's size" });
        }
        Ok(())
    }

    /// What the next bytes are, `wanted` at most.
    pub(super) fn next_piece(&mut self, wanted: usize) -> Piece {
        let limit = |length: u64| usize::try_from(length).map_or(wanted, |length| length.min(wanted));
        while let Some(&(start, length)) = self.pieces.get(self.next) {
            if self.position < start {
                return Piece::Hole(limit(start - self.position));
            }
            if self.position < start + length {
                return Piece::Data(limit(start + length - self.position));
            }
            self.next += 1;
        }
        match self.size - self.position {
            0 => Piece::End,
            hole => Piece::Hole(limit(hole)),
        }
    }
}

/// The numbers of a version 1.0 map, gathered block by block.
#[derive(Default)]
pub(super) struct Tokens {
    text: Vec<u8>,
    newlines: u64,
    /// Pieces, once the first line is there.
    count: Option<u64>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn feed(&mut self, block: &[u8]) {
        self.newlines += block.iter().filter(|&&b| b == b'\n').count() as u64;
        self.text.extend_from_slice(block);
    }

    pub(super) fn is_complete(&mut self, offset: u64) -> Result<bool, Error> {
        if self.newlines == 0 {
            return Ok(false);
        }
        if self.count.is_none() {
            let first = self.text.split(|&b| b == b'\n').next().and_then(pax::number);
            let count =
                first.and_then(|count| u64::try_from(count).ok()).filter(|count| *count <= super::EXTENSION_LIMIT);
            self.count =
                Some(count.ok_or(Error::Sparse { offset, what: "number of pieces is not a number in range" })?);
        }
        Ok(self.count.is_some_and(|count| self.newlines > 2 * count))
    }

    pub(super) fn fill(&self, map: &mut Map, offset: u64) -> Result<(), Error> {
        let mut lines = self.text.split(|&b| b == b'\n').skip(1).map(pax::number);
        for _ in 0..self.count.unwrap_or(0) {
            let (start, length) = (lines.next().flatten(), lines.next().flatten());
            map.push(start, length, offset)?;
        }
        Ok(())
    }
}
