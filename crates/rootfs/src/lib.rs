//! OCI layers → one merged tree. File contents go to a visitor while the tar is read.
//!
//! Layers are applied from the topmost down, so that what is hidden is known before its bytes are met.

use std::io::Read;

pub type InodeId = u32;

/// Metadata of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with suid, sgid and sticky: 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, floored; not yet clamped to what squashfs holds.
    pub mtime: i64,
    /// Sorted by name; names and values are bytes (`user.x`, `trusted.x`, `security.capability`, …).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Contents were handed to [`Contents::file`] under this inode's id.
    File { size: u64 },
    Symlink { target: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

#[derive(Clone, Debug)]
pub struct Inode { pub meta: Meta, pub kind: Kind, /** names that show this inode (directories: 1) */ pub links: u32 }

/// The merged tree, finished. `children(dir)` is sorted by unsigned byte.
pub struct Tree { /* … */ }
impl Tree {
    pub fn root(&self) -> InodeId { todo!() }
    pub fn inode(&self, _id: InodeId) -> &Inode { todo!() }
    pub fn children(&self, _dir: InodeId) -> &[(Box<[u8]>, InodeId)] { todo!() }
    /// Number of inodes; ids are 0..len but ids of hidden inodes are not reachable from the root.
    pub fn len(&self) -> usize { todo!() }
}

/// Takes file contents in tar order, layer by layer, topmost layer first.
///
/// Every regular file of the layer is offered, also hidden ones (`inode` is None): what decides the image's
/// bytes includes the layer's complete list.
pub trait Contents {
    type Error;
    fn begin_layer(&mut self) -> Result<(), Self::Error>;
    /// `data` yields exactly `size` bytes (sparse files expanded with zeros). An implementation may stop reading early.
    fn file(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Self::Error>;
    fn end_layer(&mut self) -> Result<(), Self::Error>;
}

// pub struct Limits { entries, apparent_bytes, path_depth, path_len, xattr_bytes … }  (Default = sane)
//
// pub struct Merge { … }                       // state of one pass over all layers, topmost first
// impl Merge {
//     pub fn new(layers: usize, limits: Limits, known: Visibility) -> Merge
//     /// entries made by us (the .singularity.d tree), the topmost layer of all
//     pub fn apply_entries<C: Contents>(&mut self, entries: &[Entry<'_>], contents: &mut C) -> Result<(), Error<C::Error>>
//     /// one OCI layer's uncompressed tar; must be called topmost first
//     pub fn apply_tar<C: Contents>(&mut self, tar: &mut dyn Read, contents: &mut C) -> Result<(), Error<C::Error>>
//     /// missing directories and empty files added last (mount points); only where nothing stands
//     pub fn ensure(&mut self, path: &[u8], kind: Ensure, mtime: i64)
//     /// Ok(Outcome::Done(Tree, warnings)) or Ok(Outcome::Restart(Visibility)): something already emitted turned out
//     /// hidden (or skipped turned out needed): run the whole build again with this map; the second run never restarts.
//     pub fn finish(self, image_mtime: i64) -> Result<Outcome, Error>
// }
