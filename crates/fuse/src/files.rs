//! Answers to requests, out of the image.

use rustix::fs::FileType;
use rustix::io::Errno;
use siforge_squashfs::format::{MetaRef, encode_device};
use siforge_squashfs::read::{Body, Error, Inode, Limits, Reader};

use crate::directory::Positions;
use crate::protocol::{Attr, Fields, READ_MAX, ROOT, Reply, Request, opcode};

/// Who owns the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the image says.
    Image,
    /// One for all: whoever launches from the image, who then may do with it what root could.
    All { uid: u32, gid: u32 },
}

/// The reader's limits when it serves a file system: the kernel keeps what was read, the reader only what is likely to
/// be asked for again soon, the rest of a block and the blocks that hold many small files.
pub fn limits() -> Limits {
    Limits { cache: 3 << 18, ..Limits::default() }
}

/// Attributes that only root may see by the kernel's rules.
const TRUSTED: &[u8] = b"trusted.";

pub(crate) struct Files {
    pub(crate) reader: Reader,
    owners: Owners,
    pub(crate) positions: Positions,
}

impl Files {
    pub(crate) fn new(reader: Reader, owners: Owners) -> Self {
        Self { reader, owners, positions: Positions::default() }
    }

    /// Writes the body of the answer.
    pub(crate) fn answer(&self, request: &Request<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let body = request.body;
        match request.opcode {
            opcode::LOOKUP => self.lookup(request.node, body.name()?, reply),
            opcode::GETATTR => {
                reply.attr_valid(&self.attr(&self.inode(request.node)?));
                Ok(())
            }
            opcode::READLINK => {
                let inode = self.inode(request.node)?;
                reply.bytes(self.reader.read_link(&inode).map_err(|_| Errno::INVAL)?);
                Ok(())
            }
            opcode::READ => self.read(request.node, body, reply),
            opcode::READDIR => self.read_directory(request.node, body, false, reply),
            opcode::READDIRPLUS => self.read_directory(request.node, body, true, reply),
            opcode::LSEEK => self.seek(request.node, body, reply),
            opcode::GETXATTR => self.attribute(request.node, body, reply),
            opcode::LISTXATTR => self.attributes(request.node, body, reply),
            opcode::STATFS => {
                self.statfs(reply);
                Ok(())
            }
            opcode::DESTROY => Ok(()),
            change if opcode::CHANGES.contains(&change) => Err(Errno::ROFS),
            // Open, release, flush, access, interrupt and all else: the kernel does not ask again. An interrupted
            // request is answered like any other, and soon.
            _ => Err(Errno::NOSYS),
        }
    }

    /// The root is 1 in the protocol; others are where their inodes lie, past that. No place is near 2^64.
    pub(crate) fn node(&self, reference: MetaRef) -> u64 {
        if reference == self.reader.superblock().root { ROOT } else { reference.0.wrapping_add(2) }
    }

    pub(crate) fn inode(&self, node: u64) -> Result<Inode, Errno> {
        match node.checked_sub(2) {
            Some(reference) => self.reader.inode(MetaRef(reference)).map_err(broken),
            None => self.reader.root().map_err(broken),
        }
    }

