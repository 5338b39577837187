//! A finished layer goes below what is merged already.

use crate::path::printable;
use crate::tree::Kind;
use crate::{Merge, Warning};

use super::nodes::{Body, NodeId};

/// Two directories at one place, and the path that leads there.
struct Pair {
    merged: NodeId,
    lower: NodeId,
    path: Vec<u8>,
}

impl Merge {
    pub(super) fn fold(&mut self, layer: NodeId) {
        let mut pairs = vec![Pair { merged: self.root, lower: layer, path: Vec::new() }];
        while let Some(pair) = pairs.pop() {
            let Some(lower) = self.nodes.take_directory(pair.lower) else {
                continue;
            };
            let hidden = match self.nodes.directory_mut(pair.merged) {
                Some(merged) => {
                    merged.meta = merged.meta.take().or(lower.meta);
                    let was_opaque = merged.opaque;
                    merged.opaque |= lower.opaque;
                    was_opaque
                }
                None => true,
            };
            if hidden {
                continue;
            }
            for (name, child) in lower.children {
                self.fold_child(&pair, name, child, &mut pairs);
            }
        }
    }

    fn fold_child(&mut self, pair: &Pair, name: Box<[u8]>, child: NodeId, pairs: &mut Vec<Pair>) {
        let Some(standing) = self.nodes.child(pair.merged, &name) else {
            if let Some(merged) = self.nodes.directory_mut(pair.merged) {
                merged.children.insert(name, child);
            }
            self.show(child);
            return;
        };
        let open = !self.nodes.get(standing).cut;
        let Some(directory) = self.nodes.directory(standing).filter(|_| open) else {
            return;
        };
        let implied = directory.meta.is_none();
        let path = || [&pair.path[..], &name, b"/"].concat();
        let cut = match self.nodes.get(child).body {
            Body::Directory(_) => {
                pairs.push(Pair { merged: standing, lower: child, path: path() });
                self.nodes.get(child).cut
            }
            Body::Leaf(inode) => {
                // A want's stand-in is no symlink yet; a link to a symlink goes without the warning.
                if implied && matches!(self.inodes[inode as usize].kind, Kind::Symlink { .. }) {
                    let path = printable(&[&pair.path[..], &name].concat());
                    self.warn(Warning::SymlinkReplaced { path });
                }
                true
            }
            Body::Nothing => true,
        };
        self.nodes.get_mut(standing).cut |= cut;
    }

    /// Marks the inodes of a subtree that has just become part of the merged tree.
    fn show(&mut self, top: NodeId) {
        let mut pending = vec![top];
        while let Some(id) = pending.pop() {
            match &self.nodes.get(id).body {
                Body::Nothing => {}
                Body::Leaf(inode) => self.states[*inode as usize].visible = true,
                Body::Directory(directory) => pending.extend(directory.children.values()),
            }
        }
    }
}
