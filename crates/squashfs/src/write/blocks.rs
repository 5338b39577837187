//! Data blocks: how a worker packs one, and how the packed ones become files and fragments in the image.
//!
//! The sink sees blocks in image order. A file's blocks lie one behind the other; when the last is there and an equal
//! file was written before, the output position goes back to where the file began and its inode gets the other's blocks:
//!
//! ```text
//!  … │ file A │ group │ file B = A │            … │ file A │ group │ next …
//!                     ▲ position goes back to here ──────────────▶
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use siforge_rootfs::InodeId;

use crate::format::{BLOCK_STORED, Fragment};
use crate::write::Error;
use crate::write::codec::Compressor;
use crate::write::pack::{Block, Group, Pack, Piece, Scratch, SinkRecord, piece_hash};
use crate::write::pipeline::{self, Sink, Slot};

type Hash = [u8; 32];

/// A block on its way.
pub(super) struct Task {
    pub(super) part: Part,
    pub(super) from: Origin,
    /// The number of the record of its layer, if a pack is to be made of it.
    pub(super) record: Option<u32>,
}

/// What a block is part of.
pub(super) enum Part {
    /// The next block of the file that is being written; `end` comes with its last block.
    File { end: Option<FileEnd> },
    /// A fragment block; `ordinal` is its number among the groups of its layer, for refill groups none.
    Group { fragment: u32, ordinal: Option<u32> },
    /// The next block of a hidden file: for the pack, not for the image. The file's number in the layer and its size.
    HiddenFile { end: Option<(u32, u64)> },
    /// A group that is hidden at least in part: for the pack, not for the image.
    HiddenGroup { ordinal: u32 },
}

/// Where a block's bytes are.
pub(super) enum Origin {
    /// In the slot, to be compressed.
    Slot,
    /// In a pack, compressed.
    Pack(Arc<Pack>, Piece),
}

pub(super) struct FileEnd {
    pub(super) inode: InodeId,
    pub(super) size: u64,
    /// The file's number in its layer.
    pub(super) number: u32,
    /// SHA-256 of its blocks' SHA-256s, where that is known.
    pub(super) key: Option<Hash>,
}

pub(super) struct Packed {
    form: Form,
    /// SHA-256 of a file's block; zeros for a hole, for groups and for what comes from a pack.
    hash: Hash,
    /// The hash of the block as it is stored; zeros unless its layer is recorded.
    stored: Hash,
}

enum Form {
    Hole,
    /// So many bytes of the slot's output.
    Compressed(usize),
    /// The slot's input as it is.
    Stored,
}

pub(super) struct Packer {
    pub(super) compressor: Compressor,
}

impl pipeline::Pack<Task, Packed> for Packer {
    fn pack(&mut self, slot: &mut Slot, task: &Task) -> Result<Packed, Error> {
        let none = [0; 32];
        if let Origin::Pack(pack, piece) = &task.from {
            return Ok(Packed { form: fetch(slot, pack, piece)?, hash: none, stored: none });
        }
        let block = &slot.input[..slot.used];
        let mut hash = none;
        if matches!(task.part, Part::File { .. } | Part::HiddenFile { .. }) {
            if is_zero(block) {
                return Ok(Packed { form: Form::Hole, hash, stored: none });
            }
            hash = Sha256::digest(block).into();
        }
        let form = match self.compressor.compress(block, &mut slot.output)? {
            Some(length) => Form::Compressed(length),
            None => Form::Stored,
        };
        let stored = match task.record {
            Some(_) => piece_hash(form.bytes(slot)),
            None => none,
        };
        Ok(Packed { form, hash, stored })
    }
}

/// A pack's block into the slot.
fn fetch(slot: &mut Slot, pack: &Pack, piece: &Piece) -> Result<Form, Error> {
    let blame = |fault| Error::Pack { diff_id: pack.key().diff_id, fault };
    if piece.word == 0 {
        return Ok(Form::Hole);
    }
    if piece.word & BLOCK_STORED != 0 {
        slot.used = pack.read(piece, &mut slot.input).map_err(blame)?;
        return Ok(Form::Stored);
    }
    pack.read(piece, &mut slot.output).map(Form::Compressed).map_err(blame)
}

