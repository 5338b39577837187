//! A pack that is there: its index in memory, its pieces on demand.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::index::{FileRow, Frame, Index, Large, Small, Trailer, stored};
use super::{ABSENT, Fault, Hash, Key, NO_CONTENT, TRAILER, piece_hash};
use crate::format::BLOCK_STORED;
use crate::write::codec::decompress;

/// An open pack; reads are checked, and may come from several threads.
#[derive(Debug)]
pub struct Pack {
    file: File,
    key: Key,
    complete: bool,
    index: Index,
}

/// A block or a group of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) word: u32,
    hash: Hash,
}

impl Pack {
    /// Reads and checks the index of what should be the pack of `key`.
    pub fn open(file: File, key: &Key) -> Result<Self, Fault> {
        let length = file.metadata().map_err(Fault::Read)?.len();
        let mut trailer = [0; TRAILER];
        let at = length.checked_sub(TRAILER as u64).ok_or(Fault::Damaged("it is too short"))?;
        file.read_exact_at(&mut trailer, at).map_err(Fault::Read)?;
        let trailer = Trailer::decode(&trailer, key, length)?;
        let mut packed = vec![0; trailer.bytes as usize];
        file.read_exact_at(&mut packed, trailer.offset).map_err(Fault::Read)?;
        if piece_hash(&packed) != trailer.hash {
            return Err(Fault::Damaged("its index changed"));
        }
        let raw = zstd::bulk::decompress(&packed, trailer.unpacked as usize)
            .map_err(|_| Fault::Damaged("its index does not unpack"))?;
        let index = Index::decode(&raw, trailer.offset, key.block_size)?;
        let complete = index.is_complete(key.block_size);
        Ok(Self { file, key: *key, complete, index })
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Nothing is absent: the layer itself is not needed any more.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The layer's tar, but with anything in the place of files' contents: a [`crate::write::Writer`] that has been given
    /// this pack does not read them.
    pub fn framing(self: &Arc<Self>) -> impl Read + use<> {
        Tar { pack: self.clone(), state: State::default(), contents: false }
    }

    /// The layer's tar, byte by byte; an error where something is absent.
    pub fn tar(self: &Arc<Self>) -> impl Read + use<> {
        Tar { pack: self.clone(), state: State::default(), contents: true }
    }

    pub(crate) fn files(&self) -> &[FileRow] {
        &self.index.files
    }

    pub(crate) fn small(&self, number: u32) -> Small {
        // Numbers were checked when the index was read.
        self.index.smalls[number as usize]
    }

    pub(crate) fn large(&self, number: u32) -> Result<Large, Fault> {
        if number == NO_CONTENT { Err(Fault::Lacks) } else { Ok(self.index.larges[number as usize]) }
    }

    pub(crate) fn group(&self, number: u32) -> Result<Piece, Fault> {
        let group = self.index.groups[number as usize];
        let piece = Piece { offset: group.offset, word: group.word, hash: group.hash };
        if group.offset == ABSENT { Err(Fault::Lacks) } else { Ok(piece) }
    }

    pub(crate) fn block(&self, large: &Large, number: usize) -> Piece {
        let block = self.index.blocks[large.first as usize + number];
        Piece { offset: block.offset, word: block.word, hash: block.hash }
    }

    /// Reads a piece as it is stored; `room` has at least its length, which is returned.
    pub(crate) fn read(&self, piece: &Piece, room: &mut [u8]) -> Result<usize, Fault> {
        let bytes = &mut room[..stored(piece.word) as usize];
        self.file.read_exact_at(bytes, piece.offset).map_err(Fault::Read)?;
        match piece_hash(&*bytes) == piece.hash {
            true => Ok(bytes.len()),
            false => Err(Fault::Damaged("a block of it changed")),
        }
    }

    /// Reads and unpacks a piece; its length.
    pub(crate) fn unpack(&self, piece: &Piece, room: &mut [u8]) -> Result<usize, Fault> {
        if piece.word & BLOCK_STORED != 0 {
            return self.read(piece, room);
        }
        let mut packed = vec![0; stored(piece.word) as usize];
        self.read(piece, &mut packed)?;
        decompress(self.key.codec, &packed, room).map_err(|_| Fault::Damaged("a block of it does not unpack"))
    }

    /// Reads and unpacks a group; its length, which is what the index says: what is behind it in `room` is of others.
    pub(crate) fn unpack_group(&self, number: u32, room: &mut [u8]) -> Result<usize, Fault> {
        let length = self.unpack(&self.group(number)?, room)?;
        match length == self.index.groups[number as usize].unpacked as usize {
            true => Ok(length),
            false => Err(Fault::Damaged("a group of it is not as long as it says")),
        }
    }

    fn frame(&self, frame: &Frame) -> Result<Vec<u8>, Fault> {
        let mut packed = vec![0; frame.bytes as usize];
        self.file.read_exact_at(&mut packed, frame.offset).map_err(Fault::Read)?;
        if piece_hash(&packed) != frame.hash {
            return Err(Fault::Damaged("its framing changed"));
        }
        match zstd::bulk::decompress(&packed, frame.unpacked as usize) {
            Ok(bytes) if bytes.len() == frame.unpacked as usize => Ok(bytes),
            _ => Err(Fault::Damaged("its framing does not unpack")),
        }
    }
}

struct Tar {
    pack: Arc<Pack>,
    state: State,
    /// Whether files' contents are wanted, or only their room.
    contents: bool,
}

#[derive(Default)]
struct State {
    frame: Vec<u8>,
    /// Where `frame` begins in the framing, and how much of it is read.
    begin: u64,
    used: usize,
    next_frame: usize,
    file: usize,
    /// Bytes left of the file whose contents stand here.
    left: u64,
    /// The unpacked block that is read, its file's contents number and how much of it is used.
    block: Vec<u8>,
    block_used: usize,
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(|fault| io::Error::other(format!("the layer's pack {fault}")))
    }
}

