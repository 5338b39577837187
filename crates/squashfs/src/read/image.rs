//! The bytes of an image in its file: every read is checked against the image's end before it is made.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Error;
use super::decompress::Decompressors;
use crate::format::{BLOCK_STORED, SUPERBLOCK_SIZE};

pub(super) struct Image {
    pub(super) file: Arc<File>,
    /// Where the image begins in the file.
    pub(super) offset: u64,
    /// `bytes_used` of the superblock: no block and no table reaches beyond.
    pub(super) end: u64,
    pub(super) decompressors: Decompressors,
}

/// The bytes of the file from `offset + at` on; the caller has checked that the sum is within u64.
pub(super) fn read_exact(file: &File, offset: u64, at: u64, into: &mut [u8]) -> Result<(), Error> {
    file.read_exact_at(into, offset + at).map_err(|source| Error::Read { offset: at, bytes: into.len(), source })
}

impl Image {
    /// Fails unless `bytes` bytes at `offset` lie behind the superblock and before `end`.
    pub(super) fn check(what: &'static str, offset: u64, bytes: u64, end: u64) -> Result<(), Error> {
        let inside = offset >= SUPERBLOCK_SIZE as u64 && offset.checked_add(bytes).is_some_and(|last| last <= end);
        match inside {
            true => Ok(()),
            false => Err(Error::Outside { what, offset, bytes, end }),
        }
    }

    pub(super) fn read(&self, what: &'static str, at: u64, into: &mut [u8]) -> Result<(), Error> {
        Self::check(what, at, into.len() as u64, self.end)?;
        read_exact(&self.file, self.offset, at, into)
    }

    /// Unpacks the data or fragment block that lies at `at` and has this size word, at most to all of `output`; the
    /// unpacked length.
    pub(super) fn block(&self, what: &'static str, at: u64, word: u32, output: &mut [u8]) -> Result<usize, Error> {
        let stored = stored_size(what, at, word, output.len())?;
        if word & BLOCK_STORED != 0 {
            self.read(what, at, &mut output[..stored])?;
            return Ok(stored);
        }
        let read = |input: &mut [u8]| self.read(what, at, input);
        let failed = |source| Error::Decompress { what, offset: at, source };
        self.decompressors.read_and_unpack(stored, output, read, failed)
    }
}

/// Stored bytes by a size word. A block that is longer when compressed is stored as it is, so `max`, the unpacked size,
/// bounds both; the kernel refuses more as well.
pub(super) fn stored_size(what: &'static str, at: u64, word: u32, max: usize) -> Result<usize, Error> {
    let bytes = word & !BLOCK_STORED;
    match bytes as usize {
        stored if stored <= max => Ok(stored),
        _ => Err(Error::StoredSize { what, offset: at, bytes: bytes.into(), max }),
    }
}
