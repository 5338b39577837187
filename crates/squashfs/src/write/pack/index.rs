//! The index and the trailer, as values and as bytes.

use super::{ABSENT, FORMAT, FRAME, Fault, Hash, Key, MAGIC, NO_CONTENT, TRAILER, piece_hash};
use crate::format::BLOCK_STORED;

/// An index is 20 bytes a file and 44 a block: this is beyond any layer that the limits of a build let through.
const INDEX_LIMIT: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) unpacked: u32,
    pub(super) hash: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRow {
    pub(crate) size: u64,
    pub(crate) place: u64,
    pub(crate) content: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Small {
    pub(crate) group: u32,
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) offset: u64,
    pub(crate) word: u32,
    pub(crate) unpacked: u32,
    pub(crate) hash: Hash,
}

impl Group {
    pub(crate) const ABSENT: Self = Self { offset: ABSENT, word: 0, unpacked: 0, hash: [0; 32] };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Large {
    pub(crate) size: u64,
    pub(crate) key: Hash,
    pub(crate) first: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    pub(crate) word: u32,
    pub(crate) hash: Hash,
}

/// Bytes that a block of this size word takes.
pub(super) fn stored(word: u32) -> u32 {
    word & !BLOCK_STORED
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) frames: Vec<Frame>,
    pub(super) files: Vec<FileRow>,
    pub(super) smalls: Vec<Small>,
    pub(super) groups: Vec<Group>,
    pub(super) larges: Vec<Large>,
    pub(super) blocks: Vec<Block>,
}

/// A row of fixed length.
trait Row: Sized {
    const BYTES: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn get(row: &mut Fields<'_>) -> Self;
}

/// Takes fields off a row that is long enough; zeros beyond its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((array, rest)) = self.0.split_first_chunk() else {
            return [0; N];
        };
        self.0 = rest;
        *array
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

macro_rules! row {
    ($row:ident, $bytes:literal, $($field:ident: $kind:ident),*) => {
        impl Row for $row {
            const BYTES: usize = $bytes;

            fn put(&self, out: &mut Vec<u8>) {
                $(put::$kind(out, self.$field);)*
            }

            fn get(row: &mut Fields<'_>) -> Self {
                Self { $($field: row.$kind()),* }
            }
        }
    };
}

mod put {
    pub(super) fn u32(out: &mut Vec<u8>, value: u32) {
        out.extend(value.to_le_bytes());
    }

    pub(super) fn u64(out: &mut Vec<u8>, value: u64) {
        out.extend(value.to_le_bytes());
    }

    pub(super) fn array(out: &mut Vec<u8>, value: [u8; 32]) {
        out.extend(value);
    }
}

row!(Frame, 48, offset: u64, bytes: u32, unpacked: u32, hash: array);
row!(FileRow, 20, size: u64, place: u64, content: u32);
row!(Small, 12, group: u32, offset: u32, size: u32);
row!(Group, 48, offset: u64, word: u32, unpacked: u32, hash: array);
row!(Large, 44, size: u64, key: array, first: u32);
row!(Block, 44, offset: u64, word: u32, hash: array);

fn put_rows<R: Row>(rows: &[R], out: &mut Vec<u8>) {
    rows.iter().for_each(|row| row.put(out));
}

fn get_rows<R: Row>(count: u32, bytes: &mut &[u8]) -> Result<Vec<R>, Fault> {
    let length = (count as usize).saturating_mul(R::BYTES);
    let (rows, rest) = bytes.split_at_checked(length).ok_or(Fault::Damaged("its index is too short"))?;
    *bytes = rest;
    Ok(rows.chunks_exact(R::BYTES).map(|row| R::get(&mut Fields(row))).collect())
}

impl Index {
    /// Nothing is absent.
    pub(super) fn is_complete(&self, block_size: u32) -> bool {
        let large = |file: &FileRow| file.size >= u64::from(block_size);
        self.groups.iter().all(|group| group.offset != ABSENT)
            && !self.files.iter().any(|file| large(file) && file.content == NO_CONTENT)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { frames, files, smalls, groups, larges, blocks } = self;
        let mut out = Vec::new();
        for count in [frames.len(), files.len(), smalls.len(), groups.len(), larges.len(), blocks.len()] {
            put::u32(&mut out, count as u32);
        }
        put_rows(frames, &mut out);
        put_rows(files, &mut out);
        put_rows(smalls, &mut out);
        put_rows(groups, &mut out);
        put_rows(larges, &mut out);
        put_rows(blocks, &mut out);
        out
    }

    /// `pieces`: bytes of the file that hold pieces.
    pub(super) fn decode(mut bytes: &[u8], pieces: u64, block_size: u32) -> Result<Self, Fault> {
        let (counts, rest) = bytes.split_at_checked(24).ok_or(Fault::Damaged("its index is too short"))?;
        bytes = rest;
        let mut counts = Fields(counts);
        let index = Self {
            frames: get_rows(counts.u32(), &mut bytes)?,
            files: get_rows(counts.u32(), &mut bytes)?,
            smalls: get_rows(counts.u32(), &mut bytes)?,
            groups: get_rows(counts.u32(), &mut bytes)?,
            larges: get_rows(counts.u32(), &mut bytes)?,
            blocks: get_rows(counts.u32(), &mut bytes)?,
        };
        let sound = bytes.is_empty() && index.pieces_lie_within(pieces, block_size) && index.rows_agree(block_size);
        if sound { Ok(index) } else { Err(Fault::Damaged("its index contradicts itself")) }
    }

