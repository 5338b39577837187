//! One-shot decompression of blocks into buffers of known size: what claims to unpack to more is an error, so no block
//! takes more memory than the buffer.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::Error;
use crate::format::CodecId;

/// The codec that an image names, if it can be read.
pub(super) fn codec(id: u16) -> Result<CodecId, Error> {
    let name = match id {
        1 => return Ok(CodecId::Gzip),
        6 => return Ok(CodecId::Zstd),
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        id => return Err(Error::UnknownCodec { id }),
    };
    Err(Error::Codec { name })
}

pub(super) enum Decompressor {
    Zstd(zstd::bulk::Decompressor<'static>),
    Gzip(libdeflater::Decompressor),
}

impl Decompressor {
    fn new(codec: CodecId) -> io::Result<Self> {
        Ok(match codec {
            CodecId::Zstd => Self::Zstd(zstd::bulk::Decompressor::new()?),
            _ => Self::Gzip(libdeflater::Decompressor::new()),
        })
    }

    /// Unpacked bytes, now at the start of `output`.
    fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(context) => context.decompress_to_buffer(input, output),
            Self::Gzip(context) => context.zlib_decompress(input, output).map_err(io::Error::other),
        }
    }
}

/// Reused contexts: as many as threads ever unpacked at the same time.
pub(super) struct Decompressors {
    codec: CodecId,
    idle: Mutex<Vec<Decompressor>>,
}

impl Decompressors {
    pub(super) fn new(codec: CodecId) -> Self {
        Self { codec, idle: Mutex::default() }
    }

    pub(super) fn unpack(&self, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
        // A context starts each block anew, so one whose user panicked is as good as any.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut context = match kept {
            Some(context) => context,
            None => Decompressor::new(self.codec)?,
        };
        let length = context.unpack(input, output);
        idle().push(context);
        length
    }
}
