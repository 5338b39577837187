use std::io;

use crate::write::pack::Fault;

/// Why an image was not written. Paths are those inside the image, `/` first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("block size {0} is not a power of two between 64 KiB and 1 MiB")]
    BlockSize(u32),
    #[error("{codec} has no level {level} (use {min} to {max})")]
    Level { codec: &'static str, level: i32, min: i32, max: i32 },
    #[error("{given} bytes of memory do not suffice for this codec and block size: at least {needed} are needed")]
    Memory { given: usize, needed: usize },
    #[error("start a compression thread: {0}")]
    Spawn(#[source] io::Error),

    #[error("read the contents of a file of {size} bytes: {source}")]
    Read { size: u64, source: io::Error },
    #[error("write {bytes} bytes at offset {offset} of the image: {source}")]
    Write { offset: u64, bytes: usize, source: io::Error },
    #[error("set the length of the image file to {length}: {source}")]
    Truncate { length: u64, source: io::Error },
    #[error("compress {bytes} bytes with {codec}: {source}")]
    Compress { codec: &'static str, bytes: usize, source: io::Error },
    #[error("a thread that {doing} panicked; this is a bug of siforge")]
    Panicked { doing: &'static str },
    #[error("the image writer stopped after an earlier error")]
    Stopped,
    #[error("the pack of the layer with diff_id {} {fault}", hex(diff_id))]
    Pack { diff_id: [u8; 32], fault: Fault },
    /// All that one pass found, in the order of their layers.
    #[error("the packs of {} layers lack contents that are needed here", diff_ids.len())]
    Lacking { diff_ids: Vec<[u8; 32]> },
    #[error("{call} was called {found} a layer; this is a bug of siforge")]
    Layer { call: &'static str, found: &'static str },

    #[error("{path}: its contents of {size} bytes were never handed to the image writer")]
    Missing { path: String, size: u64 },
    #[error("{path}: has {expected} bytes by its entry, but contents of {found} bytes were written")]
    Size { path: String, expected: u64, found: u64 },
    #[error("{path}: the name has {len} bytes, squashfs holds at most 255")]
    NameTooLong { path: String, len: usize },
    #[error("{path}: a directory holds the name {name:?}, which is empty, `.`, `..` or has a slash or NUL in it")]
    Name { path: String, name: String },
    #[error("{path}: the directory's names are not in order; this is a bug of siforge")]
    Unsorted { path: String },
    #[error("{path}: the symlink's target has {len} bytes, squashfs holds 1 to 4095")]
    SymlinkTarget { path: String, len: usize },
    #[error("{path}: device number {major}:{minor} is beyond 4095:1048575, the most squashfs holds")]
    Device { path: String, major: u32, minor: u32 },
    #[error("{path}: is the {count}th distinct owner or group id of the image, squashfs holds at most 65535")]
    Ids { path: String, count: usize },
    #[error(
        "{path}: extended attribute {name:?} has a name of {len} bytes, 1 to 255 with something after the dot can be stored"
    )]
    XattrName { path: String, name: String, len: usize },
    #[error("{path}: extended attribute {name:?} has {len} bytes, the kernel reads at most 65536")]
    XattrValue { path: String, name: String, len: usize },
    #[error("{path}: the directory's listing takes more than 4 GiB")]
    DirectoryTooLarge { path: String },
    #[error("the image has more than 2^32 {what}")]
    TooMany { what: &'static str },
    #[error("the table of {what} takes {bytes} bytes, squashfs can refer to 4 GiB of it")]
    TableTooLarge { what: &'static str, bytes: usize },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
