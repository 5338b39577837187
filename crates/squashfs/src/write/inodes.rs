//! From the tree to inodes and listings.

use std::collections::HashMap;

use siforge_rootfs::{Inode, InodeId, Kind, Meta, Tree};

use crate::format::{
    self, Body, IDS_MAX, InodeHeader, InodeType, LISTING_EXTRA, MetaRef, NAME_MAX, NO_FRAGMENT, SYMLINK_MAX,
};
use crate::write::Error;
use crate::write::blocks::Blocks;
use crate::write::directory::{self, Listing, Named};
use crate::write::groups::Place;
use crate::write::metadata::{MetadataCompressor, Table};
use crate::write::order::{Order, Spot};
use crate::write::xattrs::Xattrs;

/// Owners and groups; inodes hold indices.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) values: Vec<u32>,
    indices: HashMap<u32, u16>,
}

impl Ids {
    fn index(&mut self, id: u32, spot: &Spot<'_>) -> Result<u16, Error> {
        if let Some(index) = self.indices.get(&id) {
            return Ok(*index);
        }
        let count = self.values.len();
        let index = match u16::try_from(count) {
            Ok(index) if count < IDS_MAX => index,
            _ => {
                return Err(Error::Ids { path: spot.path(), count: count + 1 });
            }
        };
        self.values.push(id);
        self.indices.insert(id, index);
        Ok(index)
    }
}

/// Modification times that squashfs cannot hold.
#[derive(Default)]
struct Clamped {
    count: usize,
    first: String,
}

/// Where the contents of files are.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub(super) blocks: &'a Blocks,
    pub(super) places: &'a HashMap<InodeId, Place>,
}

/// The inode and the directory table as they grow.
pub(super) struct Inodes<'a> {
    tree: &'a Tree,
    order: &'a Order,
    data: Data<'a>,
    pub(super) inodes: Table,
    pub(super) directories: Table,
    pub(super) ids: Ids,
    pub(super) xattrs: Xattrs,
    /// Where each inode is, by its number - 1; None until it is written.
    references: Vec<Option<MetaRef>>,
    /// Listings whose directory's inode is not yet written.
    listings: HashMap<InodeId, Listing>,
    clamped: Clamped,
    scratch: Vec<u8>,
}

impl<'a> Inodes<'a> {
    pub(super) fn new(tree: &'a Tree, order: &'a Order, data: Data<'a>) -> Self {
        Self {
            tree,
            order,
            data,
            inodes: Table::default(),
            directories: Table::default(),
            ids: Ids::default(),
            xattrs: Xattrs::default(),
            references: vec![None; order.count as usize],
            listings: HashMap::new(),
            clamped: Clamped::default(),
            scratch: Vec::new(),
        }
    }

    /// Adds all inodes and listings; the root's place.
    pub(super) fn add_all(&mut self, compressor: &mut MetadataCompressor) -> Result<MetaRef, Error> {
        let order = self.order;
        for directory in &order.directories {
            self.add_children(*directory, compressor)?;
        }
        let root = self.tree.root();
        self.add_inode(root, self.spot(root, b""), compressor)
    }

    /// Where each inode is, in the order of their numbers.
    pub(super) fn references(&self) -> impl Iterator<Item = MetaRef> {
        // All were set by `add_all`: it goes the way on which the numbers were given.
        self.references.iter().map(|reference| reference.unwrap_or_default())
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let clamped = (self.clamped.count > 0).then(|| {
            format!(
                "{} modification times outside 1970 to 2106 were moved to the nearest one that squashfs can hold (first: {})",
                self.clamped.count, self.clamped.first
            )
        });
        clamped.into_iter().chain(self.xattrs.warning()).collect()
    }

