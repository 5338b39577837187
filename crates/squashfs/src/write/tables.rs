//! What stands behind the data, and the superblock. See [`crate::format`] for the drawing.

use std::collections::HashMap;

use siforge_rootfs::{InodeId, Tree};

use crate::format::{NO_TABLE, PADDING, SUPERBLOCK_SIZE, Superblock, flags, put32, put64};
use crate::write::blocks::Blocks;
use crate::write::groups::Place;
use crate::write::inodes::{Data, Inodes};
use crate::write::metadata::{self, MetadataCompressor};
use crate::write::order::Order;
use crate::write::xattrs;
use crate::write::{Codec, Error, Finished, Options};

/// The bytes between the superblock and the first data block.
pub(super) fn options_block(options: &Options) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(block) = options.codec.options_block() {
        metadata::append_stored(&block, &mut out);
    }
    out
}

/// Writes the tables, the superblock and the padding, and ends the file there.
pub(super) fn write(
    tree: &Tree,
    blocks: &Blocks,
    places: &HashMap<InodeId, Place>,
    options: &Options,
) -> Result<Finished, Error> {
    let mut compressor = MetadataCompressor::new(options.codec, options.block_size)?;
    let order = Order::of(tree);
    let mut inodes = Inodes::new(tree, &order, Data { blocks, places });
    let root = inodes.add_all(&mut compressor)?;
    let warnings = inodes.warnings();

    let start = blocks.position();
    let mut out = Vec::new();
    let here = |out: &Vec<u8>| start + out.len() as u64;
    let export: Vec<u8> = inodes.references().flat_map(|reference| reference.0.to_le_bytes()).collect();
    out.extend(limited(inodes.inodes.finish(&mut compressor)?, "inodes")?);
    let directory_table = here(&out);
    out.extend(limited(inodes.directories.finish(&mut compressor)?, "directory listings")?);

    let mut fragments = Vec::new();
    blocks.fragments().iter().for_each(|fragment| fragment.encode(&mut fragments));
    let fragment_table = compressor.append_indexed(&fragments, &mut out, start)?;
    let export_table = compressor.append_indexed(&export, &mut out, start)?;
    let ids: Vec<u8> = inodes.ids.values.iter().flat_map(|id| id.to_le_bytes()).collect();
    let id_table = compressor.append_indexed(&ids, &mut out, start)?;
    let xattrs = inodes.xattrs.finish(&mut compressor)?;
    let has_xattrs = xattrs.is_some();
    let xattr_table = match xattrs {
        Some(packed) => append_xattrs(&packed, &mut compressor, &mut out, start)?,
        None => NO_TABLE,
    };

    let bytes_used = here(&out);
    let bytes = bytes_used.next_multiple_of(PADDING);
    out.resize(out.len() + (bytes - bytes_used) as usize, 0);
    let superblock = Superblock {
        inodes: order.count,
        mtime: options.mtime,
        block_size: options.block_size,
        fragments: blocks.fragments().len() as u32,
        codec: options.codec.id() as u16,
        flags: flags(options, has_xattrs),
        ids: inodes.ids.values.len() as u16,
        root,
        bytes_used,
        id_table,
        xattr_table,
        inode_table: start,
        directory_table,
        fragment_table,
        export_table,
    };
    let mut head = superblock.encode();
    head.extend(options_block(options));
    blocks.write_at(&out, start)?;
    blocks.write_at(&head, 0)?;
    blocks.truncate(bytes)?;
    Ok(Finished { bytes, warnings })
}

fn flags(options: &Options, has_xattrs: bool) -> u16 {
    let stored = options.codec == Codec::None;
    let optional = [
        (flags::STORED, stored),
        (flags::COMPRESSOR_OPTIONS, options.codec.options_block().is_some()),
        (flags::NO_XATTRS, !has_xattrs),
    ];
    let always = flags::DUPLICATES | flags::EXPORTABLE;
    optional.iter().filter(|(_, set)| *set).fold(always, |all, (flag, _)| all | flag)
}

/// Where the data begins.
pub(super) fn data_start(options: &Options) -> u64 {
    (SUPERBLOCK_SIZE + options_block(options).len()) as u64
}

/// References into a table have 32 bits for the metadata block.
fn limited(table: Vec<u8>, what: &'static str) -> Result<Vec<u8>, Error> {
    match u32::try_from(table.len()) {
        Ok(_) => Ok(table),
        Err(_) => Err(Error::TableTooLarge { what, bytes: table.len() }),
    }
}

/// Appends keys, sets and the head of the attribute table; the head's place.
fn append_xattrs(
    packed: &xattrs::Packed,
    compressor: &mut MetadataCompressor,
    out: &mut Vec<u8>,
    start: u64,
) -> Result<u64, Error> {
    let keys = start + out.len() as u64;
    out.extend_from_slice(&packed.keys);
    let index = compressor.append_indexed(&packed.sets, out, start)?;
    // The index is the end of the head, not a table of its own.
    let places = out.split_off((index - start) as usize);
    put64(out, keys);
    put32(out, packed.count);
    put32(out, 0);
    out.extend(places);
    Ok(index)
}
