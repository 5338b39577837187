//! What is noted of a layer while its image is written, and where that is kept which the image does not hold.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::{Block, Group, Large, Small, stored};
use super::{Hash, NO_CONTENT};

/// Set in an offset that counts from the scratch file's begin, not from the image's.
pub(super) const IN_SCRATCH: u64 = 1 << 63;
/// Set with it in an offset that counts from the begin of what is kept in memory.
pub(super) const IN_MEMORY: u64 = 1 << 62;

/// What of a build's framing is kept in memory: a layer of 48 000 entries has 1.7 MB of it, so most builds never write to the
/// scratch file.
const MEMORY: usize = 16 << 20;

/// Holds pieces for packs that the image does not hold: framing, and hidden contents. These and what is beyond [`MEMORY`] are
/// in the scratch file. What cannot be written spoils the packs of this build and nothing else.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    end: AtomicU64,
    memory: Mutex<Vec<u8>>,
    failed: AtomicBool,
}

impl Scratch {
    /// `file`: empty, open for reading and writing; better one without a name.
    pub fn new(file: File) -> Self {
        Self { file, end: AtomicU64::new(0), memory: Mutex::default(), failed: AtomicBool::new(false) }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The place of the bytes, with [`IN_SCRATCH`].
    pub(crate) fn append(&self, bytes: &[u8]) -> u64 {
        let at = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.file.write_all_at(bytes, at).is_err() {
            self.fail();
        }
        at | IN_SCRATCH
    }

    /// As [`Scratch::append`], but in memory, with [`IN_MEMORY`], while there is room.
    pub(super) fn keep(&self, bytes: &[u8]) -> u64 {
        let mut memory = self.memory();
        let at = memory.len();
        if at + bytes.len() > MEMORY {
            drop(memory);
            return self.append(bytes);
        }
        memory.extend_from_slice(bytes);
        at as u64 | IN_SCRATCH | IN_MEMORY
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Vec<u8>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all; for a build that starts over.
    pub fn clear(&self) -> io::Result<()> {
        self.memory().clear();
        self.end.store(0, Ordering::Relaxed);
        self.file.set_len(0)
    }
}

/// What the caller's thread notes of a layer: its files and small contents.
#[derive(Debug, Default)]
pub(crate) struct LayerRows {
    /// Size, and the number of the content if it is small.
    pub(crate) files: Vec<(u64, u32)>,
    pub(crate) smalls: Vec<Small>,
}

/// What the writing thread notes of a layer: where blocks and groups are.
#[derive(Debug, Default)]
pub(crate) struct SinkRecord {
    pub(super) groups: Vec<Group>,
    pub(super) larges: Vec<Large>,
    pub(super) blocks: Vec<Block>,
    by_key: HashMap<(u64, Hash), u32>,
    /// By the file's number in the layer.
    pub(super) content_of: HashMap<u32, u32>,
}

impl SinkRecord {
    pub(crate) fn add_group(&mut self, ordinal: u32, group: Group) {
        let index = ordinal as usize;
        if self.groups.len() <= index {
            self.groups.resize(index + 1, Group::ABSENT);
        }
        self.groups[index] = group;
    }

    /// `start`: where the blocks lie, one behind the other.
    pub(crate) fn add_large(&mut self, file: u32, size: u64, key: Hash, start: u64, words: &[u32], hashes: &[Hash]) {
        let mut next = start;
        let places = words.iter().map(|word| {
            let place = next;
            next += u64::from(stored(*word));
            place
        });
        let blocks = places.zip(words).zip(hashes).map(|((offset, &word), &hash)| Block { offset, word, hash });
        self.add(file, size, key, blocks);
    }

    /// The same for blocks that lie anywhere.
    pub(crate) fn add(&mut self, file: u32, size: u64, key: Hash, blocks: impl Iterator<Item = Block>) {
        let next = self.larges.len() as u32;
        let content = *self.by_key.entry((size, key)).or_insert(next);
        self.content_of.insert(file, content);
        if content == next {
            self.larges.push(Large { size, key, first: self.blocks.len() as u32 });
            self.blocks.extend(blocks);
        }
    }
}

/// All that was noted of one layer.
#[derive(Debug)]
pub struct Recorded {
    pub(super) rows: LayerRows,
    pub(super) sink: SinkRecord,
}

impl Recorded {
    pub(crate) fn new(rows: LayerRows, mut sink: SinkRecord) -> Self {
        // Groups at the end may be absent: the sink has not seen them.
        let groups = rows.smalls.last().map_or(0, |small| small.group as usize + 1);
        sink.groups.resize(groups, Group::ABSENT);
        Self { rows, sink }
    }

    pub(super) fn content(&self, file: usize, block_size: u32) -> u32 {
        match self.rows.files[file] {
            (0, _) => NO_CONTENT,
            (size, small) if size < u64::from(block_size) => small,
            _ => self.sink.content_of.get(&(file as u32)).copied().unwrap_or(NO_CONTENT),
        }
    }
}
