//! A record becomes a pack: its pieces are copied from the finished image and the scratch file in long runs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::index::{FileRow, Index, Trailer, stored};
use super::record::{IN_MEMORY, IN_SCRATCH};
use super::{ABSENT, FramingRecord, Key, Recorded, Scratch, piece_hash};

const INDEX_LEVEL: i32 = 1;

/// A pack that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Nothing is absent.
    pub complete: bool,
    pub bytes: u64,
}

/// Bytes of the image, of the scratch file or of what is kept in memory, and where they go.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u64,
    to: u64,
    bytes: u64,
}

impl Recorded {
    /// Writes the pack of `key` into `out`, an empty file. `image`: the file whose squashfs begins at `base`.
    pub fn save(
        self,
        key: &Key,
        framing: FramingRecord,
        (image, base): (&File, u64),
        scratch: &Scratch,
        out: &File,
    ) -> io::Result<Saved> {
        if scratch.has_failed() {
            return Err(io::Error::other("the scratch file could not be written"));
        }
        if framing.places.len() != self.rows.files.len() {
            return Err(io::Error::other("the tar's files are not those that were written; this is a bug of siforge"));
        }
        let file = |(number, place): (usize, &u64)| FileRow {
            size: self.rows.files[number].0,
            place: *place,
            content: self.content(number, key.block_size),
        };
        let mut index = Index {
            frames: framing.frames,
            files: framing.places.iter().enumerate().map(file).collect(),
            smalls: self.rows.smalls,
            groups: self.sink.groups,
            larges: self.sink.larges,
            blocks: self.sink.blocks,
        };
        let runs = place(&mut index);
        copy(&runs, (image, base), scratch, out)?;
        finish(&index, key, runs.iter().map(|run| run.bytes).sum(), out)
    }
}

/// Gives each piece its place in the pack: in the order in which they lie, so that neighbours stay neighbours.
fn place(index: &mut Index) -> Vec<Run> {
    let frames = index.frames.iter_mut().map(|frame| (&mut frame.offset, frame.bytes));
    let groups = index.groups.iter_mut().filter(|group| group.offset != ABSENT);
    let groups = groups.map(|group| (&mut group.offset, stored(group.word)));
    let blocks = index.blocks.iter_mut().filter(|block| block.word != 0);
    let blocks = blocks.map(|block| (&mut block.offset, stored(block.word)));
    let mut pieces: Vec<_> = frames.chain(groups).chain(blocks).collect();
    pieces.sort_by_key(|(offset, _)| **offset);
    let mut runs: Vec<Run> = Vec::new();
    let mut end = 0;
    for (offset, bytes) in pieces {
        let (from, bytes) = (*offset, u64::from(bytes));
        *offset = end;
        match runs.last_mut() {
            Some(last) if last.from + last.bytes == from => last.bytes += bytes,
            _ => runs.push(Run { from, to: end, bytes }),
        }
        end += bytes;
    }
    runs
}