impl Tar {
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let (pack, state) = (&self.pack, &mut self.state);
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if state.left > 0 {
                let bytes = state.left.min(buffer.len() as u64) as usize;
                // Without contents the buffer stays as it is: nobody looks, and writing it would be the dearest part.
                let bytes = match self.contents {
                    true => contents(pack, state, &mut buffer[..bytes])?,
                    false => bytes,
                };
                state.left -= bytes as u64;
                state.file += usize::from(state.left == 0);
                return Ok(bytes);
            }
            let at = state.begin + state.used as u64;
            let file = pack.index.files.get(state.file);
            let until = match file {
                Some(file) if file.place == ABSENT || (file.place == at && file.size == 0) => {
                    state.file += 1;
                    continue;
                }
                Some(file) if file.place == at => {
                    state.left = file.size;
                    continue;
                }
                Some(file) => file.place,
                None => u64::MAX,
            };
            if state.used == state.frame.len() {
                let Some(frame) = pack.index.frames.get(state.next_frame) else {
                    return Ok(0);
                };
                state.begin = at;
                state.frame = pack.frame(frame)?;
                state.used = 0;
                state.next_frame += 1;
                continue;
            }
            let rest = &state.frame[state.used..];
            let bytes = (until - at).min(rest.len() as u64).min(buffer.len() as u64) as usize;
            buffer[..bytes].copy_from_slice(&rest[..bytes]);
            state.used += bytes;
            return Ok(bytes);
        }
    }
}

/// The next bytes of the file that is read, at least one.
fn contents(pack: &Pack, state: &mut State, buffer: &mut [u8]) -> Result<usize, Fault> {
    let file = pack.index.files[state.file];
    let block_size = u64::from(pack.key.block_size);
    if state.left == file.size || state.block_used == state.block.len() {
        state.block_used = 0;
        if file.size < block_size {
            let small = pack.small(file.content);
            state.block.resize(pack.key.block_size as usize, 0);
            pack.unpack_group(small.group, &mut state.block)?;
            // It ends within its group: that was checked when the index was read.
            let (from, to) = (small.offset as usize, (small.offset + small.size) as usize);
            state.block.truncate(to);
            state.block.drain(..from);
        } else {
            let large = pack.large(file.content)?;
            let done = file.size - state.left;
            let length = block_size.min(state.left) as usize;
            let piece = pack.block(&large, (done / block_size) as usize);
            state.block.clear();
            state.block.resize(length, 0);
            if piece.word != 0 && pack.unpack(&piece, &mut state.block)? != length {
                return Err(Fault::Damaged("a block of it is too short"));
            }
        }
    }
    let rest = &state.block[state.block_used..];
    let bytes = rest.len().min(buffer.len());
    buffer[..bytes].copy_from_slice(&rest[..bytes]);
    state.block_used += bytes;
    Ok(bytes)
}
