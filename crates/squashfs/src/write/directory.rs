//! Directory listings.

use std::num::NonZeroU16;

use crate::format::{
    DirectoryEntry, DirectoryHeader, DirectoryIndex, HEADER_ENTRIES_MAX, InodeType, LISTING_EXTRA, METADATA_SIZE,
    MetaRef,
};
use crate::write::Error;
use crate::write::metadata::{MetadataCompressor, Table};

/// A name and what it shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: MetaRef,
    pub(super) number: u32,
    pub(super) kind: InodeType,
}

/// A listing that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) start: MetaRef,
    /// With [`LISTING_EXTRA`].
    pub(super) size: u32,
    pub(super) index: Vec<DirectoryIndex>,
}

/// Entries under one header: same metadata block of inodes, numbers within an i16 of the first one's.
fn run_length(entries: &[Named<'_>]) -> usize {
    let Some(first) = entries.first() else {
        return 0;
    };
    let mut bytes = DirectoryHeader::SIZE;
    let fits = |entry: &&Named<'_>| {
        bytes += DirectoryEntry::SIZE + entry.name.len();
        entry.inode.block() == first.inode.block()
            && distance(first, entry).is_some()
            // So that a header, and with it an index entry, can stand in each metadata block.
            && bytes <= METADATA_SIZE
    };
    entries.iter().take(HEADER_ENTRIES_MAX).take_while(fits).count()
}

fn distance(first: &Named<'_>, entry: &Named<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(first.number)).ok()
}

/// Appends a listing; None when it is larger than an inode can say.
pub(super) fn append(
    mut entries: &[Named<'_>],
    table: &mut Table,
    compressor: &mut MetadataCompressor,
) -> Result<Option<Listing>, Error> {
    let start = table.position();
    let mut size = 0usize;
    let mut index: Vec<DirectoryIndex> = Vec::new();
    let mut indexed_block = start.block();
    let mut bytes = Vec::new();
    // A run has at least its first entry, of at most 12 + 8 + 255 bytes.
    while let Some(first) = entries.first() {
        let (run, rest) = entries.split_at(run_length(entries).max(1));
        entries = rest;
        let block = table.position().block();
        if block != indexed_block && index.len() < usize::from(u16::MAX) {
            // The table's size is checked when it is complete.
            index.push(DirectoryIndex { offset: size as u32, block: block as u32, name: first.name.into() });
            indexed_block = block;
        }
        bytes.clear();
        let count = NonZeroU16::new(run.len() as u16).unwrap_or(NonZeroU16::MIN);
        DirectoryHeader { entries: count, block: first.inode.block() as u32, base: first.number }.encode(&mut bytes);
        for entry in run {
            let distance = distance(first, entry).unwrap_or(0);
            DirectoryEntry { offset: entry.inode.offset(), distance, kind: entry.kind, name: entry.name }
                .encode(&mut bytes);
        }
        size += bytes.len();
        table.append(&bytes, compressor)?;
    }
    let size = u32::try_from(size).ok().and_then(|size| size.checked_add(LISTING_EXTRA));
    Ok(size.map(|size| Listing { start, size, index }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Codec;

    fn runs(entries: &[(u64, u32)], name: &[u8]) -> Vec<usize> {
        let named = |(block, number): &(u64, u32)| Named {
            name,
            inode: MetaRef::new(*block, 0),
            number: *number,
            kind: InodeType::File,
        };
        let entries: Vec<_> = entries.iter().map(named).collect();
        let (mut rest, mut runs) = (&entries[..], Vec::new());
        while !rest.is_empty() {
            let length = run_length(rest);
            runs.push(length);
            rest = &rest[length..];
        }
        runs
    }

    #[test]
    fn headers_begin_where_they_must() {
        let many: Vec<_> = (0..600).map(|number| (0, number)).collect();
        assert_eq!(runs(&many, b"name"), [256, 256, 88]);
        // (8192 - 12) / (8 + 255) = 31
        assert_eq!(runs(&many[..70], &[b'n'; 255]), [31, 31, 8]);
        for (entries, expect) in [
            (&[(0, 5), (0, 6), (1, 7), (1, 8), (0, 9)][..], &[2, 2, 1][..]),
            (&[(0, 0), (0, 32_767), (0, 32_768)], &[2, 1]),
            (&[(0, 32_768), (0, 0)], &[2]),
            (&[(0, 32_769), (0, 0)], &[1, 1]),
            (&[(0, u32::MAX), (0, 0)], &[1, 1]),
        ] {
            assert_eq!(runs(entries, b"n"), expect, "{entries:?}");
        }
    }

    #[test]
    fn large_listings_have_an_index() {
        let names: Vec<String> = (0..20_000).map(|number| format!("name-{number:05}")).collect();
        let entries: Vec<_> = (1..)
            .zip(&names)
            .map(|(number, name)| Named {
                name: name.as_bytes(),
                inode: MetaRef::new(u64::from(number / 300), 0),
                number,
                kind: InodeType::File,
            })
            .collect();
        let mut compressor = MetadataCompressor::new(Codec::Zstd { level: 1 }, 1 << 17).unwrap();
        let mut table = Table::default();
        table.append(&[0; 5000], &mut compressor).unwrap();
        let small = append(&entries[..100], &mut table, &mut compressor).unwrap().unwrap();
        assert_eq!((small.start, small.size, small.index.len()), (MetaRef::new(0, 5000), 12 + 100 * 18 + 3, 0));
        let large = append(&entries, &mut table, &mut compressor).unwrap().unwrap();
        let blocks = large.size as usize / METADATA_SIZE;
        assert!((blocks - 2..=blocks + 1).contains(&large.index.len()), "{} of {blocks}", large.index.len());
        assert!(large.index.is_sorted_by(|a, b| a.offset < b.offset && a.block < b.block && a.name < b.name));
    }
}
