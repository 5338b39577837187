//! The walk through the image: makes every name, hands contents to the workers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::Failure;
use super::change::Changes;
use super::files::{Job, Target, create, seal, timestamps};
use crate::read::data::{Extent, Source};
use crate::read::error::printable;
use crate::read::{Body, Entry, Error, Inode, Limits, ReadDir, Reader};

/// Extents of a job: enough to outweigh the queue, few enough that a large file occupies all threads.
const JOB_EXTENTS: usize = 64;
const JOB_BYTES: usize = 2 << 20;

/// A directory's path, shared by what lies in it.
pub(super) struct Place {
    parent: Option<Arc<Place>>,
    name: Box<[u8]>,
}

impl Place {
    /// The path of a name in it, `/` first, fit for a message.
    pub(super) fn path(&self, name: &[u8]) -> String {
        let mut names = vec![name];
        let mut place = self;
        while let Some(parent) = &place.parent {
            names.push(&place.name);
            place = parent;
        }
        names.reverse();
        format!("/{}", printable(&names.join(&b'/')))
    }
}

struct Frame<'r> {
    fd: OwnedFd,
    place: Arc<Place>,
    mode: u32,
    mtime: u32,
    entries: ReadDir<'r>,
}

/// Where an inode with several names was made first.
struct Linked {
    directory: Arc<Place>,
    name: Box<[u8]>,
    left: u32,
}

/// What is left of the [`Limits`].
struct Budget {
    limits: Limits,
    stored: u64,
    entries: u64,
    blocks: u64,
    bytes: u64,
}

impl Budget {
    fn entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        match self.entries > self.limits.entries {
            true => Err(Error::TooManyEntries { max: self.limits.entries }),
            false => Ok(()),
        }
    }

    fn block(&mut self) -> Result<(), Error> {
        self.blocks += 1;
        match self.blocks > self.limits.blocks {
            true => Err(Error::TooManyBlocks { max: self.limits.blocks }),
            false => Ok(()),
        }
    }

    fn bytes(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let max = self.limits.bytes.saturating_add(self.stored.saturating_mul(Limits::RATIO));
        match self.bytes > max {
            true => Err(Error::TooManyBytes { max, stored: self.stored }),
            false => Ok(()),
        }
    }
}

pub(super) struct Walk<'r> {
    reader: &'r Reader,
    jobs: SyncSender<Job>,
    failure: &'r Failure,
    privileged: bool,
    changes: Changes,
    budget: Budget,
    /// References of directories that were entered. A second name would be a cycle or a hard link.
    entered: HashSet<u64>,
    linked: HashMap<u64, Linked>,
    stack: Vec<Frame<'r>>,
}

impl<'r> Walk<'r> {
    pub(super) fn new(reader: &'r Reader, jobs: SyncSender<Job>, failure: &'r Failure) -> Self {
        Self {
            reader,
            jobs,
            failure,
            privileged: rustix::process::geteuid().is_root(),
            changes: Changes::default(),
            budget: Budget {
                limits: reader.limits,
                stored: reader.superblock.bytes_used,
                entries: 0,
                blocks: 0,
                bytes: 0,
            },
            entered: HashSet::new(),
            linked: HashMap::new(),
            stack: Vec::new(),
        }
    }

    /// Makes everything beneath `into`; the warnings. Returns early after a worker's failure.
    pub(super) fn run(mut self, into: &Path) -> Result<Vec<String>, Error> {
        let root = Arc::new(Place { parent: None, name: Box::default() });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(into, flags, Mode::empty())
            .and_then(|fd| rustix::fs::fchmod(&fd, Mode::RWXU).map(|()| fd))
            .map_err(|errno| create("open the directory to unpack into", errno).at(|| into.display().to_string()))?;
        let start = |walk: &mut Self| walk.enter(fd, root, &walk.reader.root()?);
        start(&mut self).map_err(|error| error.at(|| "/".into()))?;
        while let Some(frame) = self.stack.last_mut() {
            if self.failure.is_set() {
                break;
            }
            match frame.entries.next() {
                Some(entry) => {
                    let place = frame.place.clone();
                    let entry = entry.map_err(|error| error.at(|| place.path(b"")))?;
                    self.entry(&place, &entry).map_err(|error| error.at(|| place.path(&entry.name)))?;
                }
                None => {
                    seal(&frame.fd, frame.mode, frame.mtime).map_err(|error| error.at(|| frame.place.path(b"")))?;
                    self.stack.pop();
                }
            }
        }
        Ok(self.changes.warnings())
    }

