//! An archive's members: where each one's bytes lie.
//!
//! Headers alone are read, with a jump over what lies between them, so that an archive of many GB is indexed by some
//! reads. Links are followed within the archive: `docker save` of old writes `<id>/layer.tar → ../<other>/layer.tar` for
//! a layer that two images share.

use super::Error;
use super::files::Extent;
use siforge_rootfs::tar::{Archive, Type};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// An image has a few hundred members; an archive of many images some thousand.
const MAX_MEMBERS: u64 = 100_000;
/// PATH_MAX. Longer names are no blobs and are not kept.
const MAX_NAME: usize = 4096;
const MAX_HOPS: usize = 8;
const BLOCK: u64 = 512;

#[derive(Debug)]
pub(super) struct Index {
    file: Arc<File>,
    members: HashMap<String, Member>,
}

#[derive(Debug)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// The name that it stands for.
    Link(String),
}

/// Reads a file from a position on.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Index {
    pub(super) fn read(shown: &str, file: Arc<File>) -> Result<Self, Error> {
        let io =
            |source| Error::Io { shown: shown.to_owned(), operation: "read the size of", name: "it".into(), source };
        let len = file.metadata().map_err(io)?.len();
        let (mut at, mut count, mut members) = (0, 0, HashMap::new());
        loop {
            let tar_error = |source| Error::Tar { shown: shown.to_owned(), at, source };
            // One reader for each member: what lies behind its header is jumped over.
            let mut archive = Archive::new(From { file: &file, at }, u64::MAX);
            let Some(header) = archive.next_member().map_err(tar_error)? else {
                break;
            };
            count += 1;
            if count > MAX_MEMBERS {
                let (what, max) = ("number of members", MAX_MEMBERS);
                return Err(Error::Limit { shown: shown.to_owned(), what, actual: count, max });
            }
            let name = normal(&String::from_utf8_lossy(&header.path), "");
            let Some((start, size)) = archive.data_place() else {
                let detail = "a sparse member; write the archive without --sparse".to_owned();
                return Err(Error::Unsupported { shown: shown.to_owned(), name, detail });
            };
            let offset = at + start;
            let end = offset.saturating_add(size);
            if end > len {
                return Err(Error::Truncated { shown: shown.to_owned(), name, end, len });
            }
            let link = String::from_utf8_lossy(&header.link);
            let member = match header.kind {
                Type::File => Some(Member::File { offset, size }),
                Type::HardLink => Some(Member::Link(normal(&link, ""))),
                Type::Symlink => {
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    Some(Member::Link(normal(&link, dir)))
                }
                _ => None,
            };
            at = end.next_multiple_of(BLOCK);
            // The last of a name is the one that counts.
            members.extend(member.filter(|_| header.path.len() <= MAX_NAME).map(|member| (name, member)));
        }
        Ok(Self { file, members })
    }

    pub(super) fn find(&self, shown: &str, name: &str) -> Result<Extent, Error> {
        let missing = || Error::Missing { shown: shown.to_owned(), name: crate::answer::one_line(name, &[]) };
        let mut at = normal(name, "");
        for _ in 0..=MAX_HOPS {
            match self.members.get(&at) {
                Some(Member::File { offset, size }) => {
                    return Ok(Extent { file: self.file.clone(), offset: *offset, size: *size });
                }
                Some(Member::Link(target)) => at.clone_from(target),
                _ => return Err(missing()),
            }
        }
        Err(missing())
    }
}

/// `path` seen from `dir`, without `.`, `..` and doubled slashes; what would leave the archive stays at its root.
fn normal(path: &str, dir: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let dir = if path.starts_with('/') { "" } else { dir };
    for part in dir.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