impl Form {
    fn bytes<'a>(&self, slot: &'a Slot) -> &'a [u8] {
        match self {
            Self::Hole => &[],
            Self::Compressed(length) => &slot.output[..*length],
            Self::Stored => slot.block(),
        }
    }

    /// The size word.
    fn word(&self, slot: &Slot) -> u32 {
        match self {
            Self::Hole => 0,
            Self::Compressed(length) => *length as u32,
            Self::Stored => slot.used as u32 | BLOCK_STORED,
        }
    }
}

/// Each byte equals the one before it: one memcmp, which is fast in every build.
fn is_zero(block: &[u8]) -> bool {
    match block.split_first() {
        Some((first, rest)) => *first == 0 && *rest == block[..rest.len()],
        None => true,
    }
}

/// Where a file's blocks are.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) sparse: u64,
    /// Its size words, in [`Blocks::sizes`].
    blocks: Range<usize>,
}

#[derive(Default)]
struct Growing {
    start: u64,
    sparse: u64,
    first_block: usize,
    hashes: Sha256,
    /// Of each block as it is stored, for the record.
    stored: Vec<Hash>,
}

/// A hidden file that is being written for its pack.
#[derive(Default)]
struct Hidden {
    blocks: Vec<Block>,
    hashes: Sha256,
}

/// The data part of the image.
pub(super) struct Blocks {
    file: File,
    /// Where the image begins in `file`.
    base: u64,
    /// Where the next block goes, from the image's first byte.
    position: u64,
    sizes: Vec<u32>,
    growing: Option<Growing>,
    files: HashMap<InodeId, Extent>,
    seen: HashMap<(u64, [u8; 32]), Extent>,
    fragments: Vec<Fragment>,
    scratch: Option<Arc<Scratch>>,
    hidden: Option<Hidden>,
    records: Vec<SinkRecord>,
}

impl Blocks {
    pub(super) fn new(file: File, base: u64, position: u64, scratch: Option<Arc<Scratch>>) -> Self {
        Self {
            file,
            base,
            position,
            sizes: Vec::new(),
            growing: None,
            files: HashMap::new(),
            seen: HashMap::new(),
            fragments: Vec::new(),
            scratch,
            hidden: None,
            records: Vec::new(),
        }
    }

    /// What was noted of the recorded layers.
    pub(super) fn take_records(&mut self) -> Vec<SinkRecord> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn extent(&self, inode: InodeId) -> Option<&Extent> {
        self.files.get(&inode)
    }

    /// The size words of a file's blocks.
    pub(super) fn sizes(&self, extent: &Extent) -> &[u32] {
        &self.sizes[extent.blocks.clone()]
    }

