//! One-shot compression. A block's bytes depend on the codec, its level and the block alone, never on the thread or on
//! what its context compressed before.

use std::io;

use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};
use lz4::block::CompressionMode;

use crate::format::CodecId;
use crate::write::Error;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Levels 1 to 22. Each block is one frame with its size in the header, without checksum and dictionary.
    Zstd { level: i32 },
    /// zlib streams by libdeflate, levels 1 to 12.
    Gzip { level: i32 },
    /// LZ4 blocks: level 0 is the fast compressor, 1 to 12 are those of LZ4HC.
    Lz4 { level: i32 },
    /// xz streams with CRC32 and a dictionary of a block, presets 0 to 9.
    Xz { level: i32 },
    /// Everything is stored.
    None,
}

impl Codec {
    pub(super) fn check(self) -> Result<(), Error> {
        let (level, levels) = match self {
            Self::Zstd { level } => (level, 1..=22),
            Self::Gzip { level } => (level, 1..=12),
            Self::Lz4 { level } => (level, 0..=12),
            Self::Xz { level } => (level, 0..=9),
            Self::None => return Ok(()),
        };
        match levels.contains(&level) {
            true => Ok(()),
            false => Err(Error::Level { codec: self.name(), level, min: *levels.start(), max: *levels.end() }),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd { .. } => "zstd",
            Self::Gzip { .. } => "gzip",
            Self::Lz4 { .. } => "lz4",
            Self::Xz { .. } => "xz",
            Self::None => "none",
        }
    }

    /// An image in which everything is stored needs a codec's number all the same; as mksquashfs writes with -noI -noD
    /// -noF -noX, gzip's.
    pub(super) fn id(self) -> CodecId {
        match self {
            Self::Zstd { .. } => CodecId::Zstd,
            Self::Gzip { .. } | Self::None => CodecId::Gzip,
            Self::Lz4 { .. } => CodecId::Lz4,
            Self::Xz { .. } => CodecId::Xz,
        }
    }

    /// Codec and level as a pack names them.
    pub(super) fn number(self) -> (u16, i32) {
        match self {
            Self::Zstd { level } | Self::Gzip { level } | Self::Lz4 { level } | Self::Xz { level } => {
                (self.id() as u16, level)
            }
            Self::None => (0, 0),
        }
    }

    /// The option block behind the superblock: zstd `u32 level`; gzip `u32 level, u16 window bits, u16 strategies`; lz4
    /// `u32 version, u32 flags`; xz's defaults are left out.
    ///
    /// As squashfs-tools does, gzip's default (9, 15, 0) is left out, and lz4's is always there: the kernel wants it.
    /// libdeflate's levels 10 to 12 have no name in zlib, and `unsquashfs -stat` refuses levels above 9, so they are
    /// recorded as 9.
    pub(super) fn options_block(self) -> Option<Vec<u8>> {
        match self {
            Self::Zstd { level } => Some(level.to_le_bytes().to_vec()),
            Self::Gzip { level } if level >= 9 => None,
            Self::Gzip { level } => {
                let mut block = level.to_le_bytes().to_vec();
                block.extend_from_slice(&15u16.to_le_bytes());
                block.extend_from_slice(&0u16.to_le_bytes());
                Some(block)
            }
            Self::Lz4 { level } => {
                let mut block = LZ4_LEGACY.to_le_bytes().to_vec();
                block.extend_from_slice(&if level == 0 { 0 } else { LZ4_HC }.to_le_bytes());
                Some(block)
            }
            Self::Xz { .. } | Self::None => None,
        }
    }

