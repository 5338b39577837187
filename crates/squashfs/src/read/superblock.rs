use super::Error;
use super::decompress;
use crate::format::{CodecId, MAGIC, MetaRef, NO_TABLE, SUPERBLOCK_SIZE, Superblock, VERSION, flags};

/// Blocks that Linux reads: a page at least, SQUASHFS_FILE_MAX_SIZE at most.
const BLOCK_LOGS: std::ops::RangeInclusive<u16> = 12..=20;

/// Decodes and checks what can be checked without reading further. `size` is all that the image may use.
pub(super) fn decode(bytes: &[u8; SUPERBLOCK_SIZE], size: u64) -> Result<(Superblock, CodecId), Error> {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u32_at(0) != MAGIC {
        return Err(Error::Magic { found: u32_at(0) });
    }
    let (major, minor) = (u16_at(28), u16_at(30));
    if (major, minor) != VERSION {
        return Err(Error::Version { major, minor });
    }
    let superblock = Superblock {
        inodes: u32_at(4),
        mtime: u32_at(8),
        block_size: u32_at(12),
        fragments: u32_at(16),
        codec: u16_at(20),
        flags: u16_at(24),
        ids: u16_at(26),
        root: MetaRef(u64_at(32)),
        bytes_used: u64_at(40),
        id_table: u64_at(48),
        xattr_table: u64_at(56),
        inode_table: u64_at(64),
        directory_table: u64_at(72),
        fragment_table: u64_at(80),
        export_table: u64_at(88),
    };
    let codec = decompress::codec(superblock.codec)?;
    let log = u16_at(22);
    if !BLOCK_LOGS.contains(&log) || superblock.block_size != 1 << log {
        return Err(Error::BlockSize { size: superblock.block_size, log });
    }
    let bytes_used = superblock.bytes_used;
    if bytes_used > size || bytes_used < SUPERBLOCK_SIZE as u64 {
        return Err(Error::CutOff { bytes_used, size });
    }
    for (what, start, end) in [
        ("inode table", superblock.inode_table, superblock.directory_table),
        ("directory table", superblock.directory_table, bytes_used),
    ] {
        if start < SUPERBLOCK_SIZE as u64 || start > end || end > bytes_used {
            return Err(Error::Outside { what, offset: start, bytes: 0, end: end.min(bytes_used) });
        }
    }
    Ok((superblock, codec))
}

/// Where the attribute table's header lies, if there is one.
pub(super) fn xattr_table(superblock: &Superblock) -> Option<u64> {
    let absent = superblock.flags & flags::NO_XATTRS != 0 || superblock.xattr_table == NO_TABLE;
    (!absent).then_some(superblock.xattr_table)
}
