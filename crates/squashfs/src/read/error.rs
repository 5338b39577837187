use std::io;

/// Why an image was not read or unpacked. Places count from the image's first byte.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    At { path: String, source: Box<Error> },
    #[error("read {bytes} bytes at offset {offset} of the image: {source}")]
    Read { offset: u64, bytes: usize, source: io::Error },

    #[error("not a squashfs image: it begins with {found:#010x}, not with 0x73717368 (hsqs)")]
    Magic { found: u32 },
    #[error("squashfs version {major}.{minor}, only 4.0 can be read")]
    Version { major: u16, minor: u16 },
    #[error("the image names the unknown codec {id}, known are 1 to 6: gzip, lzma, lzo, xz, lz4, zstd")]
    UnknownCodec { id: u16 },
    #[error("block size {size} with logarithm {log}, must be a power of two from 4 KiB to 1 MiB and agree")]
    BlockSize { size: u32, log: u16 },
    #[error("the image needs {bytes_used} bytes and has {size}; it was cut off")]
    CutOff { bytes_used: u64, size: u64 },
    #[error("an image of {size} bytes at offset {offset} ends beyond 2^64")]
    Place { offset: u64, size: u64 },

    #[error("{what} at offset {offset} with {bytes} bytes leaves its part of the image, which ends at {end}")]
    Outside { what: &'static str, offset: u64, bytes: u64, end: u64 },
    #[error("{what} at offset {offset} claims {bytes} stored bytes, at most {max} are possible")]
    StoredSize { what: &'static str, offset: u64, bytes: u64, max: usize },
    #[error("{what} at offset {offset} does not unpack: {source}")]
    Decompress { what: &'static str, offset: u64, source: io::Error },
    #[error("{what} at offset {offset} unpacks to {found} bytes instead of {expected}")]
    UnpackedSize { what: &'static str, offset: u64, expected: usize, found: usize },
    #[error("a reference to byte {offset} of a metadata block at {block} that unpacks to {length} bytes")]
    MetadataOffset { block: u64, offset: usize, length: usize },
    #[error("{what} {index} does not exist, the image has {count}")]
    Index { what: &'static str, index: u64, count: u64 },
    #[error("the inode at {reference:#x} has the unknown type {kind}")]
    InodeType { reference: u64, kind: u16 },
    #[error("the entry {name:?} is listed with type {listed}, its inode has type {found}")]
    EntryType { name: String, listed: u16, found: u16 },
    #[error("a directory header claims {entries} entries, at most 256 are possible")]
    HeaderEntries { entries: u64 },
    #[error("a record of the listing needs {needed} bytes, {left} are left of it")]
    Listing { needed: u32, left: u32 },
    #[error("a directory lists the name {name:?}, which is empty, `.`, `..` or has a slash or NUL in it")]
    Name { name: String },
    #[error("a directory lists a name of {len} bytes, Linux has at most 255")]
    NameTooLong { len: usize },
    #[error("the tail of a file lies in bytes {offset} to {end} of a fragment block of {length} bytes")]
    Tail { offset: u64, end: u64, length: usize },
    #[error("an extended attribute has the unknown namespace {kind:#x}")]
    XattrNamespace { kind: u16 },
    #[error("the name of an extended attribute has a NUL in it")]
    XattrNul,
    #[error("the reference to an extended attribute's value has {len} bytes instead of 8")]
    XattrReference { len: u32 },
    #[error("the inode at {reference:#x} is not a {expected}")]
    Kind { reference: u64, expected: &'static str },

    #[error("a symlink's target has {len} bytes, Linux has 1 to 4095")]
    SymlinkTarget { len: u32 },
    #[error("a symlink's target has a NUL in it")]
    SymlinkNul,
    #[error("an extended attribute has a name of {len} bytes, Linux has at most 255")]
    XattrName { len: usize },
    #[error("an extended attribute has {len} bytes, Linux has at most 65536")]
    XattrValue { len: u64 },
    #[error("an inode has more than {max} bytes of extended attributes")]
    XattrsTooLarge { max: usize },
    #[error("directories are nested more than {max} deep")]
    TooDeep { max: usize },
    #[error("the directory is listed in two places or contains itself")]
    DirectoryTwice,
    #[error("the image has more than {max} directory entries")]
    TooManyEntries { max: u64 },
    #[error("the image has more than {max} files with further names")]
    TooManyLinks { max: usize },
    #[error("the files of the image have more than {max} blocks")]
    TooManyBlocks { max: u64 },
    #[error("the files of the image have more than {max} bytes, far more than {stored} stored bytes suggest")]
    TooManyBytes { max: u64, stored: u64 },

    #[error("write the contents read: {source}")]
    Write { source: io::Error },
    #[error("{operation}: {source}")]
    Create { operation: &'static str, source: io::Error },
    #[error("start a thread for unpacking: {source}")]
    Spawn { source: io::Error },
    #[error("a thread that unpacked files panicked; this is a bug of siforge")]
    Panicked,
    #[error("the work was stopped")]
    Stopped,
}

impl Error {
    /// Names the path inside the image, once.
    pub(super) fn at(self, path: impl FnOnce() -> String) -> Self {
        match self {
            Self::At { .. } => self,
            source => Self::At { path: path(), source: Box::new(source) },
        }
    }
}

/// A name or path out of an image, fit for a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}