    fn spot<'n>(&self, directory: InodeId, name: &'n [u8]) -> Spot<'n>
    where
        'a: 'n,
    {
        Spot { tree: self.tree, order: self.order, directory, name }
    }

    /// Adds the inodes of a directory's children and its listing. The directories below were added before.
    fn add_children(&mut self, directory: InodeId, compressor: &mut MetadataCompressor) -> Result<(), Error> {
        let tree = self.tree;
        let children = tree.children(directory);
        let mut entries = Vec::with_capacity(children.len());
        let mut previous: &[u8] = b"";
        for (name, child) in children {
            let spot = self.spot(directory, name);
            check_name(name, &spot)?;
            if **name <= *previous {
                return Err(Error::Unsorted { path: spot.path() });
            }
            previous = name;
            let number = self.order.number(*child);
            let inode = match self.references[number as usize - 1] {
                Some(inode) => inode,
                None => self.add_inode(*child, spot, compressor)?,
            };
            entries.push(Named { name, inode, number, kind: inode_type(&tree.inode(*child).kind) });
        }
        let listing = directory::append(&entries, &mut self.directories, compressor)?;
        let listing = listing.ok_or_else(|| Error::DirectoryTooLarge { path: self.spot(directory, b"").path() })?;
        self.listings.insert(directory, listing);
        Ok(())
    }

    fn add_inode(
        &mut self,
        id: InodeId,
        spot: Spot<'_>,
        compressor: &mut MetadataCompressor,
    ) -> Result<MetaRef, Error> {
        let tree = self.tree;
        let inode = tree.inode(id);
        let header = self.header(&inode.meta, self.order.number(id), &spot)?;
        let xattrs = self.xattrs.add(&inode.meta.xattrs, &spot, compressor)?;
        // Every directory's listing was written before its inode.
        let listing = self.listings.remove(&id);
        let body = match &inode.kind {
            Kind::Directory => Body::Directory(self.directory(id, listing.as_ref(), xattrs)),
            Kind::File { size } => Body::File(self.file(id, inode, *size, xattrs, &spot)?),
            Kind::Symlink { target } if target.is_empty() || target.len() > SYMLINK_MAX => {
                return Err(Error::SymlinkTarget { path: spot.path(), len: target.len() });
            }
            Kind::Symlink { target } => Body::Symlink { links: inode.links, target, xattrs },
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let (major, minor) = (*major, *minor);
                let rdev = format::encode_device(major, minor);
                let rdev = rdev.ok_or_else(|| Error::Device { path: spot.path(), major, minor })?;
                Body::Device { kind: inode_type(&inode.kind), links: inode.links, rdev, xattrs }
            }
            Kind::Fifo | Kind::Socket => Body::Ipc { kind: inode_type(&inode.kind), links: inode.links, xattrs },
        };
        let reference = self.inodes.position();
        self.scratch.clear();
        header.encode(&body, &mut self.scratch);
        self.inodes.append(&self.scratch, compressor)?;
        self.references[header.number as usize - 1] = Some(reference);
        Ok(reference)
    }

    fn header(&mut self, meta: &Meta, number: u32, spot: &Spot<'_>) -> Result<InodeHeader, Error> {
        let mtime = meta.mtime.clamp(0, i64::from(u32::MAX));
        if mtime != meta.mtime {
            if self.clamped.count == 0 {
                self.clamped.first = spot.path();
            }
            self.clamped.count += 1;
        }
        Ok(InodeHeader {
            mode: meta.mode & 0o7777,
            uid_index: self.ids.index(meta.uid, spot)?,
            gid_index: self.ids.index(meta.gid, spot)?,
            mtime: mtime as u32,
            number,
        })
    }

    fn directory<'l>(&self, id: InodeId, listing: Option<&'l Listing>, xattrs: u32) -> format::Directory<'l> {
        let is_directory = |child: InodeId| matches!(self.tree.inode(child).kind, Kind::Directory);
        let below = self.tree.children(id).iter().filter(|(_, child)| is_directory(*child)).count();
        format::Directory {
            listing: listing.map_or(MetaRef::default(), |listing| listing.start),
            size: listing.map_or(LISTING_EXTRA, |listing| listing.size),
            // Inode ids are u32, and two of them are not below: the root and a file at least, else the sum is small.
            links: (below as u32).saturating_add(2),
            parent: self.order.parent_number(id),
            xattrs,
            index: listing.map_or(&[], |listing| &listing.index),
        }
    }

    fn file(
        &self,
        id: InodeId,
        inode: &Inode,
        size: u64,
        xattrs: u32,
        spot: &Spot<'_>,
    ) -> Result<format::File<'a>, Error> {
        let mut file = format::File {
            start: 0,
            size,
            sparse: 0,
            links: inode.links,
            fragment: NO_FRAGMENT,
            fragment_offset: 0,
            xattrs,
            blocks: &[],
        };
        let found = match (self.data.blocks.extent(id), self.data.places.get(&id)) {
            (Some(extent), _) => {
                file.start = extent.start;
                file.sparse = extent.sparse;
                file.blocks = self.data.blocks.sizes(extent);
                extent.size
            }
            (None, Some(place)) => {
                file.fragment = place.fragment;
                file.fragment_offset = place.offset;
                u64::from(place.size)
            }
            (None, None) if size == 0 => 0,
            (None, None) => {
                return Err(Error::Missing { path: spot.path(), size });
            }
        };
        match found == size {
            true => Ok(file),
            false => Err(Error::Size { path: spot.path(), expected: size, found }),
        }
    }
}

fn check_name(name: &[u8], spot: &Spot<'_>) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong { path: spot.path(), len: name.len() });
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(Error::Name { path: spot.path(), name });
    }
    Ok(())
}

fn inode_type(kind: &Kind) -> InodeType {
    match kind {
        Kind::Directory => InodeType::Directory,
        Kind::File { .. } => InodeType::File,
        Kind::Symlink { .. } => InodeType::Symlink,
        Kind::CharDevice { .. } => InodeType::CharDevice,
        Kind::BlockDevice { .. } => InodeType::BlockDevice,
        Kind::Fifo => InodeType::Fifo,
        Kind::Socket => InodeType::Socket,
    }
}
