//! Changes to a SIF that is there: objects come and go, another partition becomes the primary one.
//!
//! ```text
//! add         contents at the end ─ sync ─ descriptor, unused ─ sync ─ its used byte ─ sync ─ header
//! delete      used byte ─ sync ─ header ─ sync ─ slot and, if asked, contents become zeros or the file shorter
//! set_primary copy of the table at the end ─ sync ─ header: the table is there ─ sync ─ the table itself ─ sync ─ header
//! ```
//!
//! Every edit takes effect with the write of one byte of the table, or of one field of the header, which a disk does wholly or
//! not at all: so a file that was cut off at any moment is the old SIF or the new one. What the header merely counts (free
//! descriptors, bytes of data, time of change) follows last, and nobody relies on it: the reference counts anew itself
//! (sylabs/sif `pkg/sif/create.go`, `calculatedDataSize`). Times are arguments.
//!
//! Bytes of objects that stay are never moved or written, so an image that runs meanwhile does not notice.

#[cfg(test)]
mod log;
mod place;
#[cfg(test)]
mod tests;

use crate::format::{
    Arch, DESCRIPTOR_LEN, DataType, Descriptor, GROUP_MASK, HEADER_LEN, Header, LAUNCH, NAME_MAX, PRIMARY_SYSTEM,
    SYSTEM,
};
use crate::reader::{self, Sif};
use place::{EXTRA, MTIME, Table, USED};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Largest alignment of an object: a huge page.
pub const MAX_ALIGNMENT: u64 = 1 << 30;
/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;
/// What Go's zero time is in Unix seconds: such an image has no clock in it, and gets none.
const NO_TIME: i64 = -62_135_596_800;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Sif(#[from] reader::Error),
    #[error("the SIF is being changed by another program: try again when it is done")]
    Busy,
    #[error("lock the SIF: {source}")]
    Lock { source: io::Error },
    #[error("the SIF's table of {total} descriptors is full: delete an object first")]
    Full { total: i64 },
    #[error("the name of a data object is longer than {NAME_MAX} bytes: {name:?}")]
    NameTooLong { name: String },
    #[error("the extra field of data object {name:?} has {len} bytes, at most 384 fit")]
    ExtraTooLong { name: String, len: usize },
    #[error("alignment {value} is larger than {MAX_ALIGNMENT}")]
    Alignment { value: u64 },
    #[error("group {value} is larger than {}", !GROUP_MASK)]
    Group { value: u32 },
    #[error("the SIF has no data object {id}")]
    NoObject { id: u32 },
    #[error("data object {id} is no system partition: only such a one can be the primary one")]
    NotSystem { id: u32 },
    #[error("the SIF has a primary system partition: data object {id}")]
    PrimaryExists { id: u32 },
    #[error("data object {id} shares bytes with data object {other}: it cannot be overwritten with zeros")]
    Shared { id: u32, other: u32 },
    #[error("read the contents of the new data object: {source}")]
    Contents { source: io::Error },
    #[error("the SIF would have more than {} bytes", i64::MAX)]
    TooLarge,
    #[error("write {what} of the SIF: {source}")]
    Write { what: &'static str, source: io::Error },
}

/// What a new object points at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    None,
    Object(u32),
    /// A group's number.
    Group(u32),
}

/// A data object to be added. `..Object::new(data_type)` fills in the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub data_type: DataType,
    /// The group's number; None: in no group.
    pub group: Option<u32>,
    pub link: Link,
    pub name: String,
    /// ≤ 384 bytes, padded with zeros.
    pub extra: Vec<u8>,
    /// The contents start at a multiple of it; 0 and 1: anywhere.
    pub alignment: u64,
}

impl Object {
    /// In no group, without link and name, aligned as the kernel needs it if it is a partition.
    pub fn new(data_type: DataType) -> Self {
        let alignment = if data_type == DataType::Partition { crate::writer::ALIGNMENT } else { 0 };
        Self { data_type, group: None, link: Link::None, name: String::new(), extra: Vec::new(), alignment }
    }
}

/// What becomes of a deleted object's bytes; they stay otherwise, out of reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Overwrite them with zeros.
    pub zero: bool,
    /// Cut off what no object uses at the file's end.
    pub compact: bool,
}