    /// At most so many bytes are a context's state for blocks of this size. A test measures zstd against it.
    pub(super) fn context_bytes(self, block_size: u32) -> usize {
        let block = block_size as usize;
        match self {
            Self::Zstd { level } if level <= 4 => 2 * block + (3 << 20) / 2,
            Self::Zstd { level } if level <= 12 => 12 * block + (4 << 20),
            Self::Zstd { .. } => 20 * block + (8 << 20),
            // sizeof(struct libdeflate_compressor), lib/deflate_compress.c: 0.9 MB with hash chains, 8.9 MB where the
            // near-optimal parser keeps its match cache.
            Self::Gzip { level } if level < 10 => 1 << 20,
            Self::Gzip { .. } => 10 << 20,
            // LZ4_STREAMSIZE and LZ4_STREAMHC_SIZE, lib/lz4.h, lib/lz4hc.h.
            Self::Lz4 { .. } => 256 << 10,
            // lzma_lz_encoder_memusage: window and match finder take 11.5 times the dictionary, the encoder 1 MB.
            Self::Xz { .. } => 12 * block + (4 << 20),
            Self::None => 0,
        }
    }

    /// Room that a compressed block of `bytes` may take while it is made.
    pub(super) fn bound(self, bytes: usize) -> usize {
        match self {
            Self::Zstd { .. } => zstd::zstd_safe::compress_bound(bytes),
            // zlib's bound for stored blocks, with libdeflate's shortest block of 5000 bytes.
            Self::Gzip { .. } => bytes + 5 * (bytes / 5000 + 1) + 6 + 8,
            // LZ4_COMPRESSBOUND, lib/lz4.h.
            Self::Lz4 { .. } => bytes + bytes / 255 + 16,
            // A stream that does not fit does not shrink.
            Self::Xz { .. } | Self::None => bytes,
        }
    }
}

/// lz4_wrapper.c of the kernel and lz4_wrapper.h of squashfs-tools.
const LZ4_LEGACY: u32 = 1;
const LZ4_HC: u32 = 1;

/// More than any block of ours needs to be unpacked.
const XZ_MEMORY: u64 = 64 << 20;

/// Unpacks a block of ours; the length. For the odd block: it keeps no context.
pub(super) fn decompress(codec: Codec, packed: &[u8], room: &mut [u8]) -> io::Result<usize> {
    match codec {
        Codec::Zstd { .. } => zstd::bulk::decompress_to_buffer(packed, room),
        Codec::Gzip { .. } => libdeflater::Decompressor::new().zlib_decompress(packed, room).map_err(io::Error::other),
        Codec::Lz4 { .. } => {
            let size = i32::try_from(room.len()).map_err(io::Error::other)?;
            lz4::block::decompress_to_buffer(packed, Some(size), room)
        }
        Codec::Xz { .. } => {
            let mut stream = Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            stream.process(packed, room, Action::Finish)?;
            Ok(stream.total_out() as usize)
        }
        Codec::None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A reused context; one a thread.
pub(super) enum Compressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(libdeflater::Compressor),
    Lz4(CompressionMode),
    Xz { level: u32, block_size: u32 },
    None,
}

impl Compressor {
    pub(super) fn new(codec: Codec, block_size: u32) -> Result<Self, Error> {
        let failed = |source| Error::Compress { codec: codec.name(), bytes: 0, source };
        Ok(match codec {
            Codec::Zstd { level } => Self::Zstd(zstd::bulk::Compressor::new(level).map_err(failed)?),
            Codec::Gzip { level } => match libdeflater::CompressionLvl::new(level) {
                Ok(level) => Self::Gzip(libdeflater::Compressor::new(level)),
                Err(_) => return Err(Error::Level { codec: codec.name(), level, min: 1, max: 12 }),
            },
            Codec::Lz4 { level: 0 } => Self::Lz4(CompressionMode::DEFAULT),
            Codec::Lz4 { level } => Self::Lz4(CompressionMode::HIGHCOMPRESSION(level)),
            Codec::Xz { level } => Self::Xz { level: level.unsigned_abs(), block_size },
            Codec::None => Self::None,
        })
    }

    /// Compresses `input` into `output`, which has room for [`Codec::bound`] bytes; the length, or None if it does not
    /// shrink.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Result<Option<usize>, Error> {
        let failed = |codec, source| Error::Compress { codec, bytes: input.len(), source };
        let length = match self {
            Self::Zstd(context) => {
                context.compress_to_buffer(input, output).map_err(|source| failed("zstd", source))?
            }
            // The only error is that the room does not suffice, which is "does not shrink" as well.
            Self::Gzip(context) => context.zlib_compress(input, output).unwrap_or(usize::MAX),
            Self::Lz4(mode) => lz4::block::compress_to_buffer(input, Some(*mode), false, output)
                .map_err(|source| failed("lz4", source))?,
            Self::Xz { level, block_size } => {
                xz(*level, *block_size, input, output).map_err(|source| failed("xz", source))?
            }
            Self::None => usize::MAX,
        };
        Ok((length < input.len()).then_some(length))
    }
}

