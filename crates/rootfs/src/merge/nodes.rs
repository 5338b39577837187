//! The nodes of the merged tree and of the layer being read, in one arena: a layer's subtree joins the merged tree by
//! its number alone. Nodes that were replaced stay in the arena until the end; what they cost is within the limits.

use std::collections::BTreeMap;

use crate::tree::{InodeId, Meta};

pub(super) type NodeId = u32;

/// A place in a tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    /// What lower layers have at this place, and below it, is hidden.
    pub(super) cut: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    /// A whiteout's place.
    Nothing,
    Directory(Box<Directory>),
    /// All else; several leaves may show one inode. What lower layers have here is hidden, with or without `cut`.
    Leaf(InodeId),
}

#[derive(Debug)]
pub(super) struct Directory {
    /// Ordered, so that all walks are.
    pub(super) children: BTreeMap<Box<[u8]>, NodeId>,
    /// None: no layer so far has an entry for it, the next lower one's counts.
    pub(super) meta: Option<Meta>,
    /// What lower layers have below this place is hidden; the directory's own metadata may still come from there.
    pub(super) opaque: bool,
    /// For directories of the layer being read.
    pub(super) above: Above,
}

/// What the layers above have at a place of the layer being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Above {
    /// Nothing: all of this is visible.
    Free,
    /// A directory of the merged tree that lower layers add to.
    Merged(NodeId),
    /// Something that hides this.
    Hidden,
}

#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    pub(super) fn add(&mut self, body: Body) -> NodeId {
        let id = self.0.len() as NodeId;
        self.0.push(Node { body, cut: false });
        id
    }

    pub(super) fn get(&self, id: NodeId) -> &Node {
        &self.0[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.0[id as usize]
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.get(id).body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.get_mut(id).body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.directory(dir)?.children.get(name).copied()
    }

    /// What the layers above have at `name` of `dir`, a directory of the layer being read.
    pub(super) fn above_child(&self, dir: NodeId, name: &[u8]) -> Above {
        let merged = match self.directory(dir).map(|directory| directory.above) {
            Some(Above::Merged(merged)) => merged,
            Some(above) => return above,
            None => return Above::Hidden,
        };
        match self.directory(merged) {
            Some(directory) if !directory.opaque => match directory.children.get(name) {
                None => Above::Free,
                Some(&child) if self.get(child).cut || self.directory(child).is_none() => Above::Hidden,
                Some(&child) => Above::Merged(child),
            },
            _ => Above::Hidden,
        }
    }

    /// Takes a directory's contents out of its node.
    pub(super) fn take_directory(&mut self, id: NodeId) -> Option<Box<Directory>> {
        match std::mem::replace(&mut self.get_mut(id).body, Body::Nothing) {
            Body::Directory(directory) => Some(directory),
            other => {
                self.get_mut(id).body = other;
                None
            }
        }
    }
}

impl Directory {
    pub(super) fn body(meta: Option<Meta>, above: Above) -> Body {
        Body::Directory(Box::new(Directory { children: BTreeMap::new(), meta, opaque: false, above }))
    }
}
