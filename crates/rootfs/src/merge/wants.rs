//! Hard links, also to files of lower layers.

use std::collections::HashSet;

use crate::path::{components, printable};
use crate::tree::{InodeId, Kind, Meta};
use crate::{Error, Merge};

use super::layer::{Layer, Place};
use super::nodes::{Body, NodeId};

/// A hard link whose target its own layer lacks.
#[derive(Debug)]
pub(super) struct Want {
    /// Stands for the target's inode until that is found.
    stand_in: InodeId,
    /// From the root, its own layer's symlinks resolved.
    target: Vec<u8>,
    /// The link's path as written, for errors.
    link: Vec<u8>,
}

impl Want {
    pub(super) fn unresolved(&self) -> Error {
        Error::UnresolvedLink { path: printable(&self.link), target: printable(&self.target) }
    }
}

enum Found {
    Inode(InodeId),
    Directory,
    /// The layer hides what lower ones have there.
    Cut,
    /// Ask the next lower layer.
    Lower,
}

impl Merge {
    /// The link's own metadata counts for nothing: the inode has its own (so does umoci).
    pub(super) fn hard_link(&mut self, layer: &mut Layer, path: &[u8], target: &[u8]) -> Result<(), Error> {
        if target.len() > self.limits.path_len {
            return Err(Error::PathTooLong { path: printable(path), limit: self.limits.path_len });
        }
        let to_directory = || Error::LinkToDirectory { path: printable(path), target: printable(target) };
        let mut parents = components(target);
        let name = parents.pop().ok_or_else(to_directory)?;
        let walk = self.walk(layer.root, &parents, path, false).map_err(|error| match error {
            Error::ParentNotDirectory { .. } => {
                Error::UnresolvedLink { path: printable(path), target: printable(target) }
            }
            other => other,
        })?;
        let child = walk.end(layer.root).and_then(|dir| self.nodes.child(dir, name));
        let inode = match child.map(|child| &self.nodes.get(child).body) {
            Some(&Body::Leaf(inode)) => inode,
            Some(Body::Directory(_)) => return Err(to_directory()),
            Some(Body::Nothing) | None => {
                let mut target = walk.names.iter().fold(Vec::new(), |mut joined, name| {
                    joined.extend_from_slice(name);
                    joined.push(b'/');
                    joined
                });
                target.extend_from_slice(name);
                self.keep(target.len() + path.len())?;
                let stand_in = self.add_inode(Meta::default(), Kind::Fifo);
                layer.wants.push(Want { stand_in, target, link: path.to_vec() });
                stand_in
            }
        };
        match self.locate(layer, path)? {
            Place::Child { dir, name } => self.put_leaf(layer, dir, name, inode),
            Place::Root => Err(Error::RootNotDirectory { path: printable(path), kind: "hard link" }),
        }
    }

    /// The paths that visible links want from the layer about to be read.
    pub(super) fn wanted(&self) -> HashSet<Vec<u8>> {
        let visible = self.open.iter().filter(|want| self.states[want.stand_in as usize].visible);
        visible.map(|want| want.target.clone()).collect()
    }

    /// Looks for the open wants' targets in a layer that is read to its end but not yet folded in.
    pub(super) fn resolve_wants(&mut self, root: NodeId) -> Result<(), Error> {
        for want in std::mem::take(&mut self.open) {
            match self.look_for(&want.target, root) {
                Found::Lower => self.open.push(want),
                Found::Cut => return Err(want.unresolved()),
                Found::Directory => {
                    return Err(Error::LinkToDirectory {
                        path: printable(&want.link),
                        target: printable(&want.target),
                    });
                }
                Found::Inode(inode) => {
                    self.resolved.insert(want.stand_in, inode);
                    // If this is a stand-in itself, it hands on what it got when it is resolved in its turn.
                    self.states[inode as usize].visible |= self.states[want.stand_in as usize].visible;
                }
            }
        }
        Ok(())
    }

    fn look_for(&self, target: &[u8], root: NodeId) -> Found {
        let mut dir = root;
        let mut cut = false;
        let mut names = target.split(|&b| b == b'/').peekable();
        while let Some(name) = names.next() {
            let Some(directory) = self.nodes.directory(dir) else {
                return Found::Cut;
            };
            cut |= directory.opaque;
            let child = directory.children.get(name).copied();
            cut |= child.is_some_and(|child| self.nodes.get(child).cut);
            match child.map(|child| (child, &self.nodes.get(child).body)) {
                Some((_, &Body::Leaf(inode))) if names.peek().is_none() => {
                    return Found::Inode(inode);
                }
                // A file cannot be a parent, and a symlink of a lower layer is none for a path of an upper one: an
                // upper layer's directory would replace it.
                Some((_, Body::Leaf(_))) => return Found::Cut,
                Some((_, Body::Directory(_))) if names.peek().is_none() => return Found::Directory,
                Some((child, Body::Directory(_))) => dir = child,
                Some((_, Body::Nothing)) | None => break,
            }
        }
        if cut { Found::Cut } else { Found::Lower }
    }
}