/// A SIF that nobody else edits meanwhile.
#[derive(Debug)]
pub struct Editor {
    sif: Sif,
    time: Option<i64>,
}

impl Editor {
    /// `file` must be open for reading and writing. It is locked (flock) until the editor goes; a file system that knows no
    /// locks does without.
    pub fn open(file: File) -> Result<Self, Error> {
        use rustix::fs::{FlockOperation, flock};
        use rustix::io::Errno;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy),
            Err(errno) => return Err(Error::Lock { source: errno.into() }),
        }
        let mut editor = Self { sif: Sif::open(file)?, time: None };
        editor.heal()?;
        Ok(editor)
    }

    /// The Unix seconds that the next edits write as time of change. Without it, and in an image that has no time at all, the
    /// file's own time of change stays.
    pub fn set_time(&mut self, now: i64) {
        let header = self.sif.header();
        let timeless = header.uuid == [0; 16] && (header.ctime, header.mtime) == (NO_TIME, NO_TIME);
        self.time = (!timeless).then_some(now);
    }

    /// The SIF as it is after the last edit.
    pub fn sif(&self) -> &Sif {
        &self.sif
    }

    /// Adds an object with all that `contents` gives; its id. After an error the SIF is as before.
    pub fn add(&mut self, object: Object, contents: &mut dyn Read) -> Result<u32, Error> {
        let Object { name, extra, alignment, .. } = &object;
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong { name: name.clone() });
        }
        if extra.len() > 384 {
            return Err(Error::ExtraTooLong { name: name.clone(), len: extra.len() });
        }
        if *alignment > MAX_ALIGNMENT {
            return Err(Error::Alignment { value: *alignment });
        }
        let mut descriptor = self.descriptor(&object)?;
        let primary = self.sif.descriptors().iter().find(|there| there.is_primary_partition());
        if let Some(there) = primary.filter(|_| descriptor.is_primary_partition()) {
            return Err(Error::PrimaryExists { id: there.id });
        }
        let mut table = Table::read(&self.sif)?;
        let slot = table.free_slot().ok_or(Error::Full { total: self.sif.header().descriptors_total })?;
        descriptor.id = self.free_id(slot);

        let end = place::data_end(&self.sif);
        let start = end.checked_next_multiple_of((*alignment).max(1)).ok_or(Error::TooLarge)?;
        let added = self.append(start, contents).and_then(|size| {
            descriptor.offset = start;
            descriptor.size = size;
            descriptor.size_with_padding = start - end + size;
            // A longer rest of an edit that was cut off goes.
            self.set_len(start + size)?;
            self.sync("the data object")
        });
        if let Err(error) = added {
            // The error is told; that the rest of it also stays is no news.
            let _ = self.sif.file().set_len(self.sif.len());
            return Err(error);
        }
        let mut bytes = descriptor.encode();
        bytes[USED] = 0;
        self.write(table.offset(slot), &bytes, "the descriptor")?;
        self.sync("the descriptor")?;
        self.write(table.offset(slot) + USED as u64, &[1], "the descriptor")?;
        self.sync("the descriptor")?;
        table.set_used(slot);
        let arch = descriptor.partition().filter(|_| descriptor.is_primary_partition()).map(|(_, _, arch)| arch);
        self.finish(&table, arch, Some(descriptor.offset + descriptor.size))?;
        Ok(descriptor.id)
    }

    /// Takes the object out of the table.
    pub fn delete(&mut self, id: u32, how: Delete) -> Result<(), Error> {
        let gone = self.object(id)?.clone();
        let range = |descriptor: &Descriptor| descriptor.offset..descriptor.offset + descriptor.size;
        if how.zero {
            let overlaps = |other: &&Descriptor| {
                other.offset < range(&gone).end && range(other).end > gone.offset && other.id != id
            };
            if let Some(other) = self.sif.descriptors().iter().find(overlaps) {
                return Err(Error::Shared { id, other: other.id });
            }
        }
        let mut table = Table::read(&self.sif)?;
        let slot = table.slot_of(id).ok_or(Error::NoObject { id })?;
        self.write(table.offset(slot) + USED as u64, &[0], "the descriptor")?;
        self.sync("the descriptor")?;
        table.clear(slot);
        self.sif = self.reread()?;
        let end = how.compact.then(|| place::data_end(&self.sif));
        self.finish(&table, gone.is_primary_partition().then_some(Arch::Unknown), end)?;
        self.write(table.offset(slot), &[0; DESCRIPTOR_LEN], "the descriptor")?;
        if how.zero {
            self.zero(range(&gone))?;
        }
        if let Some(end) = end {
            self.set_len(end)?;
        }
        self.sync("the file")?;
        self.sif = self.reread()?;
        Ok(())
    }

    /// Makes a system partition the primary one, and the one that was primary a mere system partition.
    pub fn set_primary(&mut self, id: u32) -> Result<(), Error> {
        let (_, kind, arch) = self.object(id)?.partition().ok_or(Error::NotSystem { id })?;
        match kind {
            PRIMARY_SYSTEM => return Ok(()),
            SYSTEM => {}
            _ => return Err(Error::NotSystem { id }),
        }
        let mut table = Table::read(&self.sif)?;
        let others: Vec<u32> =
            self.sif.descriptors().iter().filter(|there| there.is_primary_partition()).map(|there| there.id).collect();
        for (id, kind) in others.into_iter().map(|id| (id, SYSTEM)).chain([(id, PRIMARY_SYSTEM)]) {
            let slot = table.slot_of(id).ok_or(Error::NoObject { id })?;
            table.put(slot, EXTRA + 4, &kind.to_le_bytes());
            if let Some(time) = self.time {
                table.put(slot, MTIME, &time.to_le_bytes());
            }
        }
        self.replace(&table)?;
        self.finish(&table, Some(arch), None)
    }

    /// Several slots at once: the header points at a copy meanwhile.
    fn replace(&mut self, table: &Table) -> Result<(), Error> {
        let copy = place::data_end(&self.sif);
        let before = self.sif.len();
        self.write(copy, table.bytes(), "a copy of the descriptors")?;
        self.sync("a copy of the descriptors")?;
        self.write(place::TABLE_OFFSET, &copy.to_le_bytes(), "header")?;
        self.sync("header")?;
        self.write(table.start(), table.bytes(), "the descriptors")?;
        self.sync("the descriptors")?;
        self.write(place::TABLE_OFFSET, &table.start().to_le_bytes(), "header")?;
        self.sync("header")?;
        self.set_len(before)
    }

    /// Ends a [`Self::replace`] that was cut off: a table behind the objects goes back to where it was, before them.
    fn heal(&mut self) -> Result<(), Error> {
        let header = self.sif.header();
        let table = Table::read(&self.sif)?;
        let home = (header.data_offset as u64).checked_sub(table.bytes().len() as u64);
        let home = home.filter(|home| *home >= HEADER_LEN as u64 && header.descriptors_offset > header.data_offset);
        let Some(home) = home else {
            return Ok(());
        };
        if self.sif.descriptors().iter().any(|object| object.size > 0 && object.offset < header.data_offset as u64) {
            // Another writer's layout: its table may well stand last.
            return Ok(());
        }
        self.write(home, table.bytes(), "the descriptors")?;
        self.sync("the descriptors")?;
        self.write(place::TABLE_OFFSET, &home.to_le_bytes(), "header")?;
        self.sync("header")?;
        self.sif = self.reread()?;
        Ok(())
    }

    /// The header's counts, last of all.
    fn finish(&mut self, table: &Table, arch: Option<Arch>, end: Option<u64>) -> Result<(), Error> {
        let mut bytes = [0; HEADER_LEN];
        let file = self.sif.file();
        file.read_exact_at(&mut bytes, 0).map_err(|source| reader::Error::Read { what: "header", source })?;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        if let Some(arch) = arch {
            put(place::ARCH, &arch.code());
        }
        if let Some(time) = self.time {
            put(place::HEADER_MTIME, &time.to_le_bytes());
        }
        put(place::FREE, &table.free().to_le_bytes());
        if let Some(end) = end {
            let data = end.saturating_sub(self.sif.header().data_offset as u64);
            put(place::DATA_LEN, &data.to_le_bytes());
        }
        self.write(0, &bytes, "header")?;
        self.sync("header")?;
        self.sif = self.reread()?;
        Ok(())
    }

    fn descriptor(&self, object: &Object) -> Result<Descriptor, Error> {
        let group = |number: u32| match number & GROUP_MASK {
            0 => Ok(number | GROUP_MASK),
            _ => Err(Error::Group { value: number }),
        };
        let mut extra = Box::new([0; 384]);
        extra[..object.extra.len()].copy_from_slice(&object.extra);
        let time = self.time.unwrap_or(self.sif.header().mtime);
        Ok(Descriptor {
            datatype: object.data_type,
            id: 0,
            group: group(object.group.unwrap_or(0))?,
            link: match object.link {
                Link::None => 0,
                Link::Object(id) => id,
                Link::Group(number) => group(number)?,
            },
            offset: 0,
            size: 0,
            size_with_padding: 0,
            ctime: time,
            mtime: time,
            uid: 0,
            gid: 0,
            name: object.name.clone(),
            extra,
        })
    }

    fn object(&self, id: u32) -> Result<&Descriptor, Error> {
        self.sif.descriptors().iter().find(|there| there.id == id).ok_or(Error::NoObject { id })
    }

    /// As the reference: the slot's number from 1 on; in a table of another writer whichever is free.
    fn free_id(&self, slot: usize) -> u32 {
        let taken = |id: u32| self.sif.descriptors().iter().any(|there| there.id == id);
        let first = slot as u32 + 1;
        // At most MAX_DESCRIPTORS ids are taken.
        (first..).chain(1..first).find(|id| !taken(*id)).unwrap_or(first)
    }

    fn append(&self, start: u64, contents: &mut dyn Read) -> Result<u64, Error> {
        let mut buffer = vec![0; CHUNK];
        let mut size = 0_u64;
        loop {
            let n = match contents.read(&mut buffer) {
                Ok(0) => return Ok(size),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Contents { source }),
            };
            let end = start.checked_add(size + n as u64).filter(|end| i64::try_from(*end).is_ok());
            end.ok_or(Error::TooLarge)?;
            self.write(start + size, &buffer[..n], "the data object")?;
            size += n as u64;
        }
    }

    fn zero(&self, range: std::ops::Range<u64>) -> Result<(), Error> {
        let zeros = vec![0; CHUNK];
        let mut at = range.start;
        while at < range.end {
            let n = (range.end - at).min(CHUNK as u64);
            self.write(at, &zeros[..n as usize], "zeros")?;
            at += n;
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8], what: &'static str) -> Result<(), Error> {
        #[cfg(test)]
        log::note(at, bytes);
        self.sif.file().write_all_at(bytes, at).map_err(|source| Error::Write { what, source })
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.sif.file().set_len(len).map_err(|source| Error::Write { what: "the length", source })
    }

    fn sync(&self, what: &'static str) -> Result<(), Error> {
        self.sif.file().sync_data().map_err(|source| Error::Write { what, source })
    }

    fn reread(&self) -> Result<Sif, Error> {
        // The lock belongs to the open file, which the copy shares.
        let copy = self.sif.file().try_clone();
        Ok(Sif::open(copy.map_err(|source| reader::Error::Read { what: "file", source })?)?)
    }
}

/// Writes a SIF without any object into an empty file. `uuid`: raw bytes in text order; `time`: Unix seconds.
pub fn create(file: &File, uuid: [u8; 16], time: i64) -> Result<(), Error> {
    let table = crate::writer::DESCRIPTORS as i64;
    let header = Header {
        launch: [0; LAUNCH.len()],
        arch: Arch::Unknown,
        uuid,
        ctime: time,
        mtime: time,
        descriptors_free: table,
        descriptors_total: table,
        descriptors_offset: crate::writer::DESCRIPTORS_OFFSET as i64,
        descriptors_len: table * DESCRIPTOR_LEN as i64,
        data_offset: crate::writer::DATA_OFFSET as i64,
        data_len: 0,
    };
    let failed = |source| Error::Write { what: "an empty SIF", source };
    file.set_len(crate::writer::DATA_OFFSET).map_err(failed)?;
    file.write_all_at(&header.encode(), 0).map_err(failed)?;
    file.sync_data().map_err(failed)
}