    /// The directory that is being filled. There is one as long as there are entries: they come out of its frame.
    fn here(&self) -> Result<&OwnedFd, Error> {
        let frame = self.stack.last().ok_or(Errno::NOENT);
        frame.map(|frame| &frame.fd).map_err(|errno| create("fill the directory", errno))
    }

    fn enter(&mut self, fd: OwnedFd, place: Arc<Place>, inode: &Inode) -> Result<(), Error> {
        if !self.entered.insert(inode.reference.0) {
            return Err(Error::DirectoryTwice);
        }
        if self.stack.len() >= self.budget.limits.depth {
            return Err(Error::TooDeep { max: self.budget.limits.depth });
        }
        self.xattrs(inode, Some(&fd))?;
        self.stack.push(Frame {
            fd,
            place,
            mode: self.changes.mode(inode, self.privileged),
            mtime: inode.mtime,
            entries: self.reader.read_dir(inode)?,
        });
        Ok(())
    }

    fn entry(&mut self, place: &Arc<Place>, entry: &Entry) -> Result<(), Error> {
        self.budget.entry()?;
        let inode = self.reader.entry_inode(entry)?;
        let several = inode.links > 1 && !matches!(inode.body, Body::Directory(_));
        if several && self.link(place, entry)? {
            return Ok(());
        }
        let name = &*entry.name;
        match &inode.body {
            Body::Directory(_) => return self.directory(place, name, &inode),
            Body::File(file) => self.file(place, name, &inode, file.size)?,
            Body::Symlink { target } => {
                self.budget.bytes(target.len())?;
                rustix::fs::symlinkat(&**target, self.here()?, name)
                    .map_err(|errno| create("make the symlink", errno))?;
                self.xattrs(&inode, None)?;
                self.touch(name, inode.mtime)?;
            }
            Body::Device { .. } => {
                self.changes.devices += 1;
                return Ok(());
            }
            Body::Fifo => self.node(name, &inode, FileType::Fifo)?,
            Body::Socket => self.node(name, &inode, FileType::Socket)?,
        }
        if several {
            self.remember(place, name, &inode)?;
        }
        Ok(())
    }

    fn directory(&mut self, place: &Arc<Place>, name: &[u8], inode: &Inode) -> Result<(), Error> {
        let here = self.here()?;
        rustix::fs::mkdirat(here, name, Mode::RWXU).map_err(|errno| create("make the directory", errno))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(here, name, flags, Mode::empty())
            // A umask may take the owner's bits.
            .and_then(|fd| rustix::fs::fchmod(&fd, Mode::RWXU).map(|()| fd))
            .map_err(|errno| create("open the directory", errno))?;
        let below = Arc::new(Place { parent: Some(place.clone()), name: name.into() });
        self.enter(fd, below, inode)
    }

