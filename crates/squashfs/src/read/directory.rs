//! Directory listings. Reading one goes from the first header to the last and needs no index. A lookup starts where the
//! index says that its name must be: an index that lies hides names from lookups, as it does in the kernel, and no more.

use super::error::printable;
use super::inode::{Body, Directory, Inode};
use super::metadata::Cursor;
use super::{Error, Reader};
use crate::format::{DirectoryEntry, DirectoryHeader, HEADER_ENTRIES_MAX, InodeType, METADATA_SIZE, MetaRef, NAME_MAX};

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1 to 255 bytes without slash and NUL, neither `.` nor `..`.
    pub name: Box<[u8]>,
    pub reference: MetaRef,
    /// The inode's type as the listing claims it; [`Reader::entry_inode`] checks it.
    pub kind: InodeType,
    pub number: u32,
}

/// The entries of a directory in their order on disk. Ends after the first error.
pub struct ReadDir<'r> {
    cursor: Cursor<'r>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Bytes of the listing that are not read yet.
    left: u32,
    /// Entries left under the current header, its block and its base number.
    header: (u32, u32, u32),
}

/// A place between two entries of a directory, for [`Reader::read_dir_from`].
#[derive(Clone, Copy, Debug)]
pub struct Position {
    reference: MetaRef,
    state: State,
}

/// What stands before a name.
struct Record {
    reference: MetaRef,
    kind: InodeType,
    number: u32,
    /// Bytes of the name.
    len: usize,
}

type Name = [u8; NAME_MAX];

impl Reader {
    pub fn read_dir(&self, inode: &Inode) -> Result<ReadDir<'_>, Error> {
        let directory = directory(inode)?;
        let state = State { left: directory.size, header: (0, 0, 0) };
        Ok(self.read_dir_from(Position { reference: directory.listing, state }))
    }

    /// Goes on where another reading of a directory of this image stood.
    pub fn read_dir_from(&self, position: Position) -> ReadDir<'_> {
        ReadDir { cursor: self.cursor(self.directory_table, position.reference), state: position.state }
    }

    /// The inode of an entry, which must have the type that the entry claims.
    pub fn entry_inode(&self, entry: &Entry) -> Result<Inode, Error> {
        let inode = self.inode(entry.reference)?;
        match inode.kind() == entry.kind {
            true => Ok(inode),
            false => Err(Error::EntryType {
                name: printable(&entry.name),
                listed: entry.kind as u16,
                found: inode.kind() as u16,
            }),
        }
    }

    /// The entry with this name. Reads the listing up to it, from where the index points to if there is one.
    pub fn lookup(&self, inode: &Inode, name: &[u8]) -> Result<Option<Entry>, Error> {
        let mut listing = match self.indexed(directory(inode)?, name)? {
            Some(position) => self.read_dir_from(position),
            None => self.read_dir(inode)?,
        };
        let mut buffer = [0; NAME_MAX];
        while listing.state.left > 0 {
            let record = listing.record(&mut buffer)?;
            let found = &buffer[..record.len];
            if found == name {
                return Ok(Some(record.named(found)));
            }
            // As the kernel does: names ascend, at least by their first byte.
            if name.first() < found.first() {
                break;
            }
        }
        Ok(None)
    }

    /// The last header of the index whose first name is not behind `name`.
    fn indexed(&self, directory: &Directory, name: &[u8]) -> Result<Option<Position>, Error> {
        let (place, entries) = directory.index;
        let mut cursor = self.cursor(self.inode_table, place);
        let mut found = None;
        let mut buffer = [0; NAME_MAX];
        for _ in 0..entries {
            let (offset, block, len) = (cursor.u32()?, cursor.u32()?, cursor.u32()? as usize);
            let first = buffer.get_mut(..=len).ok_or(Error::NameTooLong { len: len.saturating_add(1) })?;
            cursor.read(first)?;
            if &*first > name {
                break;
            }
            found = Some((offset, block));
        }
        let Some((offset, block)) = found else {
            return Ok(None);
        };
        let left = directory.size.checked_sub(offset).ok_or(Error::Listing { needed: offset, left: directory.size })?;
        let within = (u64::from(directory.listing.offset()) + u64::from(offset)) % METADATA_SIZE as u64;
        let reference = MetaRef::new(block.into(), within as u16);
        Ok(Some(Position { reference, state: State { left, header: (0, 0, 0) } }))
    }
}

fn directory(inode: &Inode) -> Result<&Directory, Error> {
    match &inode.body {
        Body::Directory(directory) => Ok(directory),
        _ => Err(Error::Kind { reference: inode.reference.0, expected: "directory" }),
    }
}

impl Record {
    fn named(self, name: &[u8]) -> Entry {
        Entry { name: name.into(), reference: self.reference, kind: self.kind, number: self.number }
    }
}

impl Iterator for ReadDir<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state.left == 0 {
            return None;
        }
        let mut name = [0; NAME_MAX];
        let record = self.record(&mut name);
        if record.is_err() {
            self.state.left = 0;
        }
        Some(record.map(|record| {
            let len = record.len;
            record.named(&name[..len])
        }))
    }
}

impl ReadDir<'_> {
    /// Where the next entry begins.
    pub fn position(&self) -> Position {
        Position { reference: self.cursor.position(), state: self.state }
    }

    fn take(&mut self, needed: usize) -> Result<(), Error> {
        // Records have at most some hundred bytes.
        let needed = needed as u32;
        match self.state.left.checked_sub(needed) {
            Some(left) => {
                self.state.left = left;
                Ok(())
            }
            None => Err(Error::Listing { needed, left: self.state.left }),
        }
    }

    /// The next entry; its name is then at the start of `name`.
    fn record(&mut self, name: &mut Name) -> Result<Record, Error> {
        if self.state.header.0 == 0 {
            self.take(DirectoryHeader::SIZE)?;
            let entries = u64::from(self.cursor.u32()?) + 1;
            if entries > HEADER_ENTRIES_MAX as u64 {
                return Err(Error::HeaderEntries { entries });
            }
            self.state.header = (entries as u32, self.cursor.u32()?, self.cursor.u32()?);
        }
        let (entries, block, base) = self.state.header;
        self.take(DirectoryEntry::SIZE)?;
        let offset = self.cursor.u16()?;
        let distance = self.cursor.u16()? as i16;
        let kind = self.cursor.u16()?;
        let len = usize::from(self.cursor.u16()?) + 1;
        let name = name.get_mut(..len).ok_or(Error::NameTooLong { len })?;
        self.take(len)?;
        self.cursor.read(name)?;
        if matches!(&*name, b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Error::Name { name: printable(name) });
        }
        self.state.header.0 = entries - 1;
        let reference = MetaRef::new(block.into(), offset);
        let kind = InodeType::from_u16(kind).ok_or(Error::InodeType { reference: reference.0, kind })?;
        Ok(Record { reference, kind, number: base.wrapping_add_signed(distance.into()), len })
    }
}
