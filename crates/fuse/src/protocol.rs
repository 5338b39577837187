//! The kernel's protocol, version 7, in the machine's byte order.
//!
//! ```text
//! request  u32 length │ u32 opcode │ u64 unique │ u64 node │ u32 uid, gid, pid │ u16 extensions, u16 0 │ body
//! reply    u32 length │ i32 -errno │ u64 unique │ body, if errno is 0
//!
//! init     in:  u32 major, minor, max_readahead, flags, flags2, …
//!          out: u32 major, minor, max_readahead, flags, u16 max_background, congestion, u32 max_write, time_gran,
//!               u16 max_pages, map_alignment, u32 flags2, 7 × u32
//! attr     u64 ino, size, blocks, atime, mtime, ctime, u32 ns of the three, mode, nlink, uid, gid, rdev, blksize, flags
//! entry    u64 node, generation, seconds that the entry is valid, the same of attr, u32 ns of both, attr
//! getattr  out: u64 seconds, u32 ns, u32 0, attr
//! read     in:  u64 handle, u64 offset, u32 size, …                                    (and readdir, readdirplus)
//! dirent   u64 ino, u64 offset of the next, u32 name length, u32 type, name, zeros up to 8     plus: entry before it
//! lseek    in:  u64 handle, u64 offset, u32 whence           out: u64 offset
//! xattr    in:  u32 size, u32 0, name NUL                    out: u32 size, u32 0 if size was 0, else the bytes
//! statfs   out: u64 blocks, bfree, bavail, files, ffree, u32 bsize, namelen, frsize, 0, 6 × u32
//! ```

use std::io::IoSlice;

use rustix::io::Errno;
use siforge_squashfs::read::Part;

pub(crate) const MAJOR: u32 = 7;
/// What this code was written against.
pub(crate) const MINOR: u32 = 38;
/// Linux 4.5. Before 7.23 replies have other sizes.
pub(crate) const MINOR_MIN: u32 = 23;

pub(crate) const IN_HEADER: usize = 40;
pub(crate) const OUT_HEADER: usize = 16;

/// A read must offer as much: FUSE_MIN_READ_BUFFER, or what a write of [`MAX_WRITE`] takes.
pub(crate) const REQUEST_MAX: usize = 8192;
pub(crate) const MAX_WRITE: u32 = 4096;
/// Largest read: 1 MiB. The kernel asks for its read-ahead, 128 KiB, and for more only without the page cache.
pub(crate) const MAX_PAGES: u16 = 256;
pub(crate) const READ_MAX: usize = 1 << 20;

pub(crate) const ROOT: u64 = 1;

/// Requests that have an answer of their own.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const READ: u32 = 15;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const LSEEK: u32 = 46;
    /// What would change something: setattr, symlink, mknod, mkdir, unlink, rmdir, rename, link, write, setxattr,
    /// removexattr, create, fallocate, rename2, copy_file_range, tmpfile. The mount is read-only, so none is expected.
    pub(crate) const CHANGES: [u32; 16] = [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51];
}

/// Flags of INIT, those that are wanted.
pub(crate) mod flags {
    pub(crate) const ASYNC_READ: u32 = 1;
    pub(crate) const DO_READDIRPLUS: u32 = 1 << 13;
    /// Only where entries are looked at after they were listed.
    pub(crate) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(crate) const ASYNC_DIO: u32 = 1 << 15;
    pub(crate) const NO_OPEN_SUPPORT: u32 = 1 << 17;
    pub(crate) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(crate) const MAX_PAGES: u32 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u32 = 1 << 23;
    pub(crate) const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
    pub(crate) const WANTED: u32 = ASYNC_READ
        | DO_READDIRPLUS
        | READDIRPLUS_AUTO
        | ASYNC_DIO
        | NO_OPEN_SUPPORT
        | PARALLEL_DIROPS
        | MAX_PAGES
        | CACHE_SYMLINKS
        | NO_OPENDIR_SUPPORT;
}

/// Seconds for which the kernel may believe what it was told: longer than any machine runs.
const VALID: u64 = 1 << 31;

/// What is left of a request's body.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (now, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*now)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_ne_bytes)
    }

    /// A name ends with a NUL.
    pub(crate) fn name(self) -> Result<&'a [u8], Errno> {
        self.0.iter().position(|byte| *byte == 0).map(|end| &self.0[..end]).ok_or(Errno::INVAL)
    }
}

pub(crate) struct Request<'a> {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) body: Fields<'a>,
}

