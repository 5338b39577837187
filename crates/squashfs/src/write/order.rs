//! The order and the numbers of inodes.
//!
//! A directory's listing refers to its inodes, and a directory's inode to its listing, so directories are written from
//! the leaves up. A directory's children are written together, by name: they share metadata blocks, and listings need few
//! headers.
//!
//! ```text
//!  /            directories   /b/d  /b  /
//!  ├ a          inodes        c's of /b/d: x=1 │ of /b: c=2 d=3 │ of /: a=4 b=5 │ /=6
//!  └ b/
//!    ├ c
//!    └ d/x
//! ```
//!
//! An inode of several names is written where its first name in this order is.

use std::collections::HashMap;

use siforge_rootfs::{InodeId, Kind, Tree};

pub(super) struct Order {
    /// Leaves first; the root is the last.
    pub(super) directories: Vec<InodeId>,
    parents: HashMap<InodeId, InodeId>,
    /// By inode id, from 1; 0 for what the root does not reach.
    numbers: Vec<u32>,
    /// Inodes that have a number.
    pub(super) count: u32,
}

impl Order {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut parents = HashMap::new();
        let mut directories = Vec::new();
        // Directories entered, each with its children that are still to be looked at; no recursion, trees may be deep.
        let mut entered = vec![(tree.root(), tree.children(tree.root()).iter())];
        while let Some((directory, children)) = entered.last_mut() {
            match children.find(|(_, child)| matches!(tree.inode(*child).kind, Kind::Directory)) {
                Some((_, child)) => {
                    parents.insert(*child, *directory);
                    entered.push((*child, tree.children(*child).iter()));
                }
                None => {
                    directories.push(*directory);
                    entered.pop();
                }
            }
        }
        let mut order = Self { directories, parents, numbers: vec![0; tree.len()], count: 0 };
        for directory in 0..order.directories.len() {
            for (_, child) in tree.children(order.directories[directory]) {
                order.number_one(*child);
            }
        }
        order.number_one(tree.root());
        order
    }

    fn number_one(&mut self, inode: InodeId) {
        let number = &mut self.numbers[inode as usize];
        if *number == 0 {
            // Inode ids are u32, so their count is one as well.
            self.count += 1;
            *number = self.count;
        }
    }

    pub(super) fn number(&self, inode: InodeId) -> u32 {
        self.numbers[inode as usize]
    }

    /// The number in a directory's inode of what `..` is.
    pub(super) fn parent_number(&self, directory: InodeId) -> u32 {
        match self.parents.get(&directory) {
            Some(parent) => self.number(*parent),
            None => self.count.saturating_add(1),
        }
    }
}

/// A name in a directory, to be shown in messages. The root's name is empty.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) tree: &'a Tree,
    pub(super) order: &'a Order,
    pub(super) directory: InodeId,
    pub(super) name: &'a [u8],
}

impl Spot<'_> {
    pub(super) fn path(&self) -> String {
        let mut names = vec![String::from_utf8_lossy(self.name)];
        let mut directory = self.directory;
        while let Some(parent) = self.order.parents.get(&directory) {
            let entry = self.tree.children(*parent).iter().find(|(_, child)| *child == directory);
            names.push(String::from_utf8_lossy(entry.map_or(b"?", |(name, _)| name)));
            directory = *parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }
}