    pub(super) fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// Writes at `position` of the image.
    pub(super) fn write_at(&self, bytes: &[u8], position: u64) -> Result<(), Error> {
        let offset = self.base + position;
        self.file.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, bytes: bytes.len(), source })
    }

    /// Ends the file where an image of `length` bytes ends: what was taken back may lie behind it.
    pub(super) fn truncate(&self, length: u64) -> Result<(), Error> {
        let length = self.base + length;
        self.file.set_len(length).map_err(|source| Error::Truncate { length, source })
    }

    /// Appends a block; its size word.
    fn append(&mut self, slot: &Slot, form: &Form) -> Result<u32, Error> {
        let bytes = form.bytes(slot);
        if !bytes.is_empty() {
            self.write_at(bytes, self.position)?;
            self.position += bytes.len() as u64;
        }
        Ok(form.word(slot))
    }

    /// The place in the scratch file; 0 if there is none, and then nothing is recorded.
    fn put_aside(&self, slot: &Slot, form: &Form) -> u64 {
        self.scratch.as_ref().map_or(0, |scratch| scratch.append(form.bytes(slot)))
    }

    fn record(&mut self, number: u32) -> &mut SinkRecord {
        let index = number as usize;
        if self.records.len() <= index {
            self.records.resize_with(index + 1, SinkRecord::default);
        }
        &mut self.records[index]
    }

    fn take_group(&mut self, slot: &Slot, packed: &Packed, fragment: u32) -> Result<u64, Error> {
        let start = self.position;
        let size = self.append(slot, &packed.form)?;
        let index = fragment as usize;
        if self.fragments.len() <= index {
            self.fragments.resize(index + 1, Fragment::default());
        }
        self.fragments[index] = Fragment { start, size };
        Ok(start)
    }

    fn take_block(
        &mut self,
        slot: &Slot,
        packed: &Packed,
        end: Option<FileEnd>,
        record: Option<u32>,
    ) -> Result<(), Error> {
        let mut growing = self.growing.take().unwrap_or_else(|| Growing {
            start: self.position,
            first_block: self.sizes.len(),
            ..Growing::default()
        });
        let size = self.append(slot, &packed.form)?;
        self.sizes.push(size);
        growing.hashes.update(packed.hash);
        if record.is_some() {
            growing.stored.push(packed.stored);
        }
        if size == 0 {
            growing.sparse += slot.used as u64;
        }
        match end {
            Some(end) => self.end_file(growing, end, record),
            None => self.growing = Some(growing),
        }
        Ok(())
    }

    fn end_file(&mut self, growing: Growing, end: FileEnd, record: Option<u32>) {
        let hash = end.key.unwrap_or_else(|| growing.hashes.finalize().into());
        let key = (end.size, hash);
        let extent = match self.seen.get(&key) {
            Some(earlier) => {
                self.position = growing.start;
                self.sizes.truncate(growing.first_block);
                earlier.clone()
            }
            None => {
                let extent = Extent {
                    start: growing.start,
                    size: end.size,
                    sparse: growing.sparse,
                    blocks: growing.first_block..self.sizes.len(),
                };
                self.seen.insert(key, extent.clone());
                extent
            }
        };
        if let Some(number) = record {
            let words = self.sizes[extent.blocks.clone()].to_vec();
            self.record(number).add_large(end.number, end.size, hash, extent.start, &words, &growing.stored);
        }
        self.files.insert(end.inode, extent);
    }

    fn take_hidden_block(&mut self, slot: &Slot, packed: &Packed, end: Option<(u32, u64)>, record: u32) {
        let mut hidden = self.hidden.take().unwrap_or_default();
        let offset = self.put_aside(slot, &packed.form);
        hidden.blocks.push(Block { offset, word: packed.form.word(slot), hash: packed.stored });
        hidden.hashes.update(packed.hash);
        match end {
            Some((number, size)) => {
                let key = hidden.hashes.finalize().into();
                self.record(record).add(number, size, key, hidden.blocks.into_iter());
            }
            None => self.hidden = Some(hidden),
        }
    }
}

impl Sink<Task, Packed> for Blocks {
    fn take(&mut self, slot: &Slot, task: Task, packed: Packed) -> Result<(), Error> {
        let group =
            |offset| Group { offset, word: packed.form.word(slot), unpacked: slot.used as u32, hash: packed.stored };
        match (task.part, task.record) {
            (Part::File { end }, record) => self.take_block(slot, &packed, end, record)?,
            (Part::Group { fragment, ordinal }, record) => {
                let start = self.take_group(slot, &packed, fragment)?;
                if let (Some(record), Some(ordinal)) = (record, ordinal) {
                    self.record(record).add_group(ordinal, group(start));
                }
            }
            (Part::HiddenGroup { ordinal }, Some(record)) => {
                let at = self.put_aside(slot, &packed.form);
                self.record(record).add_group(ordinal, group(at));
            }
            (Part::HiddenFile { end }, Some(record)) => self.take_hidden_block(slot, &packed, end, record),
            // Without a record there is nowhere to put them.
            (Part::HiddenGroup { .. } | Part::HiddenFile { .. }, None) => {}
        }
        Ok(())
    }
}