impl<'a> Request<'a> {
    /// None if it is shorter than its header or than it says.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let length = fields.u32().ok()? as usize;
        let (opcode, unique, node) = (fields.u32().ok()?, fields.u64().ok()?, fields.u64().ok()?);
        let body = bytes.get(IN_HEADER..length)?;
        Some(Self { opcode, unique, node, body: Fields(body) })
    }
}

/// A reply that is being written: the header's room, then the body. One for each worker, used again and again. It has
/// room for the longest read from the start, of which the kernel gives only what is used.
pub(crate) struct Reply {
    bytes: Vec<u8>,
    length: usize,
    /// What follows, where the reader has it.
    part: Option<Part>,
}

impl Reply {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; OUT_HEADER + READ_MAX], length: OUT_HEADER, part: None }
    }

    pub(crate) fn clear(&mut self) {
        self.length = OUT_HEADER;
        self.part = None;
    }

    /// Ends the body with this.
    pub(crate) fn part(&mut self, part: Part) {
        self.part = Some(part);
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.length - OUT_HEADER
    }

    /// Appends `length` bytes of whatever was there, to be overwritten.
    pub(crate) fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.length;
        self.length += length;
        if self.bytes.len() < self.length {
            self.bytes.resize(self.length, 0);
        }
        &mut self.bytes[start..self.length]
    }

    /// Takes back all but the first `length` bytes of the body.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(OUT_HEADER + length);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_ne_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    /// The whole message, for one writev(2).
    pub(crate) fn message(&mut self, unique: u64, answer: Result<(), Errno>) -> [IoSlice<'_>; 2] {
        let error = match answer {
            Ok(()) => 0,
            Err(errno) => {
                self.clear();
                -errno.raw_os_error()
            }
        };
        let part = self.part.as_deref().unwrap_or_default();
        self.bytes[..4].copy_from_slice(&((self.length + part.len()) as u32).to_ne_bytes());
        self.bytes[4..8].copy_from_slice(&error.to_ne_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        [IoSlice::new(&self.bytes[..self.length]), IoSlice::new(part)]
    }

    pub(crate) fn init(&mut self, max_readahead: u32, flags: u32) {
        for word in [MAJOR, MINOR, max_readahead, flags] {
            self.u32(word);
        }
        // Reads of the page cache that wait at a time, and from how many on the disk counts as busy.
        self.u16(64);
        self.u16(48);
        self.u32(MAX_WRITE);
        // Squashfs has whole seconds.
        self.u32(1_000_000_000);
        self.u16(MAX_PAGES);
        self.u16(0);
        self.bytes(&[0; 32]);
    }

    /// The largest version that is spoken here: the kernel comes back with it.
    pub(crate) fn version(&mut self) {
        self.u32(MAJOR);
        self.u32(MINOR);
        self.bytes(&[0; 56]);
    }

    /// `attr: None`: there is no such name, and there never will be.
    pub(crate) fn entry(&mut self, node: u64, attr: Option<&Attr>) {
        for long in [node, 0, VALID, VALID] {
            self.u64(long);
        }
        self.u64(0);
        self.attr(attr.unwrap_or(&Attr::default()));
    }

    /// For a name that is listed but not looked up: `.` and `..`.
    pub(crate) fn no_entry(&mut self) {
        self.bytes(&[0; 128]);
    }

    pub(crate) fn attr_valid(&mut self, attr: &Attr) {
        self.u64(VALID);
        self.u64(0);
        self.attr(attr);
    }

    fn attr(&mut self, attr: &Attr) {
        let blocks = attr.stored.div_ceil(512);
        let seconds = u64::from(attr.mtime);
        for long in [attr.number, attr.size, blocks, seconds, seconds, seconds] {
            self.u64(long);
        }
        for word in [0, 0, 0, attr.mode, attr.links, attr.uid, attr.gid, attr.rdev, attr.block_size, 0] {
            self.u32(word);
        }
    }

    /// Bytes that a name of a listing takes.
    pub(crate) fn dirent_len(name: &[u8]) -> usize {
        (24 + name.len()).next_multiple_of(8)
    }

    pub(crate) fn dirent(&mut self, number: u64, next: u64, kind: u32, name: &[u8]) {
        self.u64(number);
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(kind);
        self.bytes(name);
        let padding = Self::dirent_len(name) - 24 - name.len();
        self.room(padding).fill(0);
    }
}

/// What stat(2) shows.
#[derive(Default)]
pub(crate) struct Attr {
    pub(crate) number: u64,
    pub(crate) size: u64,
    /// Bytes without holes.
    pub(crate) stored: u64,
    pub(crate) mtime: u32,
    /// With the type.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) block_size: u32,
}
