//! One-shot decompression of blocks into buffers of known size: what claims to unpack to more is an error, so no block
//! takes more memory than the buffer.
//!
//! | id | codec | stream in a block | by |
//! |---|---|---|---|
//! | 1 | gzip | zlib | libdeflate |
//! | 2 | lzma | LZMA alone: 13 bytes of header with the unpacked size | liblzma |
//! | 3 | lzo | LZO1X | `lzo`, safe Rust |
//! | 4 | xz | an xz stream, LZMA2 with a branch filter or none | liblzma |
//! | 5 | lz4 | an LZ4 block | `lz4_flex`, its safe decoder |
//! | 6 | zstd | a frame | libzstd |
//!
//! The options behind the superblock are for whoever appends to an image; no codec needs them to unpack.

use std::io;
use std::sync::{Mutex, PoisonError};

use liblzma::stream::{Action, Status, Stream};

use super::Error;
use crate::format::CodecId;

/// A dictionary is at most as long as a block, 1 MiB; liblzma needs some tens of KiB besides. What asks for more was not
/// written by a squashfs tool: unsquashfs and the kernel refuse it as well, at their own limits.
const LZMA_MEMORY: u64 = 8 << 20;

/// The codec that an image names, if it is one.
pub(super) fn codec(id: u16) -> Result<CodecId, Error> {
    CodecId::from_u16(id).ok_or(Error::UnknownCodec { id })
}

enum Decompressor {
    Zstd(zstd::bulk::Decompressor<'static>),
    Gzip(libdeflater::Decompressor),
    Lz4,
    Lzo,
    Xz,
    Lzma,
}

impl Decompressor {
    fn new(codec: CodecId) -> io::Result<Self> {
        Ok(match codec {
            CodecId::Zstd => Self::Zstd(zstd::bulk::Decompressor::new()?),
            CodecId::Gzip => Self::Gzip(libdeflater::Decompressor::new()),
            CodecId::Lz4 => Self::Lz4,
            CodecId::Lzo => Self::Lzo,
            CodecId::Xz => Self::Xz,
            CodecId::Lzma => Self::Lzma,
        })
    }

    /// Unpacked bytes, now at the start of `output`.
    fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(context) => context.decompress_to_buffer(input, output),
            Self::Gzip(context) => context.zlib_decompress(input, output).map_err(io::Error::other),
            Self::Lz4 => lz4_flex::block::decompress_into(input, output).map_err(io::Error::other),
            Self::Lzo => lzo::decompress_into(input, output).map_err(io::Error::other),
            Self::Xz => stream(Stream::new_stream_decoder(LZMA_MEMORY, 0), input, output),
            Self::Lzma => stream(Stream::new_lzma_decoder(LZMA_MEMORY), input, output),
        }
    }
}

/// A decoder of liblzma cannot be used for a second stream, so each block takes a new one.
fn stream(decoder: Result<Stream, liblzma::stream::Error>, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    let mut decoder = decoder.map_err(io::Error::other)?;
    match decoder.process(input, output, Action::Finish).map_err(io::Error::other)? {
        Status::StreamEnd => Ok(decoder.total_out() as usize),
        // No room is left for more, or no input.
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the stream does not end with its block")),
    }
}

/// The largest block that squashfs has (SQUASHFS_FILE_MAX_SIZE).
const BLOCK_MAX: usize = 1 << 20;

/// What a thread needs to unpack a block.
struct Context {
    decompressor: Decompressor,
    /// Room for stored bytes: what is never used of it the kernel never gives. Growing it would leave gaps in the heap.
    input: Vec<u8>,
}

/// Reused contexts: as many as threads ever unpacked at the same time.
pub(super) struct Decompressors {
    codec: CodecId,
    idle: Mutex<Vec<Context>>,
}

impl Decompressors {
    pub(super) fn new(codec: CodecId) -> Self {
        Self { codec, idle: Mutex::default() }
    }

    fn with<R>(
        &self,
        failed: impl FnOnce(io::Error) -> Error,
        work: impl FnOnce(&mut Context) -> Result<R, Error>,
    ) -> Result<R, Error> {
        // A context starts each block anew, so one whose user panicked is as good as any.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut context = match kept {
            Some(context) => context,
            None => match Decompressor::new(self.codec) {
                Ok(decompressor) => Context { decompressor, input: vec![0; BLOCK_MAX] },
                Err(error) => return Err(failed(error)),
            },
        };
        let result = work(&mut context);
        idle().push(context);
        result
    }

    /// Unpacks to the start of `output`; the unpacked length.
    pub(super) fn unpack(
        &self,
        input: &[u8],
        output: &mut [u8],
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<usize, Error> {
        self.with(&failed, |context| context.decompressor.unpack(input, output).map_err(&failed))
    }

    /// The same, when `read` has filled a buffer of `stored` bytes.
    pub(super) fn read_and_unpack(
        &self,
        stored: usize,
        output: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<(), Error>,
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<usize, Error> {
        self.with(&failed, |context| {
            // Nobody stores more than a block.
            let input = &mut context.input[..stored.min(BLOCK_MAX)];
            read(input)?;
            context.decompressor.unpack(input, output).map_err(&failed)
        })
    }
}