    fn pieces_lie_within(&self, pieces: u64, block_size: u32) -> bool {
        let within = |offset: u64, bytes: u32| offset.checked_add(u64::from(bytes)).is_some_and(|end| end <= pieces);
        let shrunk = |word: u32, unpacked: u32| match word & BLOCK_STORED {
            0 => word < unpacked,
            _ => stored(word) == unpacked,
        };
        self.frames.iter().all(|frame| within(frame.offset, frame.bytes) && frame.unpacked as usize <= FRAME)
            && self.groups.iter().all(|group| {
                let there = within(group.offset, stored(group.word)) && shrunk(group.word, group.unpacked);
                group.unpacked <= block_size && (group.offset == ABSENT || there)
            })
            && self.blocks.iter().all(|block| {
                block.word == 0 || within(block.offset, stored(block.word)) && stored(block.word) <= block_size
            })
    }

    fn rows_agree(&self, block_size: u32) -> bool {
        let framing: u64 = self.frames.iter().map(|frame| u64::from(frame.unpacked)).sum();
        let mut before = 0;
        let mut in_order = |file: &FileRow| {
            let ordered = file.place == ABSENT || (before <= file.place && file.place <= framing);
            before = if file.place == ABSENT { before } else { file.place };
            ordered
        };
        let small = |file: &FileRow| {
            self.smalls.get(file.content as usize).is_some_and(|small| u64::from(small.size) == file.size)
        };
        let large = |file: &FileRow| {
            file.content == NO_CONTENT
                || self.larges.get(file.content as usize).is_some_and(|large| large.size == file.size)
        };
        let block_size = u64::from(block_size);
        self.files.iter().all(|file| {
            let content = match file.size {
                0 => true,
                size if size < block_size => small(file),
                _ => large(file),
            };
            content && in_order(file)
        }) && self.smalls.is_sorted_by_key(|small| small.group)
            && self.smalls.iter().all(|small| {
                let end = u64::from(small.offset) + u64::from(small.size);
                self.groups.get(small.group as usize).is_some_and(|group| {
                    end <= block_size && (group.offset == ABSENT || end <= u64::from(group.unpacked))
                })
            })
            && self.larges.iter().all(|large| {
                let count = large.size.div_ceil(block_size);
                large.size >= block_size && u64::from(large.first).saturating_add(count) <= self.blocks.len() as u64
            })
    }
}

/// The end of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) complete: bool,
    /// Where the index begins: behind the pieces.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) unpacked: u64,
    pub(super) hash: Hash,
}

impl Trailer {
    pub(super) fn encode(&self, key: &Key) -> [u8; TRAILER] {
        let (codec, level) = key.codec.number();
        let mut out = Vec::with_capacity(TRAILER);
        out.extend(MAGIC);
        put::u32(&mut out, FORMAT);
        put::u32(&mut out, key.engine_format);
        out.extend(key.diff_id);
        out.extend(codec.to_le_bytes());
        out.extend(u16::from(self.complete).to_le_bytes());
        out.extend(level.to_le_bytes());
        put::u32(&mut out, key.block_size);
        put::u32(&mut out, 0);
        put::u64(&mut out, self.offset);
        put::u64(&mut out, self.bytes);
        put::u64(&mut out, self.unpacked);
        out.extend(self.hash);
        let check: Hash = piece_hash(&out);
        out.extend(&check[..8]);
        let mut trailer = [0; TRAILER];
        trailer.copy_from_slice(&out);
        trailer
    }

    /// Of a file of `length` bytes that should be the pack of `key`.
    pub(super) fn decode(bytes: &[u8; TRAILER], key: &Key, length: u64) -> Result<Self, Fault> {
        let check: Hash = piece_hash(&bytes[..120]);
        if &bytes[..8] != MAGIC || bytes[120..] != check[..8] {
            return Err(Fault::Damaged("its trailer is none"));
        }
        let mut fields = Fields(&bytes[64..]);
        let trailer = Self {
            complete: bytes[50] & 1 == 1,
            offset: fields.u64(),
            bytes: fields.u64(),
            unpacked: fields.u64(),
            hash: fields.array(),
        };
        if trailer.encode(key) != *bytes {
            return Err(Fault::Other);
        }
        let end = trailer.offset.checked_add(trailer.bytes).and_then(|end| end.checked_add(TRAILER as u64));
        if end != Some(length) {
            return Err(Fault::Damaged("its length is not what it says"));
        }
        if trailer.bytes > INDEX_LIMIT || trailer.unpacked > INDEX_LIMIT {
            return Err(Fault::Damaged("its index is too large"));
        }
        Ok(trailer)
    }
}