/// The length, or usize::MAX if it does not fit.
fn xz(level: u32, block_size: u32, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    let mut options = LzmaOptions::new_preset(level)?;
    // The kernel's decoder has no more than a block's room unless an option block says so.
    options.dict_size(block_size);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let mut stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
    loop {
        let (read, written) = (stream.total_in() as usize, stream.total_out() as usize);
        match stream.process(&input[read..], &mut output[written..], Action::Finish)? {
            Status::StreamEnd => return Ok(stream.total_out() as usize),
            _ if stream.total_out() as usize == output.len() => return Ok(usize::MAX),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_stay_within_their_estimate() {
        for level in 1..=22 {
            for block_size in [64 << 10, 256 << 10, 1 << 20] {
                let mut context = zstd::zstd_safe::CCtx::create();
                context.set_parameter(zstd::zstd_safe::CParameter::CompressionLevel(level)).unwrap();
                let input: Vec<u8> = (0..block_size).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
                let mut output = vec![0; zstd::zstd_safe::compress_bound(input.len())];
                context.compress2(&mut output[..], &input).unwrap();
                let estimate = Codec::Zstd { level }.context_bytes(block_size);
                println!("level {level} block {block_size}: {} of {estimate}", context.sizeof());
                assert!(context.sizeof() <= estimate, "level {level}, {block_size}: {} > {estimate}", context.sizeof());
            }
        }
    }

    #[test]
    fn levels_are_checked() {
        for (codec, good) in [
            (Codec::Zstd { level: 0 }, false),
            (Codec::Zstd { level: 1 }, true),
            (Codec::Zstd { level: 22 }, true),
            (Codec::Zstd { level: 23 }, false),
            (Codec::Gzip { level: 0 }, false),
            (Codec::Gzip { level: 12 }, true),
            (Codec::Gzip { level: 13 }, false),
            (Codec::Lz4 { level: -1 }, false),
            (Codec::Lz4 { level: 0 }, true),
            (Codec::Lz4 { level: 12 }, true),
            (Codec::Lz4 { level: 13 }, false),
            (Codec::Xz { level: 9 }, true),
            (Codec::Xz { level: 10 }, false),
            (Codec::None, true),
        ] {
            assert_eq!(codec.check().is_ok(), good, "{codec:?}");
        }
    }

    #[test]
    fn what_shrinks_unpacks_again() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| (n / 7).to_le_bytes()).take(256 << 10).collect();
        let noise: Vec<u8> = (0..64u64 << 10).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as u8).collect();
        for codec in [
            Codec::Zstd { level: 3 },
            Codec::Gzip { level: 9 },
            Codec::Lz4 { level: 0 },
            Codec::Lz4 { level: 12 },
            Codec::Xz { level: 6 },
        ] {
            let mut compressor = Compressor::new(codec, 256 << 10).unwrap();
            for block in [&text[..], &text[..1], &noise] {
                let mut packed = vec![0; codec.bound(block.len())];
                let Some(length) = compressor.compress(block, &mut packed).unwrap() else {
                    assert!(block.len() < text.len(), "{codec:?}: text shrinks");
                    continue;
                };
                let mut room = vec![0; 256 << 10];
                let unpacked = decompress(codec, &packed[..length], &mut room).unwrap();
                assert!(room[..unpacked] == *block, "{codec:?}: {} bytes", block.len());
            }
        }
    }
}
