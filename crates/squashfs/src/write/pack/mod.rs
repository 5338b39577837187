//! Layer packs: what a layer became, so that the next image with that layer copies it instead of doing it again.
//!
//! A pack depends on the layer, the codec, its level, the block size and the engine format alone ([`Key`]), not on the
//! image by whose build it was made. It holds stored blocks as they stand in images, and of the layer's tar all that is no
//! file's contents, so that the tar can be made again ([`Pack::tar`]) and its diff_id checked.
//!
//! ```text
//!  pieces    framing, 256 KiB at a time, zstd │ blocks of large files │ groups │ …       in any order
//!  index     zstd: six numbers of rows u32, then the rows, little-endian
//!              frames  u64 offset, u32 bytes, u32 unpacked, hash         the framing's pieces, in order
//!              files   u64 size, u64 place, u32 content                  regular files in tar order, hidden ones too
//!              smalls  u32 group, u32 offset, u32 size                   contents of less than a block, by first use
//!              groups  u64 offset, u32 word, u32 unpacked, hash          offset 2^64-1: absent
//!              larges  u64 size, SHA-256 of its blocks' SHA-256s, u32 first block
//!              blocks  u64 offset, u32 word, hash                        word 0: a hole
//!  trailer   128 bytes, below
//!
//!  0 "SIFPACK\n" │ 8 u32 format │ 12 u32 engine format │ 16 diff_id │ 48 u16 codec │ 50 u16 complete │ 52 i32 level
//!  56 u32 block size │ 60 u32 0 │ 64 u64 index offset │ 72 u64 index bytes │ 80 u64 unpacked │ 88 the index's hash
//!  120 first 8 bytes of the hash of the 120 before
//! ```
//!
//! `word` is a squashfs size word: bytes, and bit 24 for stored as they are. A `hash` is BLAKE3's, of a piece as it lies
//! in the file; it is checked whenever the piece is read. A file's `place` is where in the framing its contents belong; 2^64-1 if
//! they stand there already (sparse members). `content` is a number of `smalls` or of `larges`, by the file's size; 2^32-1 if
//! a large file is absent.
//!
//! What no image needed yet may be absent: large files that were hidden, groups with hidden members only. Groups hidden in
//! part are whole here. Whoever needs what is absent reads the layer itself, and makes a pack with all of it.

mod framing;
mod index;
mod reader;
mod record;
mod save;

use std::io;

use crate::write::Codec;

pub use framing::{FramingRecord, FramingRecorder};
pub use reader::Pack;
pub use record::{Recorded, Scratch};
pub use save::Saved;

pub(super) use index::{Block, Group, Small};
pub(super) use reader::Piece;
pub(super) use record::{LayerRows, SinkRecord};

/// The pack format; raised when a pack of today could be misread.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SIFPACK\n";
const TRAILER: usize = 128;
/// Uncompressed bytes of framing in a piece.
const FRAME: usize = 256 << 10;
/// Offset, place or content of what is not there.
const ABSENT: u64 = u64::MAX;
const NO_CONTENT: u32 = u32::MAX;

type Hash = [u8; 32];

/// Of a piece as it lies in the file. Each is hashed when it is made and when it is copied, besides the hashes that decide
/// something: so this one is of the kind that is fast on every processor.
pub(super) fn piece_hash(piece: &[u8]) -> Hash {
    *blake3::hash(piece).as_bytes()
}

/// What decides a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the layer's uncompressed tar.
    pub diff_id: Hash,
    pub codec: Codec,
    pub block_size: u32,
    pub engine_format: u32,
}

/// Why a pack does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("is of another layer or another kind")]
    Other,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It is sound, but another image hid what this one shows.
    #[error("lacks contents that are needed here")]
    Lacks,
}
