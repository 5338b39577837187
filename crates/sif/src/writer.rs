//! The canonical writer. Same input, same bytes.
//!
//! Objects 1… are known before the partition, whose length is not: so the draft fixes where the partition starts, the squashfs writer
//! streams it there, and [`Draft::finish`] writes header, descriptors and objects into the space in front. Nothing is copied.
//!
//! ```text
//!   Draft::new(objects) ── partition_offset() ──▶ squashfs is written at that offset ── finish(file, len) ──▶ a complete SIF
//! ```
//!
//! Object n has id n, group 1, no link; the partition comes last, so a file without a finished header is never taken for a SIF:
//! its first 4096 bytes are a hole.

use crate::format::{
    Arch, DESCRIPTOR_LEN, DataType, Descriptor, Filesystem, GROUP_MASK, HEADER_LEN, Header, LAUNCH, NAME_MAX,
    primary_partition_extra,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Slots in the table, used or not; as the reference writes.
pub(crate) const DESCRIPTORS: usize = 48;
pub(crate) const DESCRIPTORS_OFFSET: u64 = 4096;
pub(crate) const DATA_OFFSET: u64 = DESCRIPTORS_OFFSET + (DESCRIPTORS * DESCRIPTOR_LEN) as u64;
/// The partition starts and ends at multiples of it: the kernel maps it through a loop device by pages.
pub const ALIGNMENT: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a SIF with {count} data objects: at most {} fit beside the partition", DESCRIPTORS - 1)]
    TooManyObjects { count: usize },
    #[error("the name of a data object is longer than {NAME_MAX} bytes: {name:?}")]
    NameTooLong { name: String },
    #[error("the extra field of data object {name:?} has {len} bytes, at most 384 fit")]
    ExtraTooLong { name: String, len: usize },
    #[error("a partition of {len} bytes: too large for a SIF")]
    PartitionTooLarge { len: u64 },
    #[error("write {what} of the SIF")]
    Write { what: &'static str, source: io::Error },
}

/// A data object that stands before the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub datatype: DataType,
    pub name: String,
    pub bytes: Vec<u8>,
    /// ≤ 384 bytes, padded with zeros.
    pub extra: Vec<u8>,
}

/// All of a SIF but its partition.
#[derive(Clone, Debug)]
pub struct Draft {
    arch: Arch,
    uuid: [u8; 16],
    time: i64,
    objects: Vec<Object>,
}

impl Draft {
    /// `time`: Unix seconds, written as every ctime and mtime. `uuid`: raw bytes in text order.
    pub fn new(arch: Arch, uuid: [u8; 16], time: i64, objects: Vec<Object>) -> Result<Self, Error> {
        if objects.len() >= DESCRIPTORS {
            return Err(Error::TooManyObjects { count: objects.len() });
        }
        for Object { name, extra, .. } in &objects {
            if name.len() > NAME_MAX {
                return Err(Error::NameTooLong { name: name.clone() });
            }
            if extra.len() > 384 {
                return Err(Error::ExtraTooLong { name: name.clone(), len: extra.len() });
            }
        }
        Ok(Self { arch, uuid, time, objects })
    }

    /// Where the partition's first byte goes: a multiple of 4096.
    pub fn partition_offset(&self) -> u64 {
        self.objects_end().next_multiple_of(ALIGNMENT)
    }

    /// Writes header, descriptors and objects in front of a squashfs partition of `partition_len` bytes that stands at
    /// [`Self::partition_offset`], sets the file's length and returns it. Mode, owner and fsync are the caller's.
    pub fn finish(&self, file: &File, partition_len: u64) -> Result<u64, Error> {
        let too_large = || Error::PartitionTooLarge { len: partition_len };
        let size = partition_len.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)?;
        let file_len = self
            .partition_offset()
            .checked_add(size)
            .filter(|len| i64::try_from(*len).is_ok())
            .ok_or_else(too_large)?;

        let front = self.front(size);
        file.set_len(file_len).map_err(|source| Error::Write { what: "length", source })?;
        // The header last: a file that was cut off before has no magic.
        file.write_all_at(&front[HEADER_LEN..], HEADER_LEN as u64)
            .map_err(|source| Error::Write { what: "data objects", source })?;
        file.write_all_at(&front[..HEADER_LEN], 0).map_err(|source| Error::Write { what: "header", source })?;
        Ok(file_len)
    }

    /// Every byte before the partition.
    fn front(&self, partition_size: u64) -> Vec<u8> {
        let mut front = vec![0; self.partition_offset() as usize];
        let mut offset = DATA_OFFSET;
        let mut descriptors = Vec::new();
        for object in &self.objects {
            let size = object.bytes.len() as u64;
            let mut extra = Box::new([0; 384]);
            extra[..object.extra.len()].copy_from_slice(&object.extra);
            front[offset as usize..(offset + size) as usize].copy_from_slice(&object.bytes);
            descriptors.push(self.descriptor(object.datatype, &object.name, (offset, size, size), extra));
            offset += size;
        }
        let start = self.partition_offset();
        let mut extra = Box::new([0; 384]);
        let partition = primary_partition_extra(Filesystem::Squashfs, self.arch);
        extra[..partition.len()].copy_from_slice(&partition);
        let place = (start, partition_size, partition_size + (start - offset));
        descriptors.push(self.descriptor(DataType::Partition, "", place, extra));

        let header = Header {
            launch: *LAUNCH,
            arch: self.arch,
            uuid: self.uuid,
            ctime: self.time,
            mtime: self.time,
            descriptors_free: (DESCRIPTORS - descriptors.len()) as i64,
            descriptors_total: DESCRIPTORS as i64,
            descriptors_offset: DESCRIPTORS_OFFSET as i64,
            descriptors_len: (DESCRIPTORS * DESCRIPTOR_LEN) as i64,
            data_offset: DATA_OFFSET as i64,
            data_len: descriptors.iter().map(|descriptor| descriptor.size_with_padding).sum::<u64>() as i64,
        };
        front[..HEADER_LEN].copy_from_slice(&header.encode());
        let table = &mut front[DESCRIPTORS_OFFSET as usize..DATA_OFFSET as usize];
        for (number, (slot, descriptor)) in table.chunks_exact_mut(DESCRIPTOR_LEN).zip(&mut descriptors).enumerate() {
            descriptor.id = number as u32 + 1;
            slot.copy_from_slice(&descriptor.encode());
        }
        front
    }

    fn descriptor(&self, datatype: DataType, name: &str, place: (u64, u64, u64), extra: Box<[u8; 384]>) -> Descriptor {
        let (offset, size, size_with_padding) = place;
        Descriptor {
            datatype,
            id: 0,
            group: GROUP_MASK | 1,
            link: 0,
            offset,
            size,
            size_with_padding,
            ctime: self.time,
            mtime: self.time,
            uid: 0,
            gid: 0,
            name: name.to_owned(),
            extra,
        }
    }

    fn objects_end(&self) -> u64 {
        DATA_OFFSET + self.objects.iter().map(|object| object.bytes.len() as u64).sum::<u64>()
    }
}

/// A uuid (version 8, RFC 9562) from what decides an image's bytes, so that equal builds have equal uuids.
pub fn uuid_from(seed: &[u8]) -> [u8; 16] {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(seed);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&hash[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
