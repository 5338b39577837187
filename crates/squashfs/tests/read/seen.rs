//! What a tree holds, as a value to compare: seen on disk by system calls, or in an image by the reader's calls.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siforge_squashfs::format::InodeType;
use siforge_squashfs::read::{Body, Error, Inode, Limits, Reader, unpack};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    /// Of symlinks: 0o777.
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
    pub(crate) contents: Vec<u8>,
    /// `user.*` only.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode, if this is not the first.
    pub(crate) linked: Option<PathBuf>,
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

/// A path of the tree; the root's is empty.
pub(crate) fn at<'t>(tree: &'t mut Tree, path: &str) -> &'t mut Seen {
    tree.get_mut(Path::new(path)).unwrap()
}

pub(crate) fn open(image: &Path) -> Result<Reader, Error> {
    open_limited(image, Limits::default())
}

pub(crate) fn open_limited(image: &Path, limits: Limits) -> Result<Reader, Error> {
    let file = File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    Reader::with_limits(Arc::new(file), 0, size, limits)
}

/// Unpacks into a new directory; what is there afterwards, and the warnings.
pub(crate) fn unpacked(reader: &Reader) -> (Tree, Vec<String>) {
    let into = tempfile::tempdir().unwrap();
    let done = unpack(reader, into.path()).unwrap();
    (on_disk(into.path()), done.warnings)
}

/// Fails with the first difference only: whole trees are no message.
#[track_caller]
pub(crate) fn assert_same(found: &Tree, expected: &Tree) {
    for path in expected.keys().chain(found.keys()) {
        let (found, expected) = (found.get(path), expected.get(path));
        if found == expected {
            continue;
        }
        let brief = |seen: Option<&Seen>| {
            seen.map(|seen| Seen { contents: seen.contents[..seen.contents.len().min(60)].to_vec(), ..seen.clone() })
        };
        panic!("{}:\nfound    {:?}\nexpected {:?}", path.display(), brief(found), brief(expected));
    }
}

pub(crate) fn on_disk(root: &Path) -> Tree {
    let mut paths = vec![PathBuf::new()];
    let mut tree = Tree::new();
    let mut first = HashMap::new();
    while let Some(path) = paths.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            let names = fs::read_dir(&full).unwrap();
            paths.extend(names.map(|entry| path.join(entry.unwrap().file_name())));
        }
        let (kind, contents) = match () {
            () if kind.is_dir() => ("directory", Vec::new()),
            () if kind.is_file() => ("file", fs::read(&full).unwrap()),
            () if kind.is_symlink() => {
                let target = fs::read_link(&full).unwrap();
                ("symlink", target.as_os_str().as_bytes().to_vec())
            }
            () if kind.is_fifo() => ("fifo", Vec::new()),
            () if kind.is_socket() => ("socket", Vec::new()),
            () => ("device", Vec::new()),
        };
        let seen = Seen {
            kind,
            mode: meta.mode() & 0o7777,
            mtime: meta.mtime(),
            contents,
            xattrs: xattrs(&full),
            linked: None,
        };
        first.entry(meta.ino()).or_insert_with(Vec::new).push(path.clone());
        tree.insert(path, seen);
    }
    for mut names in first.into_values() {
        names.sort();
        name_first(&mut tree, &names);
    }
    tree
}

fn name_first(tree: &mut Tree, names: &[PathBuf]) {
    for name in &names[1..] {
        tree.get_mut(name).unwrap().linked = Some(names[0].clone());
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let user = names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    user.map(|name| {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    })
    .collect()
}

/// The same by the reader's own calls. Sockets, fifos and devices included; contents of at most 64 MiB.
pub(crate) fn in_image(reader: &Reader) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    let mut first: HashMap<_, Vec<PathBuf>> = HashMap::new();
    let mut pending = vec![(PathBuf::new(), reader.root()?)];
    // A directory within itself must end as well.
    while let Some((path, inode)) = pending.pop()
        && tree.len() < 10_000
    {
        if matches!(inode.body, Body::Directory(_)) {
            for entry in reader.read_dir(&inode)? {
                let entry = entry?;
                let inode = reader.entry_inode(&entry)?;
                pending.push((path.join(OsStr::from_bytes(&entry.name)), inode));
            }
        } else {
            first.entry(inode.reference.0).or_default().push(path.clone());
        }
        tree.insert(path, see(reader, &inode)?);
    }
    for mut names in first.into_values() {
        names.sort();
        name_first(&mut tree, &names);
    }
    Ok(tree)
}

/// Takes a limited number of bytes.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.len() + data.len() > 64 << 20 {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => self.0.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn see(reader: &Reader, inode: &Inode) -> Result<Seen, Error> {
    let mut contents = Limited(Vec::new());
    let kind = match inode.kind() {
        InodeType::Directory => "directory",
        InodeType::File => {
            reader.read_file(inode, &mut contents)?;
            "file"
        }
        InodeType::Symlink => {
            contents.0 = reader.read_link(inode)?.to_vec();
            "symlink"
        }
        InodeType::Fifo => "fifo",
        InodeType::Socket => "socket",
        InodeType::BlockDevice | InodeType::CharDevice => "device",
    };
    let user = reader.xattrs(inode)?.into_iter();
    Ok(Seen {
        kind,
        mode: inode.mode.into(),
        mtime: inode.mtime.into(),
        contents: contents.0,
        xattrs: user.filter(|xattr| xattr.name.starts_with(b"user.")).map(|xattr| (xattr.name, xattr.value)).collect(),
        linked: None,
    })
}