    pub(crate) fn attr(&self, inode: &Inode) -> Attr {
        let (kind, size, stored, rdev) = match &inode.body {
            Body::Directory(directory) => (FileType::Directory, directory.size(), 0, 0),
            Body::File(file) => (FileType::RegularFile, file.size, file.size.saturating_sub(file.sparse), 0),
            Body::Symlink { target } => (FileType::Symlink, target.len() as u64, 0, 0),
            Body::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                (kind, 0, 0, encode_device(*major, *minor).unwrap_or_default())
            }
            Body::Fifo => (FileType::Fifo, 0, 0, 0),
            Body::Socket => (FileType::Socket, 0, 0, 0),
        };
        let (uid, gid) = match self.owners {
            Owners::Image => (inode.uid, inode.gid),
            Owners::All { uid, gid } => (uid, gid),
        };
        Attr {
            number: inode.number.into(),
            size,
            stored,
            mtime: inode.mtime,
            mode: kind.as_raw_mode() | u32::from(inode.mode),
            links: inode.links,
            uid,
            gid,
            rdev,
            block_size: self.reader.superblock().block_size,
        }
    }

    fn lookup(&self, parent: u64, name: &[u8], reply: &mut Reply) -> Result<(), Errno> {
        let parent = self.inode(parent)?;
        if !matches!(parent.body, Body::Directory(_)) {
            return Err(Errno::NOTDIR);
        }
        match self.reader.lookup(&parent, name).map_err(broken)? {
            Some(entry) => {
                let inode = self.reader.entry_inode(&entry).map_err(broken)?;
                reply.entry(self.node(entry.reference), Some(&self.attr(&inode)));
            }
            None => reply.entry(0, None),
        }
        Ok(())
    }

    fn read(&self, node: u64, mut body: Fields<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (_handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
        let inode = self.inode(node)?;
        let size = (size as usize).min(READ_MAX);
        if let Some(part) = self.reader.read_part(&inode, offset, size).map_err(broken)? {
            reply.part(part);
            return Ok(());
        }
        let room = reply.room(size);
        let read = self.reader.read_at(&inode, offset, room).map_err(broken)?;
        reply.truncate(read);
        Ok(())
    }

    fn seek(&self, node: u64, mut body: Fields<'_>, reply: &mut Reply) -> Result<(), Errno> {
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let (_handle, offset, whence) = (body.u64()?, body.u64()?, body.u32()?);
        let hole = match whence {
            SEEK_DATA => false,
            SEEK_HOLE => true,
            _ => return Err(Errno::INVAL),
        };
        let inode = self.inode(node)?;
        let found = self.reader.seek(&inode, offset, hole).map_err(broken)?;
        reply.u64(found.ok_or(Errno::NXIO)?);
        Ok(())
    }

    fn attribute(&self, node: u64, mut body: Fields<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (size, _zero) = (body.u32()?, body.u32()?);
        let name = body.name()?;
        let found = self.xattrs(node)?.into_iter().find(|xattr| xattr.name == name);
        sized(&found.ok_or(Errno::NODATA)?.value, size, reply)
    }

    fn attributes(&self, node: u64, mut body: Fields<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let size = body.u32()?;
        let mut names = Vec::new();
        for xattr in self.xattrs(node)?.iter().filter(|xattr| !xattr.name.starts_with(TRUSTED)) {
            names.extend_from_slice(&xattr.name);
            names.push(0);
        }
        sized(&names, size, reply)
    }

    fn xattrs(&self, node: u64) -> Result<Vec<siforge_squashfs::read::Xattr>, Errno> {
        if !self.reader.has_xattrs() {
            // The kernel then answers for us.
            return Err(Errno::NOSYS);
        }
        self.reader.xattrs(&self.inode(node)?).map_err(broken)
    }

    fn statfs(&self, reply: &mut Reply) {
        let superblock = self.reader.superblock();
        let block = u64::from(superblock.block_size);
        for long in [superblock.bytes_used.div_ceil(block), 0, 0, superblock.inodes.into(), 0] {
            reply.u64(long);
        }
        for word in [superblock.block_size, 255, superblock.block_size, 0] {
            reply.u32(word);
        }
        reply.bytes(&[0; 24]);
    }
}

/// The length alone, or what fits.
fn sized(bytes: &[u8], size: u32, reply: &mut Reply) -> Result<(), Errno> {
    if size == 0 {
        reply.u32(bytes.len() as u32);
        reply.u32(0);
    } else if bytes.len() > size as usize {
        return Err(Errno::RANGE);
    } else {
        reply.bytes(bytes);
    }
    Ok(())
}

/// The image is damaged, or its file cannot be read. There is nobody to tell the details.
pub(crate) fn broken(_: Error) -> Errno {
    Errno::IO
}