/// [`io::copy`] between files is copy_file_range where the kernel has it.
fn copy(runs: &[Run], (image, base): (&File, u64), scratch: &Scratch, out: &File) -> io::Result<()> {
    let (mut out, mut image, mut file) = (out, image, scratch.file());
    for run in runs {
        let place = run.from & !(IN_SCRATCH | IN_MEMORY);
        let (from, at) = match (run.from & IN_SCRATCH, run.from & IN_MEMORY) {
            (0, _) => (&mut image, base + run.from),
            (_, 0) => (&mut file, place),
            _ => {
                let kept = scratch.memory();
                let bytes = kept.get(place as usize..).and_then(|rest| rest.get(..run.bytes as usize));
                out.write_all_at(bytes.ok_or(io::ErrorKind::UnexpectedEof)?, run.to)?;
                continue;
            }
        };
        from.seek(SeekFrom::Start(at))?;
        out.seek(SeekFrom::Start(run.to))?;
        if io::copy(&mut from.take(run.bytes), &mut out)? != run.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn finish(index: &Index, key: &Key, offset: u64, out: &File) -> io::Result<Saved> {
    let raw = index.encode();
    let packed = zstd::bulk::compress(&raw, INDEX_LEVEL)?;
    let trailer = Trailer {
        complete: index.is_complete(key.block_size),
        offset,
        bytes: packed.len() as u64,
        unpacked: raw.len() as u64,
        hash: piece_hash(&packed),
    };
    out.write_all_at(&packed, offset)?;
    let end = offset + trailer.bytes;
    let trailer_bytes = trailer.encode(key);
    out.write_all_at(&trailer_bytes, end)?;
    Ok(Saved { complete: trailer.complete, bytes: end + trailer_bytes.len() as u64 })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::index::{Frame, Group, Small};
    use super::super::{Fault, Pack};
    use super::*;
    use crate::write::Codec;

    #[test]
    fn framing_is_kept_in_memory_while_there_is_room() {
        let [image, file, out] = [(), (), ()].map(|()| tempfile::tempfile().unwrap());
        image.write_all_at(b"SIF image", 0).unwrap();
        let scratch = Scratch::new(file);
        let length = || scratch.file().metadata().unwrap().len();
        for _ in 0..2 {
            scratch.clear().unwrap();
            let mebibyte = vec![b'x'; 1 << 20];
            let first = scratch.keep(b"first");
            for _ in 0..15 {
                scratch.keep(&mebibyte);
            }
            assert_eq!(length(), 0);
            let hidden = scratch.append(b"hidden");
            let beyond = scratch.keep(&mebibyte);
            let last = scratch.keep(b"last");
            assert_eq!(length(), 6 + (1 << 20));
            let pieces = [(0, 5), (first, 5), (hidden, 6), (last, 4), (beyond, 1)];
            let mut to = 0;
            let runs = pieces.map(|(from, bytes)| {
                to += bytes;
                Run { from, to: to - bytes, bytes }
            });
            copy(&runs, (&image, 4), &scratch, &out).unwrap();
            let mut copied = [0; 21];
            out.read_exact_at(&mut copied, 0).unwrap();
            assert_eq!(copied.escape_ascii().to_string(), "imagefirsthiddenlastx");
        }
    }

    /// A pack of one file of `size` bytes in a group that says that it unpacks to `unpacked`, and does to 1000.
    fn forged(size: u32, unpacked: u32) -> Arc<Pack> {
        let key = Key { diff_id: [7; 32], codec: Codec::Zstd { level: 3 }, block_size: 64 << 10, engine_format: 1 };
        let out = tempfile::tempfile().unwrap();
        let pieces = [b"header".as_slice(), &[b'a'; 1000]].map(|bytes| zstd::bulk::compress(bytes, 3).unwrap());
        let [frame, group] = &pieces;
        out.write_all_at(&pieces.concat(), 0).unwrap();
        let index = Index {
            frames: vec![Frame { offset: 0, bytes: frame.len() as u32, unpacked: 6, hash: piece_hash(frame) }],
            files: vec![FileRow { size: u64::from(size), place: 6, content: 0 }],
            smalls: vec![Small { group: 0, offset: 0, size }],
            groups: vec![Group {
                offset: frame.len() as u64,
                word: group.len() as u32,
                unpacked,
                hash: piece_hash(group),
            }],
            ..Index::default()
        };
        finish(&index, &key, pieces.concat().len() as u64, &out).unwrap();
        Arc::new(Pack::open(out, &key).unwrap())
    }

    #[test]
    fn a_group_that_unpacks_short_shows_nothing_of_what_was_there_before() {
        for (size, unpacked, sound) in [(900, 1000, true), (1500, 2000, false), (900, 2000, false), (900, 999, false)] {
            let pack = forged(size, unpacked);
            let mut room = vec![b'?'; 64 << 10];
            let unpacked = pack.unpack_group(0, &mut room);
            assert_eq!(unpacked.is_ok(), sound, "{size}");
            assert!(matches!(unpacked, Ok(1000) | Err(Fault::Damaged(_))), "{unpacked:?}");
            let mut tar = vec![];
            assert_eq!(pack.tar().read_to_end(&mut tar).is_ok(), sound, "{size}");
        }
    }
}
