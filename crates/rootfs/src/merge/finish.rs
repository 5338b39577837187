//! The end of a pass: the tree, or the map for a second pass.

use crate::tree::{Inode, InodeId, Kind, Meta, Tree};
use crate::{Error, Merge, Outcome, Visibility, Warning};

use super::nodes::Body;

impl Merge {
    /// `image_mtime`: for directories that no layer has an entry for, the root among them (0755 0:0).
    pub fn finish(mut self, image_mtime: i64) -> Result<Outcome, Error> {
        if let Some(want) = self.open.first() {
            return Err(want.unresolved());
        }
        if self.restart {
            let states = &self.states;
            let map = Visibility::from_files(&self.files, |inode| states[inode as usize].visible);
            return Ok(Outcome::Restart(map));
        }
        if self.warnings_left_out > 0 {
            self.warnings.push(Warning::More { count: self.warnings_left_out });
        }
        let warnings = std::mem::take(&mut self.warnings);
        Ok(Outcome::Done { tree: self.into_tree(image_mtime), warnings })
    }

    /// Directories get the ids behind all other inodes, breadth first, so that their number is their index.
    fn into_tree(mut self, image_mtime: i64) -> Tree {
        let first_dir = self.inodes.len() as InodeId;
        let mut directories = vec![self.root];
        let mut tables = Vec::new();
        while let Some(&node) = directories.get(tables.len()) {
            let mut table = Vec::new();
            let mut meta = None;
            if let Some(directory) = self.nodes.take_directory(node) {
                meta = directory.meta;
                table.reserve_exact(directory.children.len());
                for (name, child) in directory.children {
                    let inode = match self.nodes.get(child).body {
                        Body::Nothing => continue,
                        Body::Leaf(inode) => {
                            let inode = self.target_of(inode);
                            self.inodes[inode as usize].links += 1;
                            inode
                        }
                        Body::Directory(_) => {
                            directories.push(child);
                            first_dir + directories.len() as InodeId - 1
                        }
                    };
                    table.push((name, inode));
                }
            }
            let meta = meta.unwrap_or(Meta { mode: 0o755, mtime: image_mtime, ..Meta::default() });
            self.inodes.push(Inode { meta, kind: Kind::Directory, links: 1 });
            tables.push(table.into_boxed_slice());
        }
        Tree { inodes: self.inodes, root: first_dir, first_dir, children: tables }
    }

    /// Stand-ins lead downward from layer to layer, so this ends.
    fn target_of(&self, mut inode: InodeId) -> InodeId {
        while let Some(&next) = self.resolved.get(&inode) {
            inode = next;
        }
        inode
    }
}
