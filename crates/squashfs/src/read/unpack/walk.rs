//! The walk through the image: makes every name, hands contents to the workers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, makedev};
use rustix::io::Errno;

use super::change::{Changes, OWNER_XATTR, owner_xattr};
use super::files::{Job, Last, Target, create, seal, taken, timestamps};
use super::{Failure, Options, Owners};
use crate::read::data::{Extent, Source};
use crate::read::error::printable;
use crate::read::{Body, Entry, Error, Inode, Limits, ReadDir, Reader, Xattr};

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
    last: Last,
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
    failure: &'r Failure<'r>,
    options: Options<'r>,
    privileged: bool,
    /// Whose all is that is made here, if that is known: what is his in the image, too, needs no change of owner.
    made_by: Option<(u32, u32)>,
    changes: Changes,
    budget: Budget,
    /// References of directories that were entered. A second name would be a cycle or a hard link.
    entered: HashSet<u64>,
    linked: HashMap<u64, Linked>,
    stack: Vec<Frame<'r>>,
}

impl<'r> Walk<'r> {
    pub(super) fn new(
        reader: &'r Reader,
        jobs: SyncSender<Job>,
        failure: &'r Failure<'r>,
        options: &Options<'r>,
    ) -> Self {
        Self {
            reader,
            jobs,
            failure,
            options: *options,
            privileged: rustix::process::geteuid().is_root(),
            made_by: None,
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

    /// Makes everything beneath `into`; what differs. Returns early after a worker's failure.
    pub(super) fn run(mut self, into: &Path) -> Result<Changes, Error> {
        let root = Arc::new(Place { parent: None, name: Box::default() });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(into, flags, Mode::empty())
            .and_then(|fd| rustix::fs::fchmod(&fd, Mode::RWXU).map(|()| fd))
            .map_err(|errno| create("open the directory to unpack into", errno).at(|| into.display().to_string()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| create("look at the directory to unpack into", errno))?;
        let caller = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // A set-gid bit and the mount option grpid give files the group of their directory, and so it goes on below.
        self.made_by = Some(caller).filter(|caller| *caller == (stat.st_uid, stat.st_gid));
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
                    let name = || frame.place.path(b"");
                    seal(&frame.fd, &frame.last, self.failure, name).map_err(|error| error.at(name))?;
                    self.stack.pop();
                }
            }
        }
        Ok(self.changes)
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
        let last = self.last(inode, &fd, || place.path(b""))?;
        self.stack.push(Frame { fd, place, last, entries: self.reader.read_dir(inode)? });
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
                self.unopened(place, name, &inode)?;
            }
            Body::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                if !self.device(place, name, &inode, kind, makedev(*major, *minor))? {
                    self.changes.devices.add(|| place.path(name));
                    return Ok(());
                }
            }
            Body::Fifo => self.node(place, name, &inode, FileType::Fifo, 0)?,
            Body::Socket => self.node(place, name, &inode, FileType::Socket, 0)?,
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
        let last = self.last(inode, &fd, || place.path(name))?;
        let target = Arc::new(Target { file: File::from(fd), directory: place.clone(), name: name.into(), last });
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
        Target::release(target, self.failure)
    }

    /// False when there are no workers any more.
    fn submit(&self, target: &Arc<Target>, extents: &mut Vec<Extent>) -> bool {
        let job = Job { target: target.clone(), extents: std::mem::take(extents) };
        self.jobs.send(job).is_ok() && !self.failure.is_set()
    }

    /// False where nobody but the host's root makes devices, and where owners are not kept.
    fn device(
        &mut self,
        place: &Arc<Place>,
        name: &[u8],
        inode: &Inode,
        kind: FileType,
        number: u64,
    ) -> Result<bool, Error> {
        if self.options.owners != Owners::True {
            return Ok(false);
        }
        match self.node(place, name, inode, kind, number) {
            Ok(()) => Ok(true),
            Err(Error::Create { source, .. }) if source.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn node(
        &mut self,
        place: &Arc<Place>,
        name: &[u8],
        inode: &Inode,
        kind: FileType,
        number: u64,
    ) -> Result<(), Error> {
        let mode = self.changes.mode(inode, &self.options, self.privileged, || place.path(name));
        let mode = Mode::from_raw_mode(mode);
        let here = self.here()?;
        rustix::fs::mknodat(here, name, kind, mode, number)
            .map_err(|errno| create("make the fifo, socket or device", errno))?;
        self.unopened(place, name, inode)?;
        let here = self.here()?;
        // Once more without the umask. No symlink can be there: nobody else reaches into this directory.
        rustix::fs::chmodat(here, name, mode, AtFlags::empty()).map_err(|errno| create("set the mode", errno))?;
        // A change of mode is none of contents, so the time stays.
        Ok(())
    }

    /// Owner, attributes and time of what is not opened.
    fn unopened(&mut self, place: &Arc<Place>, name: &[u8], inode: &Inode) -> Result<(), Error> {
        let path = || place.path(name);
        if self.chown((inode.uid, inode.gid)) {
            let (uid, gid) = (Uid::from_raw(inode.uid), Gid::from_raw(inode.gid));
            rustix::fs::chownat(self.here()?, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| create("set the owner", errno))?;
        }
        if self.options.owners == Owners::Recorded && (inode.uid, inode.gid) != (0, 0) {
            self.changes.owners.add(path);
        }
        // Linux allows user.* on files and directories only, and whoever builds images sets no others here.
        for _ in self.wanted(inode, path)? {
            self.changes.refused_xattrs.add(path);
        }
        rustix::fs::utimensat(self.here()?, name, &timestamps(inode.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| create("set the modification time", errno))
    }

    /// Whether the owner is to be set.
    fn chown(&self, owner: (u32, u32)) -> bool {
        self.options.owners == Owners::True && self.made_by != Some(owner)
    }

    /// The attributes that are to be set.
    fn wanted(&mut self, inode: &Inode, path: impl Fn() -> String) -> Result<Vec<Xattr>, Error> {
        if inode.xattrs.is_none() {
            return Ok(Vec::new());
        }
        let xattrs = self.reader.xattrs(inode)?;
        let bytes = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        self.budget.bytes(bytes.sum())?;
        Ok(match self.options.owners {
            Owners::True => xattrs,
            Owners::Caller | Owners::Recorded => self.changes.xattrs(xattrs, path),
        })
    }

    /// Sets what may be set at once on an open file or directory; the rest is for its end.
    fn last(&mut self, inode: &Inode, fd: &OwnedFd, path: impl Fn() -> String) -> Result<Last, Error> {
        let mut xattrs = self.wanted(inode, &path)?;
        if self.options.owners == Owners::Recorded {
            xattrs.retain(|xattr| *xattr.name != *OWNER_XATTR.as_bytes());
            xattrs.push(owner_xattr(inode));
        }
        let (now, late): (Vec<_>, Vec<_>) = xattrs.into_iter().partition(|xattr| xattr.name.starts_with(b"user."));
        for xattr in now {
            if !taken(rustix::fs::fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty()))? {
                self.changes.refused_xattrs.add(&path);
            }
        }
        Ok(Last {
            owner: Some((inode.uid, inode.gid)).filter(|owner| self.chown(*owner)),
            mode: self.changes.mode(inode, &self.options, self.privileged, path),
            mtime: inode.mtime,
            xattrs: late,
        })
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
