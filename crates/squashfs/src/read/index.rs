//! Where the blocks of a large file lie.
//!
//! ```text
//! size words   w0 w1 … w63 │ w64 … w127 │ …      a point every `stride` blocks: where its word stands in the inode
//! points       ●           ●            ●        table, and where its block begins in the image
//! ```
//!
//! A block is found from the last point before it by at most `stride` words. Points are made as far as they are needed,
//! so whoever claims that a file is huge costs nothing but what is read of it.

use std::sync::{Mutex, PoisonError};

use super::Error;
use super::inode::File;
use super::metadata::Cursor;
use crate::format::MetaRef;

/// Words read between two points, at least; they are read in one go.
const STRIDE_MIN: u64 = 64;
/// Points of a file, at most: 128 KiB. Files of up to 2^19 blocks have the smallest stride.
const POINTS_MAX: u64 = 8192;

#[derive(Clone, Copy)]
struct Point {
    words: MetaRef,
    place: u64,
}

pub(super) struct Index {
    /// A multiple of [`STRIDE_MIN`].
    stride: u64,
    /// Number i is block i * stride.
    points: Mutex<Vec<Point>>,
}

impl Index {
    pub(super) fn new(blocks: u64, file: &File) -> Self {
        let stride = blocks.div_ceil(POINTS_MAX).next_multiple_of(STRIDE_MIN).max(STRIDE_MIN);
        Self { stride, points: Mutex::new(vec![Point { words: file.words, place: file.start }]) }
    }

    /// The place of block `number`'s size word, and its own. `behind` checks a block and tells where the next begins.
    pub(super) fn find<'r>(
        &self,
        number: u64,
        cursor: impl Fn(MetaRef) -> Cursor<'r>,
        behind: impl Fn(u64, u32) -> Result<u64, Error>,
    ) -> Result<(MetaRef, u64), Error> {
        let point = (number / self.stride) as usize;
        // What is in it is complete at all times.
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        while points.len() <= point {
            // Never empty: it is made with one point, and none is removed.
            let Some(last) = points.last().copied() else { break };
            points.push(advance(last, self.stride, &cursor, &behind)?);
        }
        let Some(start) = points.get(point).copied() else {
            return Err(Error::Index { what: "block", index: number, count: points.len() as u64 * self.stride });
        };
        drop(points);
        let found = advance(start, number % self.stride, &cursor, &behind)?;
        Ok((found.words, found.place))
    }
}

/// The point `words` further.
fn advance<'r>(
    from: Point,
    words: u64,
    cursor: &impl Fn(MetaRef) -> Cursor<'r>,
    behind: &impl Fn(u64, u32) -> Result<u64, Error>,
) -> Result<Point, Error> {
    let mut cursor = cursor(from.words);
    let mut place = from.place;
    let mut left = words;
    let mut bytes = [0; 4 * STRIDE_MIN as usize];
    while left > 0 {
        let now = left.min(STRIDE_MIN);
        let bytes = &mut bytes[..4 * now as usize];
        cursor.read(bytes)?;
        for word in bytes.chunks_exact(4).filter_map(|word| word.try_into().ok()).map(u32::from_le_bytes) {
            if word != 0 {
                place = behind(place, word)?;
            }
        }
        left -= now;
    }
    Ok(Point { words: cursor.position(), place })
}
