//! A streaming tar reader that trusts nothing.
//!
//! ```text
//!   archive = member* end          end = two blocks of zeros, or nothing (see below)
//!   member  = extension* header data padding              all in blocks of 512 bytes
//!
//!   extensions (headers of their own, with data)     x  PAX records of the next member: path, linkpath, size, uid, gid,
//!                                                       mtime, SCHILY.xattr.*, LIBARCHIVE.xattr.*, GNU.sparse.*
//!                                                    g  PAX records for all that follow: checked and ignored
//!                                                    L  GNU long name      K  GNU long link target
//!
//!   header      0        100    108  116  124   136    148     156  157       257   263 265      329   337   345      500
//!               ├ name ──┼ mode ┼uid ┼gid ┼size─┼mtime─┼chksum─┼type┼linkname─┼magic┼ver┼ owner…─┼major─┼minor─┼ prefix ┤
//!     ustar, PAX  magic "ustar\0", version "00"; the path is prefix/name
//!     star        the same with "tar\0" at 508; prefix 345..476, then atime and ctime
//!     GNU         magic "ustar  \0"; no prefix: atime 345, ctime 357, sparse map 386 (4 × offset, length), more 482, real size 483
//!     v7          any other magic; ends with linkname
//! ```
//!
//! Sources: POSIX.1-2017 `pax`, GNU tar's `tar.h` and its manual's appendix "Sparse Formats", libarchive's `tar(5)`. In
//! doubtful cases this does what Go's `archive/tar` does, because Docker, containerd and umoci read layers with it, and
//! what we see in a layer must be what they (and scanners built on it) see:
//!
//! * An archive may end without its two blocks of zeros, with one of them, and without the padding of its last member;
//!   anything else that is cut short is an error.
//! * PAX globals do not apply to members; a later `x` header replaces an earlier one; `L` and `K` win over PAX paths.
//! * Hard links, symlinks, devices, directories and fifos have no data whatever their size field says. But where POSIX
//!   writers put a hard link's data behind it, and Go fails, we skip the data: a block that is no header is taken for it.

mod framing;
mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read};

use header::{Block, Raw};
use pax::Records;
use sparse::Map;

pub use framing::Framing;

pub(crate) const BLOCK: usize = 512;

