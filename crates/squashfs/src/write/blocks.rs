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

use sha2::{Digest, Sha256};
use siforge_rootfs::InodeId;

use crate::format::{BLOCK_STORED, Fragment};
use crate::write::Error;
use crate::write::codec::Compressor;
use crate::write::pipeline::{Pack, Sink, Slot};

/// What a block is part of.
pub(super) enum Task {
    /// The next block of the file that is being written; `end` comes with its last block.
    File { end: Option<FileEnd> },
    /// A fragment block.
    Group { fragment: u32 },
}

pub(super) struct FileEnd {
    pub(super) inode: InodeId,
    pub(super) size: u64,
}

pub(super) struct Packed {
    form: Form,
    /// SHA-256 of a file's block; zeros for a hole and for groups.
    hash: [u8; 32],
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

impl Pack<Task, Packed> for Packer {
    fn pack(&mut self, slot: &mut Slot, task: &Task) -> Result<Packed, Error> {
        let block = &slot.input[..slot.used];
        let mut hash = [0; 32];
        if matches!(task, Task::File { .. }) {
            if is_zero(block) {
                return Ok(Packed { form: Form::Hole, hash });
            }
            hash = Sha256::digest(block).into();
        }
        let form = match self.compressor.compress(block, &mut slot.output)? {
            Some(length) => Form::Compressed(length),
            None => Form::Stored,
        };
        Ok(Packed { form, hash })
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
}

impl Blocks {
    pub(super) fn new(file: File, base: u64, position: u64) -> Self {
        Self {
            file,
            base,
            position,
            sizes: Vec::new(),
            growing: None,
            files: HashMap::new(),
            seen: HashMap::new(),
            fragments: Vec::new(),
        }
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
        let (bytes, flag) = match form {
            Form::Hole => return Ok(0),
            Form::Compressed(length) => (&slot.output[..*length], 0),
            Form::Stored => (slot.block(), BLOCK_STORED),
        };
        self.write_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len() as u32 | flag)
    }

    fn end_file(&mut self, growing: Growing, end: FileEnd) {
        let key = (end.size, growing.hashes.finalize().into());
        if let Some(earlier) = self.seen.get(&key) {
            self.position = growing.start;
            self.sizes.truncate(growing.first_block);
            self.files.insert(end.inode, earlier.clone());
            return;
        }
        let extent = Extent {
            start: growing.start,
            size: end.size,
            sparse: growing.sparse,
            blocks: growing.first_block..self.sizes.len(),
        };
        self.files.insert(end.inode, extent.clone());
        self.seen.insert(key, extent);
    }
}

impl Sink<Task, Packed> for Blocks {
    fn take(&mut self, slot: &Slot, task: Task, packed: Packed) -> Result<(), Error> {
        match task {
            Task::Group { fragment } => {
                let start = self.position;
                let size = self.append(slot, &packed.form)?;
                let index = fragment as usize;
                if self.fragments.len() <= index {
                    self.fragments.resize(index + 1, Fragment::default());
                }
                self.fragments[index] = Fragment { start, size };
            }
            Task::File { end } => {
                let mut growing = self.growing.take().unwrap_or_else(|| Growing {
                    start: self.position,
                    first_block: self.sizes.len(),
                    ..Growing::default()
                });
                let size = self.append(slot, &packed.form)?;
                self.sizes.push(size);
                growing.hashes.update(packed.hash);
                if size == 0 {
                    growing.sparse += slot.used as u64;
                }
                match end {
                    Some(end) => self.end_file(growing, end),
                    None => self.growing = Some(growing),
                }
            }
        }
        Ok(())
    }
}
