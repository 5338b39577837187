//! The root file system of a SIF, by the hardened reader.

use super::tar::told;
use super::{Item, Kind, MAX_DEPTH, Walk};
use siforge_squashfs::read::{Body, Entry, Error, Inode, Reader};
use std::io::{self, Read};
use std::sync::Arc;

pub(super) struct Walker {
    reader: Arc<Reader>,
    /// What is still to be given of each open directory, last first, and the directory's path.
    open: Vec<(Vec<Entry>, Vec<u8>)>,
    root: Option<Inode>,
}

impl Walker {
    pub(super) fn new(reader: Arc<Reader>) -> io::Result<Self> {
        let root = reader.root().map_err(io::Error::other)?;
        Ok(Self { reader, open: Vec::new(), root: Some(root) })
    }

    fn entries(&self, inode: &Inode) -> Result<Vec<Entry>, Error> {
        let mut entries = self.reader.read_dir(inode)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        Ok(entries)
    }

    fn item(&mut self, inode: Inode, path: Vec<u8>) -> io::Result<Item> {
        let broken = |error: Error| told(&path, &error.to_string());
        let xattrs = self.reader.xattrs(&inode).map_err(broken)?;
        let (uid, gid, mode, mtime) = (inode.uid, inode.gid, inode.mode, inode.mtime);
        let several = inode.links > 1 && !matches!(inode.body, Body::Directory(_));
        let identity = several.then_some((inode.reference.0, 0));
        let kind = match &inode.body {
            Body::Directory(_) => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(told(&path, "directories are too deep"));
                }
                let entries = self.entries(&inode).map_err(broken)?;
                self.open.push((entries, path.clone()));
                Kind::Directory { opaque: false }
            }
            Body::File(file) => {
                let size = file.size;
                Kind::File { size, contents: Box::new(Contents::new(self.reader.clone(), inode)) }
            }
            Body::Symlink { target } => Kind::Symlink { target: target.to_vec() },
            Body::Device { block, major, minor } => Kind::Device { block: *block, major: *major, minor: *minor },
            Body::Fifo => Kind::Fifo,
            // A tar has none, and a socket in an image is of no use: nobody listens.
            Body::Socket => Kind::Fifo,
        };
        let xattrs = xattrs.into_iter().map(|xattr| (xattr.name, xattr.value)).collect();
        Ok(Item { path, kind, mode: mode.into(), uid, gid, mtime: mtime.into(), xattrs, inode: identity })
    }
}

impl Walk for Walker {
    fn next(&mut self) -> io::Result<Option<Item>> {
        if let Some(root) = self.root.take() {
            return self.item(root, Vec::new()).map(Some);
        }
        while let Some((entries, dir)) = self.open.last_mut() {
            let Some(entry) = entries.pop() else {
                self.open.pop();
                continue;
            };
            let separator: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            let path = [dir.as_slice(), separator, &entry.name].concat();
            let inode = self.reader.entry_inode(&entry).map_err(|error| told(&path, &error.to_string()))?;
            if matches!(inode.body, Body::Socket) {
                continue;
            }
            return self.item(inode, path).map(Some);
        }
        Ok(None)
    }
}

/// A file's bytes, a block at a time.
struct Contents {
    reader: Arc<Reader>,
    inode: Inode,
    offset: u64,
    block: Vec<u8>,
    at: usize,
}

impl Contents {
    fn new(reader: Arc<Reader>, inode: Inode) -> Self {
        Self { reader, inode, offset: 0, block: Vec::new(), at: 0 }
    }
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            self.block.resize(self.reader.superblock().block_size as usize, 0);
            let n = self.reader.read_at(&self.inode, self.offset, &mut self.block).map_err(io::Error::other)?;
            self.block.truncate(n);
            self.offset += n as u64;
            self.at = 0;
        }
        let n = buffer.len().min(self.block.len() - self.at);
        buffer[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