/// Extension data (PAX records, long names, sparse maps) is held in memory; Go's limit, so no layer in use is larger.
pub const EXTENSION_LIMIT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read tar at byte {offset}: {source}")]
    Read { offset: u64, source: io::Error },
    #[error("tar ends at byte {offset} in the middle of {what}")]
    Truncated { offset: u64, what: &'static str },
    #[error("tar is longer than {limit} bytes")]
    TooLong { limit: u64 },
    #[error("tar header at byte {offset} has a wrong checksum: the archive is damaged or no tar")]
    Checksum { offset: u64 },
    #[error("tar header at byte {offset}: {field} is not a number in range")]
    Number { offset: u64, field: &'static str },
    #[error("tar has a block of zeros and then more data at byte {offset}")]
    LoneZeroBlock { offset: u64 },
    #[error("tar extension header near byte {offset}: {what}")]
    Pax { offset: u64, what: &'static str },
    #[error("tar extension header at byte {offset} is longer than {EXTENSION_LIMIT} bytes")]
    ExtensionTooLong { offset: u64 },
    #[error("tar member near byte {offset} has an invalid sparse map: {what}")]
    Sparse { offset: u64, what: &'static str },
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    Other(u8),
}

/// One member, its extensions merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub path: Vec<u8>,
    /// Target of a hard link or symlink.
    pub link: Vec<u8>,
    pub kind: Type,
    /// As it stands in the header; only 0o7777 of it are permissions.
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    /// Seconds since 1970, floored.
    pub mtime: i64,
    /// Bytes of data as read, holes included; 0 unless `kind` is [`Type::File`] or [`Type::Other`].
    pub size: u64,
    pub major: i64,
    pub minor: i64,
    /// Sorted by name, each once; SCHILY records win over LIBARCHIVE's.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads one archive from its begin to its end; `F` sees all of it but files' contents.
pub struct Archive<R, F = ()> {
    input: Input<R, F>,
    /// Bytes of the current member's data that are still in the archive, and its padding after that.
    remaining: u64,
    padding: usize,
    sparse: Option<Map>,
    /// Size field of the hard link just read, whose data may or may not follow.
    link_data: u64,
    ended: bool,
    failure: Option<Error>,
}

impl<R: Read> Archive<R> {
    /// `limit`: bytes of the archive and of what follows it.
    pub fn new(reader: R, limit: u64) -> Archive<R> {
        Archive::framed(reader, limit, ())
    }
}

impl<R: Read, F: Framing> Archive<R, F> {
    /// `limit` as in [`Archive::new`].
    pub fn framed(reader: R, limit: u64, framing: F) -> Archive<R, F> {
        let reader = BufReader::with_capacity(128 << 10, reader);
        let input = Input { reader, offset: 0, limit, framing, aside: false };
        Archive { input, remaining: 0, padding: 0, sparse: None, link_data: 0, ended: false, failure: None }
    }

    /// The next member; what was not read of the one before is skipped. None at the end, and ever after.
    pub fn next_member(&mut self) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        let header = self.advance();
        self.ended = !matches!(header, Ok(Some(_)));
        header
    }

    /// The current member's data: `size` bytes, holes as zeros.
    pub fn data(&mut self) -> Data<'_, R, F> {
        Data { archive: self }
    }

    /// To be called before [`Archive::data`] is read: the current member is a file whose contents others keep, so they are
    /// no framing. Those of a sparse member do not stand in the archive as they are read, and stay framing.
    pub fn keep_aside(&mut self, size: u64) {
        let inside = self.sparse.is_some();
        self.input.aside = !inside;
        self.input.framing.file(size, inside);
    }

    /// Where the current member's data lies in the stream, before any of it is read: first byte and bytes. None when it
    /// is sparse, which is not one piece.
    pub fn data_place(&self) -> Option<(u64, u64)> {
        self.sparse.is_none().then_some((self.input.offset, self.remaining))
    }

    /// The error behind the `io::Error` that [`Data`] returned.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Reads what follows the archive's end, so that whoever hashes the stream sees all of it.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.input.skip(u64::MAX).map(|_| ())
    }

    fn advance(&mut self) -> Result<Option<Header>, Error> {
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            if !self.skip_data()? {
                return Ok(None);
            }
            let Some(block) = self.read_header()? else {
                return Ok(None);
            };
            let offset = self.input.offset - BLOCK as u64;
            let raw = Raw::parse(&block, offset)?;
            match raw.kind {
                b'x' | b'g' => {
                    let parsed = pax::parse(&self.extension(&raw, offset)?, offset)?;
                    if raw.kind == b'x' {
                        records = parsed;
                    }
                }
                b'L' => long_name = Some(self.extension(&raw, offset)?),
                b'K' => long_link = Some(self.extension(&raw, offset)?),
                _ => {
                    return self.member(raw, &block, &records, long_name, long_link).map(Some);
                }
            }
        }
    }

    /// False if the archive ends within the padding, which is allowed.
    fn skip_data(&mut self) -> Result<bool, Error> {
        let skipped = self.input.skip(self.remaining)?;
        if skipped < self.remaining {
            return Err(self.input.truncated("a member's data"));
        }
        let padding = self.padding as u64;
        self.input.aside = false;
        self.remaining = 0;
        self.padding = 0;
        self.sparse = None;
        Ok(self.input.skip(padding)? == padding)
    }

    /// None at the archive's end.
    fn read_header(&mut self) -> Result<Option<Block>, Error> {
        let mut block = [0; BLOCK];
        let link_data = std::mem::take(&mut self.link_data);
        if !self.read_block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            if !self.read_block(&mut block)? || block == [0; BLOCK] {
                return Ok(None);
            }
            return Err(Error::LoneZeroBlock { offset: self.input.offset - BLOCK as u64 });
        }
        if header::checksum_matches(&block) {
            return Ok(Some(block));
        }
        if link_data == 0 {
            return Err(Error::Checksum { offset: self.input.offset - BLOCK as u64 });
        }
        // The first block of the hard link's data; see the module's docs.
        self.remaining = link_data.saturating_sub(BLOCK as u64);
        self.padding = if link_data > BLOCK as u64 { padding(link_data) } else { 0 };
        if !self.skip_data()? || !self.read_block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        match header::checksum_matches(&block) {
            true => Ok(Some(block)),
            false => Err(Error::Checksum { offset: self.input.offset - BLOCK as u64 }),
        }
    }

    /// False at the end of the stream; an error if it ends within the block.
    fn read_block(&mut self, block: &mut Block) -> Result<bool, Error> {
        match self.input.fill(block)? {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ => Err(self.input.truncated("a header")),
        }
    }

    fn start_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = padding(size);
    }

    /// The data of an extension header.
    fn extension(&mut self, raw: &Raw, offset: u64) -> Result<Vec<u8>, Error> {
        let size = u64::try_from(raw.size).map_err(|_| Error::Number { offset, field: "size" })?;
        if size > EXTENSION_LIMIT {
            return Err(Error::ExtensionTooLong { offset });
        }
        self.start_data(size);
        let mut data = vec![0; size as usize];
        let got = self.input.fill(&mut data)?;
        if got < data.len() {
            return Err(self.input.truncated("an extension header"));
        }
        self.remaining = 0;
        Ok(data)
    }

    fn member(
        &mut self,
        mut raw: Raw,
        block: &Block,
        records: &Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Header, Error> {
        let offset = self.input.offset;
        records.apply(&mut raw, offset)?;
        let until_nul = |data: Vec<u8>| header::string(&data).to_vec();
        if let Some(name) = long_name.map(until_nul).filter(|name| !name.is_empty()) {
            raw.path = name;
        }
        if let Some(link) = long_link.map(until_nul).filter(|link| !link.is_empty()) {
            raw.link = link;
        }
        let size =
            u64::try_from(raw.size).map_err(|_| Error::Number { offset: offset - BLOCK as u64, field: "size" })?;
        let kind = match raw.kind {
            0 if raw.path.ends_with(b"/") => Type::Directory,
            0 | b'0' | b'7' | b'S' => Type::File,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' => Type::CharDevice,
            b'4' => Type::BlockDevice,
            b'5' => Type::Directory,
            b'6' => Type::Fifo,
            other => Type::Other(other),
        };
        let has_data = matches!(kind, Type::File | Type::Other(_));
        self.start_data(if has_data { size } else { 0 });
        if kind == Type::HardLink {
            self.link_data = size;
        }
        let mut header = Header {
            size: self.remaining,
            path: raw.path,
            link: raw.link,
            kind,
            mode: raw.mode,
            uid: raw.uid,
            gid: raw.gid,
            mtime: raw.mtime,
            major: raw.major,
            minor: raw.minor,
            xattrs: records.xattrs(offset)?,
        };
        let map = if raw.kind == b'S' { Some(self.old_gnu_map(block)?) } else { self.pax_map(records, &mut header)? };
        if let Some(map) = map {
            if kind != Type::File {
                return Err(Error::Sparse { offset, what: "member is not a file" });
            }
            map.check(self.remaining, offset)?;
            header.size = map.size;
            self.sparse = Some(map);
        }
        Ok(header)
    }

    /// The map of a member of type `S`: four pieces in its header, more in blocks that follow.
    fn old_gnu_map(&mut self, block: &Block) -> Result<Map, Error> {
        let offset = self.input.offset;
        if header::format(block) != header::Format::Gnu {
            return Err(Error::Sparse { offset, what: "type S in an archive that is not GNU's" });
        }
        let mut map = Map::new(header::number(&block[483..495]), offset)?;
        map.push_old_gnu(&block[386..482], offset)?;
        let mut more = block[482] != 0;
        let mut total = BLOCK as u64;
        while more {
            let mut extension = [0; BLOCK];
            if !self.read_block(&mut extension)? {
                return Err(self.input.truncated("a sparse map"));
            }
            total += BLOCK as u64;
            if total > EXTENSION_LIMIT {
                return Err(Error::ExtensionTooLong { offset });
            }
            map.push_old_gnu(&extension[..504], offset)?;
            more = extension[504] != 0;
        }
        Ok(map)
    }

    /// The map of a PAX sparse member, version 0.0, 0.1 (in the records) or 1.0 (before the data).
    fn pax_map(&mut self, records: &Records, header: &mut Header) -> Result<Option<Map>, Error> {
        let offset = self.input.offset;
        let Some(version) = records.sparse_version() else {
            return Ok(None);
        };
        if let Some(name) = records.get(b"GNU.sparse.name") {
            header.path = name.to_vec();
        }
        let size = match records.sparse_size() {
            Some(size) => pax::number(size),
            None => i64::try_from(header.size).ok(),
        };
        let mut map = Map::new(size, offset)?;
        match version {
            pax::SparseVersion::InRecords => map.parse_records(records, offset)?,
            pax::SparseVersion::InData => {
                let mut tokens = sparse::Tokens::default();
                while !tokens.is_complete(offset)? {
                    if self.remaining < BLOCK as u64 {
                        return Err(Error::Sparse { offset, what: "map is longer than the data" });
                    }
                    if tokens.len() as u64 >= EXTENSION_LIMIT {
                        return Err(Error::ExtensionTooLong { offset });
                    }
                    let mut block = [0; BLOCK];
                    if self.input.fill(&mut block)? < BLOCK {
                        return Err(self.input.truncated("a sparse map"));
                    }
                    self.remaining -= BLOCK as u64;
                    tokens.feed(&block);
                }
                tokens.fill(&mut map, offset)?;
            }
        }
        Ok(Some(map))
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut wanted = (buffer.len() as u64).min(self.remaining);
        if let Some(map) = &mut self.sparse {
            match map.next_piece(buffer.len()) {
                sparse::Piece::End => return Ok(0),
                sparse::Piece::Hole(length) => {
                    buffer[..length].fill(0);
                    map.position += length as u64;
                    return Ok(length);
                }
                sparse::Piece::Data(length) => wanted = wanted.min(length as u64),
            }
        }
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..wanted as usize])?;
        if got == 0 {
            return Err(self.input.truncated("a member's data"));
        }
        self.remaining -= got as u64;
        if let Some(map) = &mut self.sparse {
            map.position += got as u64;
        }
        Ok(got)
    }
}

fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// The current member's data. The error behind an `io::Error` of it: [`Archive::take_failure`].
pub struct Data<'a, R, F = ()> {
    archive: &'a mut Archive<R, F>,
}

impl<R: Read, F: Framing> Read for Data<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read_data(buffer).map_err(|error| {
            let told = io::Error::other(error.to_string());
            self.archive.failure = Some(error);
            self.archive.ended = true;
            told
        })
    }
}

struct Input<R, F> {
    reader: BufReader<R>,
    offset: u64,
    limit: u64,
    framing: F,
    /// What is read now is no framing.
    aside: bool,
}

impl<R: Read, F: Framing> Input<R, F> {
    /// 0 only at the end of the stream (or for an empty buffer).
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.reader.read(buffer) {
                Ok(got) => {
                    self.offset += got as u64;
                    if !self.aside {
                        self.framing.bytes(&buffer[..got]);
                    }
                    return if self.offset > self.limit { Err(Error::TooLong { limit: self.limit }) } else { Ok(got) };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read { offset: self.offset, source });
                }
            }
        }
    }

    /// As many bytes as there are, up to the buffer's length.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }

    /// Returns how many of `count` bytes there were. Copies nothing: most of what is skipped is the padding of small
    /// files, and there is much of it.
    fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut skipped = 0;
        while skipped < count {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Read { offset: self.offset, source });
                }
            };
            if buffer.is_empty() {
                break;
            }
            let taken = (buffer.len() as u64).min(count - skipped);
            if !self.aside {
                self.framing.bytes(&buffer[..taken as usize]);
            }
            self.reader.consume(taken as usize);
            self.offset += taken;
            skipped += taken;
            if self.offset > self.limit {
                return Err(Error::TooLong { limit: self.limit });
            }
        }
        Ok(skipped)
    }

    fn truncated(&self, what: &'static str) -> Error {
        Error::Truncated { offset: self.offset, what }
    }
}
