//! The merged tree as it is handed on.

/// Index of an inode, `0..Tree::len()`.
pub type InodeId = u32;

/// Metadata of an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with suid, sgid and sticky: 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, floored; not yet clamped to what squashfs holds.
    pub mtime: i64,
    /// Sorted by name, each name once; names and values are bytes. Only `user.*`, `trusted.*` (without overlayfs's own)
    /// and `security.capability` come this far.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Contents were handed to [`crate::Contents::file`] under this inode's id; but an empty file that
    /// [`crate::Merge::ensure`] added was not.
    File {
        size: u64,
    },
    /// 1..=4095 bytes.
    Symlink {
        target: Vec<u8>,
    },
    /// major ≤ 0xfff, minor ≤ 0xfffff, as Linux encodes them.
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    pub meta: Meta,
    pub kind: Kind,
    /// Names that show this inode (directories: 1; not reachable: 0).
    pub links: u32,
}

/// A directory's entries, sorted by name.
type Children = Box<[(Box<[u8]>, InodeId)]>;

/// The merged tree, finished.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) inodes: Vec<Inode>,
    pub(crate) root: InodeId,
    /// Directories are the last inodes, so that this table needs no keys: the first is `first_dir`.
    pub(crate) first_dir: InodeId,
    pub(crate) children: Vec<Children>,
}

impl Tree {
    pub fn root(&self) -> InodeId {
        self.root
    }

    /// Panics unless `id < len()`.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id as usize]
    }

    /// Sorted by unsigned byte; names are 1..=255 bytes without `/` and NUL, never `.` or `..`. Empty for what is no
    /// directory.
    pub fn children(&self, dir: InodeId) -> &[(Box<[u8]>, InodeId)] {
        match dir.checked_sub(self.first_dir) {
            Some(index) => self.children.get(index as usize).map_or(&[], |c| c),
            None => &[],
        }
    }

    /// Number of inodes; ids are `0..len()`, but hidden inodes among them are not reachable from the root.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }
}