    fn file(&mut self, place: &Arc<Place>, name: &[u8], inode: &Inode, size: u64) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.here()?, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| create("make the file", errno))?;
        self.xattrs(inode, Some(&fd))?;
        let target = Arc::new(Target {
            file: File::from(fd),
            directory: place.clone(),
            name: name.into(),
            mode: self.changes.mode(inode, self.privileged),
            mtime: inode.mtime,
        });
        let (mut extents, mut bytes) = (Vec::new(), 0);
        let mut written = 0;
        for extent in self.reader.extents(inode)? {
            let extent: Extent = extent?;
            self.budget.block()?;
            if extent.source == Source::Hole {
                if self.failure.is_set() {
                    return Ok(());
                }
                continue;
            }
            self.budget.bytes(extent.length)?;
            written = extent.at + extent.length as u64;
            bytes += extent.length;
            extents.push(extent);
            if extents.len() == JOB_EXTENTS || bytes >= JOB_BYTES {
                bytes = 0;
                if !self.submit(&target, &mut extents) {
                    return Ok(());
                }
            }
        }
        // A hole at the end is not written by anyone.
        if written < size {
            target.file.set_len(size).map_err(|error| create("set the file's length", error))?;
        }
        if !extents.is_empty() {
            self.submit(&target, &mut extents);
        }
        Target::release(target)
    }

    /// False when there are no workers any more.
    fn submit(&self, target: &Arc<Target>, extents: &mut Vec<Extent>) -> bool {
        let job = Job { target: target.clone(), extents: std::mem::take(extents) };
        self.jobs.send(job).is_ok() && !self.failure.is_set()
    }

    fn node(&mut self, name: &[u8], inode: &Inode, kind: FileType) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(self.changes.mode(inode, self.privileged));
        let here = self.here()?;
        rustix::fs::mknodat(here, name, kind, mode, 0).map_err(|errno| create("make the fifo or socket", errno))?;
        // Once more without the umask. No symlink can be there: nobody else reaches into this directory.
        rustix::fs::chmodat(here, name, mode, AtFlags::empty()).map_err(|errno| create("set the mode", errno))?;
        self.xattrs(inode, None)?;
        self.touch(name, inode.mtime)
    }

    fn touch(&self, name: &[u8], mtime: u32) -> Result<(), Error> {
        rustix::fs::utimensat(self.here()?, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| create("set the modification time", errno))
    }

    /// Sets `user.*` on an open file or directory; Linux allows these on nothing else.
    fn xattrs(&mut self, inode: &Inode, fd: Option<&OwnedFd>) -> Result<(), Error> {
        if inode.xattrs.is_none() {
            return Ok(());
        }
        let xattrs = self.reader.xattrs(inode)?;
        let bytes = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        self.budget.bytes(bytes.sum())?;
        for xattr in self.changes.xattrs(xattrs) {
            let set = match fd {
                Some(fd) => rustix::fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()),
                None => Err(Errno::PERM),
            };
            match set {
                Ok(()) => {}
                // No attributes at all, none so large, no room beside the inode: as file systems differ.
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::TOOBIG | Errno::RANGE | Errno::NOSPC | Errno::DQUOT) => {
                    self.changes.refused_xattrs += 1
                }
                Err(errno) => return Err(create("set an extended attribute", errno)),
            }
        }
        Ok(())
    }

    /// True if the inode exists already and has one more name now.
    fn link(&mut self, place: &Arc<Place>, entry: &Entry) -> Result<bool, Error> {
        let key = entry.reference.0;
        let Some(linked) = self.linked.get_mut(&key) else {
            return Ok(false);
        };
        linked.left = linked.left.saturating_sub(1);
        let spent = linked.left == 0;
        let (directory, name) = (linked.directory.clone(), &*linked.name.clone());
        let here = self.here()?;
        let made = if Arc::ptr_eq(&directory, place) {
            rustix::fs::linkat(here, name, here, &*entry.name, AtFlags::empty())
        } else {
            let root = self.stack.first().map_or(here, |frame| &frame.fd);
            open(root, &directory)
                .and_then(|first| rustix::fs::linkat(first, name, here, &*entry.name, AtFlags::empty()))
        };
        match made {
            Ok(()) => {
                if spent {
                    self.linked.remove(&key);
                }
                Ok(true)
            }
            // File systems have different limits; the rest of the names share another copy.
            Err(Errno::MLINK) => Ok(false),
            Err(errno) => Err(create("make the hard link", errno)),
        }
    }

    fn remember(&mut self, place: &Arc<Place>, name: &[u8], inode: &Inode) -> Result<(), Error> {
        let max = self.budget.limits.links;
        if self.linked.len() >= max {
            return Err(Error::TooManyLinks { max });
        }
        let linked = Linked { directory: place.clone(), name: name.into(), left: inode.links - 1 };
        self.linked.insert(inode.reference.0, linked);
        Ok(())
    }
}

/// A directory that was made before, reached from the root name by name.
fn open(root: impl AsFd, place: &Place) -> Result<OwnedFd, Errno> {
    let mut names = Vec::new();
    let mut next = place;
    while let Some(parent) = &next.parent {
        names.push(&*next.name);
        next = parent;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut fd = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    for name in names.into_iter().rev() {
        fd = rustix::fs::openat(&fd, name, flags, Mode::empty())?;
    }
    Ok(fd)
}
