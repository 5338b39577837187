//! The reader: for files from anywhere, so every offset, length and count is checked against the file before use.
//!
//! What is accepted is wider than what [`crate::Draft`] writes: any number of descriptors up to [`MAX_DESCRIPTORS`], at any offset, any
//! order and padding of objects. What is refused says why.

use crate::format::{Arch, DESCRIPTOR_LEN, Descriptor, Filesystem, HEADER_LEN, Header, MAGIC, VERSION};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most descriptors that are read: 2.4 MB of table; the reference writes 48.
pub const MAX_DESCRIPTORS: i64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {what} of the SIF")]
    Read { what: &'static str, source: io::Error },
    #[error("truncated SIF: {len} bytes, the header needs {HEADER_LEN}")]
    TruncatedHeader { len: u64 },
    #[error("invalid SIF magic {found:?}: this file is no SIF")]
    Magic { found: String },
    #[error("unsupported SIF version {found:?}, want \"01\"")]
    Version { found: String },
    #[error("invalid SIF header: {field} is {value}")]
    Field { field: &'static str, value: i64 },
    #[error("invalid SIF header: {count} descriptors, at most {MAX_DESCRIPTORS} are read")]
    TooManyDescriptors { count: i64 },
    #[error("truncated SIF: the descriptors end at byte {end}, the file has {len}")]
    TruncatedDescriptors { end: u64, len: u64 },
    #[error("truncated SIF: data object {id} ends at byte {end}, the file has {len}")]
    TruncatedObject { id: u32, end: u64, len: u64 },
    #[error("invalid SIF descriptor {id}: {field} is {value}")]
    DescriptorField { id: u32, field: &'static str, value: i64 },
    #[error("invalid SIF: two descriptors have the id {id}")]
    DuplicateId { id: u32 },
    #[error("SIF data object {id} has {size} bytes, at most {limit} are read")]
    ObjectTooLarge { id: u32, size: u64, limit: u64 },
    #[error("the SIF has no primary system partition: nothing in it can be run")]
    NoPrimaryPartition,
    #[error("the SIF has {count} primary system partitions, want one")]
    ManyPrimaryPartitions { count: usize },
}

/// An open SIF whose header and descriptors have been checked. Reads with pread: the file's offset never moves.
#[derive(Debug)]
pub struct Sif {
    file: File,
    len: u64,
    header: Header,
    descriptors: Vec<Descriptor>,
}

/// Where the root file system lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Bytes from the file's start.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    pub filesystem: Filesystem,
    /// The partition's own; the header's may differ in a file with several partitions.
    pub arch: Arch,
}

impl Sif {
    pub fn open(file: File) -> Result<Self, Error> {
        let len = file.metadata().map_err(|source| Error::Read { what: "length", source })?.len();
        let header = read_header(&file, len)?;
        let descriptors = read_descriptors(&file, len, &header)?;
        Ok(Self { file, len, header, descriptors })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn into_file(self) -> File {
        self.file
    }

    /// Bytes of the whole file when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The used descriptors, in the table's order.
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// The first object of this type and name.
    pub fn find(&self, datatype: crate::DataType, name: &str) -> Option<&Descriptor> {
        self.descriptors.iter().find(|descriptor| descriptor.datatype == datatype && descriptor.name == name)
    }

    pub fn primary_partition(&self) -> Result<Partition, Error> {
        let mut found = self.descriptors.iter().filter(|descriptor| descriptor.is_primary_partition());
        let first = found.next().ok_or(Error::NoPrimaryPartition)?;
        let others = found.count();
        if others > 0 {
            return Err(Error::ManyPrimaryPartitions { count: others + 1 });
        }
        let (filesystem, _, arch) = first.partition().ok_or(Error::NoPrimaryPartition)?;
        Ok(Partition { offset: first.offset, size: first.size, filesystem, arch })
    }

    /// An object's bytes, at most `limit` of them.
    pub fn object(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let (id, size) = (descriptor.id, descriptor.size);
        if size > limit {
            return Err(Error::ObjectTooLarge { id, size, limit });
        }
        let end = descriptor.offset.saturating_add(size);
        if end > self.len {
            return Err(Error::TruncatedObject { id, end, len: self.len });
        }
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, descriptor.offset)
            .map_err(|source| Error::Read { what: "a data object", source })?;
        Ok(bytes)
    }
}

fn read_header(file: &File, len: u64) -> Result<Header, Error> {
    if len < HEADER_LEN as u64 {
        return Err(Error::TruncatedHeader { len });
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, 0).map_err(|source| Error::Read { what: "header", source })?;
    if &bytes[32..42] != MAGIC {
        return Err(Error::Magic { found: printable(&bytes[32..42]) });
    }
    if &bytes[42..45] != VERSION {
        return Err(Error::Version { found: printable(&bytes[42..45]) });
    }
    let header = Header::decode(&bytes);
    let fields = [
        ("the number of descriptors", header.descriptors_total),
        ("the number of free descriptors", header.descriptors_free),
        ("the descriptors' offset", header.descriptors_offset),
        ("the descriptors' length", header.descriptors_len),
        ("the data's offset", header.data_offset),
        ("the data's length", header.data_len),
    ];
    if let Some((field, value)) = fields.into_iter().find(|(_, value)| *value < 0) {
        return Err(Error::Field { field, value });
    }
    if header.descriptors_total > MAX_DESCRIPTORS {
        return Err(Error::TooManyDescriptors { count: header.descriptors_total });
    }
    if header.descriptors_offset < HEADER_LEN as i64 {
        return Err(Error::Field { field: "the descriptors' offset", value: header.descriptors_offset });
    }
    if header.descriptors_free > header.descriptors_total {
        return Err(Error::Field { field: "the number of free descriptors", value: header.descriptors_free });
    }
    Ok(header)
}

fn read_descriptors(file: &File, len: u64, header: &Header) -> Result<Vec<Descriptor>, Error> {
    // Both are ≥ 0 and the count ≤ MAX_DESCRIPTORS: read_header saw to it.
    let table_len = header.descriptors_total as u64 * DESCRIPTOR_LEN as u64;
    let start = header.descriptors_offset as u64;
    let end = start.saturating_add(table_len);
    if end > len {
        return Err(Error::TruncatedDescriptors { end, len });
    }
    let mut table = vec![0; table_len as usize];
    file.read_exact_at(&mut table, start).map_err(|source| Error::Read { what: "descriptors", source })?;
    let (slots, _) = table.as_chunks::<DESCRIPTOR_LEN>();
    let mut seen = BTreeSet::new();
    let mut descriptors = Vec::new();
    for raw in slots.iter().filter_map(Descriptor::decode) {
        let descriptor = check_place(raw, len, (start, end))?;
        if !seen.insert(descriptor.id) {
            return Err(Error::DuplicateId { id: descriptor.id });
        }
        descriptors.push(descriptor);
    }
    Ok(descriptors)
}

/// The object must lie within the file, behind the header, outside the descriptor table.
fn check_place(raw: crate::format::RawDescriptor, len: u64, table: (u64, u64)) -> Result<Descriptor, Error> {
    let id = raw.rest.id;
    if id == 0 {
        return Err(Error::DescriptorField { id, field: "the id", value: 0 });
    }
    let positive = |field, value: i64| u64::try_from(value).map_err(|_| Error::DescriptorField { id, field, value });
    let offset = positive("the offset", raw.offset)?;
    let size = positive("the size", raw.size)?;
    let size_with_padding = positive("the size with padding", raw.size_with_padding)?;
    let end = offset.saturating_add(size);
    if end > len {
        return Err(Error::TruncatedObject { id, end, len });
    }
    let overlaps_table = offset < table.1 && end > table.0;
    if size > 0 && (offset < HEADER_LEN as u64 || overlaps_table) {
        return Err(Error::DescriptorField { id, field: "the offset", value: raw.offset });
    }
    Ok(Descriptor { offset, size, size_with_padding, ..raw.rest })
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
