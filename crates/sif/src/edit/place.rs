//! The descriptor table as bytes, and where things are.

use crate::format::{DESCRIPTOR_LEN, HEADER_LEN};
use crate::reader::{self, Sif};
use std::os::unix::fs::FileExt;

/// Offsets in a descriptor.
pub(super) const USED: usize = 4;
const ID: usize = 5;
pub(super) const MTIME: usize = 49;
pub(super) const EXTRA: usize = 201;

/// Offsets in the header.
pub(super) const ARCH: usize = 45;
pub(super) const HEADER_MTIME: usize = 72;
pub(super) const FREE: usize = 80;
pub(super) const TABLE_OFFSET: u64 = 96;
pub(super) const DATA_LEN: usize = 120;

/// All slots, used or not.
pub(super) struct Table {
    start: u64,
    bytes: Vec<u8>,
}

impl Table {
    pub(super) fn read(sif: &Sif) -> Result<Self, reader::Error> {
        // The reader has checked both.
        let (start, total) = (sif.header().descriptors_offset as u64, sif.header().descriptors_total as usize);
        let mut bytes = vec![0; total * DESCRIPTOR_LEN];
        let read = sif.file().read_exact_at(&mut bytes, start);
        read.map_err(|source| reader::Error::Read { what: "descriptors", source })?;
        Ok(Self { start, bytes })
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the slot is in the file.
    pub(super) fn offset(&self, slot: usize) -> u64 {
        self.start + (slot * DESCRIPTOR_LEN) as u64
    }

    pub(super) fn free_slot(&self) -> Option<usize> {
        self.slots().position(|slot| slot[USED] == 0)
    }

    pub(super) fn slot_of(&self, id: u32) -> Option<usize> {
        self.slots().position(|slot| slot[USED] != 0 && slot[ID..ID + 4] == id.to_le_bytes())
    }

    /// Unused slots.
    pub(super) fn free(&self) -> i64 {
        self.slots().filter(|slot| slot[USED] == 0).count() as i64
    }

    pub(super) fn set_used(&mut self, slot: usize) {
        self.put(slot, USED, &[1]);
    }

    pub(super) fn clear(&mut self, slot: usize) {
        self.put(slot, 0, &[0; DESCRIPTOR_LEN]);
    }

    pub(super) fn put(&mut self, slot: usize, at: usize, value: &[u8]) {
        let at = slot * DESCRIPTOR_LEN + at;
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn slots(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(DESCRIPTOR_LEN)
    }
}

/// Behind everything that is in use: what comes next may stand there.
pub(super) fn data_end(sif: &Sif) -> u64 {
    let header = sif.header();
    let table = header.descriptors_offset as u64 + header.descriptors_total as u64 * DESCRIPTOR_LEN as u64;
    let objects = sif.descriptors().iter().map(|object| object.offset + object.size);
    objects.chain([HEADER_LEN as u64, table, header.data_offset as u64]).max().unwrap_or_default()
}
