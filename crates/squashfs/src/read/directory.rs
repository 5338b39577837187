//! Directory listings, read from the first header to the last: the index is not needed for that, so it is not trusted.

use super::error::printable;
use super::inode::{Body, Inode};
use super::metadata::Cursor;
use super::{Error, Reader};
use crate::format::{DirectoryEntry, DirectoryHeader, HEADER_ENTRIES_MAX, InodeType, MetaRef, NAME_MAX};

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
    /// Bytes of the listing that are not read yet.
    left: u32,
    /// Entries left under the current header, its block and its base number.
    header: (u32, u32, u32),
}

impl Reader {
    pub fn read_dir(&self, inode: &Inode) -> Result<ReadDir<'_>, Error> {
        let Body::Directory(directory) = &inode.body else {
            return Err(Error::Kind { reference: inode.reference.0, expected: "directory" });
        };
        Ok(ReadDir {
            cursor: self.cursor(self.directory_table, directory.listing),
            left: directory.size,
            header: (0, 0, 0),
        })
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

    /// The entry with this name. Reads the listing up to it.
    pub fn lookup(&self, directory: &Inode, name: &[u8]) -> Result<Option<Entry>, Error> {
        for entry in self.read_dir(directory)? {
            let entry = entry?;
            if *entry.name == *name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

impl Iterator for ReadDir<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.left = 0;
        }
        Some(entry)
    }
}

impl ReadDir<'_> {
    fn take(&mut self, needed: usize) -> Result<(), Error> {
        // Records have at most some hundred bytes.
        let needed = needed as u32;
        match self.left.checked_sub(needed) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::Listing { needed, left: self.left }),
        }
    }

    fn entry(&mut self) -> Result<Entry, Error> {
        if self.header.0 == 0 {
            self.take(DirectoryHeader::SIZE)?;
            let entries = u64::from(self.cursor.u32()?) + 1;
            if entries > HEADER_ENTRIES_MAX as u64 {
                return Err(Error::HeaderEntries { entries });
            }
            self.header = (entries as u32, self.cursor.u32()?, self.cursor.u32()?);
        }
        let (entries, block, base) = self.header;
        self.take(DirectoryEntry::SIZE)?;
        let offset = self.cursor.u16()?;
        let distance = self.cursor.u16()? as i16;
        let kind = self.cursor.u16()?;
        let len = usize::from(self.cursor.u16()?) + 1;
        if len > NAME_MAX {
            return Err(Error::NameTooLong { len });
        }
        self.take(len)?;
        let mut name = vec![0; len].into_boxed_slice();
        self.cursor.read(&mut name)?;
        if matches!(&*name, b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Error::Name { name: printable(&name) });
        }
        self.header.0 = entries - 1;
        let reference = MetaRef::new(block.into(), offset);
        let kind = InodeType::from_u16(kind).ok_or(Error::InodeType { reference: reference.0, kind })?;
        Ok(Entry { name, reference, kind, number: base.wrapping_add_signed(distance.into()) })
    }
}
