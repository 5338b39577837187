//! One-shot compression. A block's bytes depend on the codec, its level and the block alone, never on the thread or on
//! what its context compressed before.

use crate::format::CodecId;
use crate::write::Error;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Levels 1 to 22. Each block is one frame with its size in the header, without checksum and dictionary.
    Zstd { level: i32 },
    /// zlib streams by libdeflate, levels 1 to 12.
    Gzip { level: i32 },
}

impl Codec {
    pub(super) fn check(self) -> Result<(), Error> {
        let (level, max) = match self {
            Self::Zstd { level } => (level, 22),
            Self::Gzip { level } => (level, 12),
        };
        match (1..=max).contains(&level) {
            true => Ok(()),
            false => Err(Error::Level { codec: self.name(), level, min: 1, max }),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd { .. } => "zstd",
            Self::Gzip { .. } => "gzip",
        }
    }

    pub(super) fn id(self) -> CodecId {
        match self {
            Self::Zstd { .. } => CodecId::Zstd,
            Self::Gzip { .. } => CodecId::Gzip,
        }
    }

    /// Codec and level as a pack names them.
    pub(super) fn number(self) -> (u16, i32) {
        match self {
            Self::Zstd { level } | Self::Gzip { level } => (self.id() as u16, level),
        }
    }

    /// The option block behind the superblock: zstd `u32 level`; gzip `u32 level, u16 window bits, u16 strategies`.
    ///
    /// As squashfs-tools does, gzip's default (9, 15, 0) is left out. libdeflate's levels 10 to 12 have no name in
    /// zlib, and `unsquashfs -stat` refuses levels above 9, so they are recorded as 9.
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
        }
    }

    /// Room that a compressed block of `bytes` may take while it is made.
    pub(super) fn bound(self, bytes: usize) -> usize {
        match self {
            Self::Zstd { .. } => zstd::zstd_safe::compress_bound(bytes),
            // zlib's bound for stored blocks, with libdeflate's shortest block of 5000 bytes.
            Self::Gzip { .. } => bytes + 5 * (bytes / 5000 + 1) + 6 + 8,
        }
    }
}

/// Unpacks a block of ours; the length. For the odd block: it keeps no context.
pub(super) fn decompress(codec: Codec, packed: &[u8], room: &mut [u8]) -> std::io::Result<usize> {
    match codec {
        Codec::Zstd { .. } => zstd::bulk::decompress_to_buffer(packed, room),
        Codec::Gzip { .. } => {
            libdeflater::Decompressor::new().zlib_decompress(packed, room).map_err(std::io::Error::other)
        }
    }
}

/// A reused context; one a thread.
pub(super) enum Compressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(libdeflater::Compressor),
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> Result<Self, Error> {
        match codec {
            Codec::Zstd { level } => match zstd::bulk::Compressor::new(level) {
                Ok(context) => Ok(Self::Zstd(context)),
                Err(source) => Err(Error::Compress { codec: codec.name(), bytes: 0, source }),
            },
            Codec::Gzip { level } => match libdeflater::CompressionLvl::new(level) {
                Ok(level) => Ok(Self::Gzip(libdeflater::Compressor::new(level))),
                Err(_) => Err(Error::Level { codec: codec.name(), level, min: 1, max: 12 }),
            },
        }
    }

    /// Compresses `input` into `output`, which has room for [`Codec::bound`] bytes; the length, or None if it does not
    /// shrink.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Result<Option<usize>, Error> {
        let length = match self {
            Self::Zstd(context) => context.compress_to_buffer(input, output).map_err(|source| Error::Compress {
                codec: "zstd",
                bytes: input.len(),
                source,
            })?,
            // The only error is that the room does not suffice, which is "does not shrink" as well.
            Self::Gzip(context) => context.zlib_compress(input, output).unwrap_or(usize::MAX),
        };
        Ok((length < input.len()).then_some(length))
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
        ] {
            assert_eq!(codec.check().is_ok(), good, "{codec:?}");
        }
    }
}
