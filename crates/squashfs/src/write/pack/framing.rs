//! The framing of a layer's tar, packed while it is read.

use std::sync::Arc;

use siforge_rootfs::tar::Framing;

use super::index::Frame;
use super::{ABSENT, FRAME, Scratch, piece_hash};

/// Headers and padding shrink to a hundredth at any level.
const LEVEL: i32 = 1;

/// Keeps what is no file's contents of one layer's tar.
pub struct FramingRecorder {
    scratch: Arc<Scratch>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    buffer: Vec<u8>,
    taken: u64,
    record: FramingRecord,
}

/// What a [`FramingRecorder`] kept.
#[derive(Debug, Default)]
pub struct FramingRecord {
    pub(super) frames: Vec<Frame>,
    /// Of each file, where its contents belong.
    pub(super) places: Vec<u64>,
}

impl FramingRecorder {
    pub fn new(scratch: Arc<Scratch>) -> Self {
        let compressor = zstd::bulk::Compressor::new(LEVEL).ok();
        if compressor.is_none() {
            scratch.fail();
        }
        let buffer = Vec::with_capacity(FRAME);
        Self { scratch, compressor, buffer, taken: 0, record: FramingRecord::default() }
    }

    /// After the whole tar.
    pub fn finish(mut self) -> FramingRecord {
        self.flush();
        self.record
    }

    fn flush(&mut self) {
        let Some(compressor) = self.compressor.as_mut().filter(|_| !self.buffer.is_empty()) else {
            return;
        };
        match compressor.compress(&self.buffer) {
            Ok(packed) => self.record.frames.push(Frame {
                offset: self.scratch.keep(&packed),
                bytes: packed.len() as u32,
                unpacked: self.buffer.len() as u32,
                hash: piece_hash(&packed),
            }),
            Err(_) => self.scratch.fail(),
        }
        self.buffer.clear();
    }
}

impl Framing for FramingRecorder {
    fn bytes(&mut self, mut bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == FRAME {
                self.flush();
            }
        }
    }

    fn file(&mut self, _: u64, inside: bool) {
        self.record.places.push(if inside { ABSENT } else { self.taken });
    }
}
