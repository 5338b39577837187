//! Listings. The kernel asks for a directory page by page, by the number of the next entry; 1 and 2 are behind `.` and
//! `..`. Where an entry of some number stands is remembered for a while, else it is counted.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use siforge_squashfs::format::InodeType;
use siforge_squashfs::read::{Body, Entry, Inode, Position, ReadDir};

use crate::files::{Files, broken};
use crate::protocol::{Fields, READ_MAX, Reply};

/// Directories that are read at a time without counting again.
const REMEMBERED: usize = 64;

/// Bytes before a name in readdirplus.
const ENTRY: usize = 128;

/// Places where readers of directories stood last: node, number of the next entry.
#[derive(Default)]
pub(crate) struct Positions(Mutex<VecDeque<(u64, u64, Position)>>);

impl Positions {
    fn take(&self, node: u64, number: u64) -> Option<Position> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|(found, next, _)| (*found, *next) == (node, number))?;
        all.remove(at).map(|(.., position)| position)
    }

    fn keep(&self, node: u64, number: u64, position: Position) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.pop_front();
        }
        all.push_back((node, number, position));
    }
}

impl Files {
    pub(crate) fn read_directory(
        &self,
        node: u64,
        mut body: Fields<'_>,
        plus: bool,
        reply: &mut Reply,
    ) -> Result<(), Errno> {
        let (_handle, mut number, size) = (body.u64()?, body.u64()?, body.u32()?);
        let mut page = Page { size: (size as usize).min(READ_MAX), plus };
        let inode = self.inode(node)?;
        let Body::Directory(directory) = &inode.body else {
            return Err(Errno::NOTDIR);
        };
        for (name, parent) in [(&b"."[..], inode.number), (b"..", directory.parent)].into_iter().skip(number as usize) {
            if !page.dot(name, parent, number + 1, reply) {
                return Ok(());
            }
            number += 1;
        }
        let mut listing = self.listing(node, &inode, number)?;
        loop {
            let position = listing.position();
            let Some(entry) = listing.next() else { return Ok(()) };
            let entry = entry.and_then(|entry| page.entry(self, &entry, number + 1, reply));
            match entry {
                Ok(true) => number += 1,
                Ok(false) => {
                    self.positions.keep(node, number, position);
                    return Ok(());
                }
                // What came before is given out; the next page begins with the error.
                Err(_) if reply.len() > 0 => return Ok(()),
                Err(error) => return Err(broken(error)),
            }
        }
    }

    fn listing(&self, node: u64, inode: &Inode, number: u64) -> Result<ReadDir<'_>, Errno> {
        if let Some(position) = self.positions.take(node, number) {
            return Ok(self.reader.read_dir_from(position));
        }
        let mut listing = self.reader.read_dir(inode).map_err(broken)?;
        for _ in 2..number {
            if listing.next().transpose().map_err(broken)?.is_none() {
                break;
            }
        }
        Ok(listing)
    }
}

struct Page {
    size: usize,
    plus: bool,
}

impl Page {
    fn fits(&self, name: &[u8], reply: &Reply) -> bool {
        let entry = if self.plus { ENTRY } else { 0 };
        reply.len() + entry + Reply::dirent_len(name) <= self.size
    }

    /// False if there is no room for it.
    fn dot(&mut self, name: &[u8], number: u32, next: u64, reply: &mut Reply) -> bool {
        if !self.fits(name, reply) {
            return false;
        }
        if self.plus {
            reply.no_entry();
        }
        reply.dirent(number.into(), next, kind(InodeType::Directory), name);
        true
    }

    fn entry(
        &mut self,
        files: &Files,
        entry: &Entry,
        next: u64,
        reply: &mut Reply,
    ) -> Result<bool, siforge_squashfs::read::Error> {
        if !self.fits(&entry.name, reply) {
            return Ok(false);
        }
        if self.plus {
            let inode = files.reader.entry_inode(entry)?;
            reply.entry(files.node(entry.reference), Some(&files.attr(&inode)));
        }
        reply.dirent(entry.number.into(), next, kind(entry.kind), &entry.name);
        Ok(true)
    }
}

/// DT_* of dirent.h.
fn kind(kind: InodeType) -> u32 {
    match kind {
        InodeType::Fifo => 1,
        InodeType::CharDevice => 2,
        InodeType::Directory => 4,
        InodeType::BlockDevice => 6,
        InodeType::File => 8,
        InodeType::Symlink => 10,
        InodeType::Socket => 12,
    }
}
