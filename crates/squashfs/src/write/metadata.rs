//! Tables of metadata blocks.

use crate::format::{METADATA_SIZE, METADATA_STORED, MetaRef, put16, put64};
use crate::write::Error;
use crate::write::codec::{Codec, Compressor};

/// Packs metadata blocks, one context for all tables.
pub(super) struct MetadataCompressor {
    compressor: Compressor,
    room: Vec<u8>,
}

impl MetadataCompressor {
    pub(super) fn new(codec: Codec, block_size: u32) -> Result<Self, Error> {
        Ok(Self { compressor: Compressor::new(codec, block_size)?, room: vec![0; codec.bound(METADATA_SIZE)] })
    }

    fn append(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self.compressor.compress(block, &mut self.room)? {
            Some(length) => {
                put16(out, length as u16);
                out.extend_from_slice(&self.room[..length]);
            }
            None => append_stored(block, out),
        }
        Ok(())
    }

    /// Appends an indexed table to `out`, whose first byte is at `start` of the image; the place of the index.
    pub(super) fn append_indexed(&mut self, table: &[u8], out: &mut Vec<u8>, start: u64) -> Result<u64, Error> {
        let mut index = Vec::new();
        for block in table.chunks(METADATA_SIZE) {
            put64(&mut index, start + out.len() as u64);
            self.append(block, out)?;
        }
        let place = start + out.len() as u64;
        out.extend_from_slice(&index);
        Ok(place)
    }
}

/// Appends a metadata block that is not compressed.
pub(super) fn append_stored(block: &[u8], out: &mut Vec<u8>) {
    put16(out, METADATA_STORED | block.len() as u16);
    out.extend_from_slice(block);
}

/// A table that is referred into while it grows.
#[derive(Default)]
pub(super) struct Table {
    packed: Vec<u8>,
    block: Vec<u8>,
}

impl Table {
    /// Where the next byte goes.
    pub(super) fn position(&self) -> MetaRef {
        MetaRef::new(self.packed.len() as u64, self.block.len() as u16)
    }

    pub(super) fn append(&mut self, mut bytes: &[u8], compressor: &mut MetadataCompressor) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA_SIZE - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            // At once, so that a position never lies behind a full block.
            if self.block.len() == METADATA_SIZE {
                self.flush(compressor)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, compressor: &mut MetadataCompressor) -> Result<(), Error> {
        compressor.append(&self.block, &mut self.packed)?;
        self.block.clear();
        Ok(())
    }

    /// The packed table.
    pub(super) fn finish(mut self, compressor: &mut MetadataCompressor) -> Result<Vec<u8>, Error> {
        if !self.block.is_empty() {
            self.flush(compressor)?;
        }
        Ok(self.packed)
    }
}
