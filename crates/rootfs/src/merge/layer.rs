//! The layer being read: where its members go.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::path::{components, printable};
use crate::tree::{InodeId, Kind};
use crate::{Error, Merge};

use super::nodes::{Body, Directory, NodeId};
use super::wants::Want;

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: usize = 40;

/// Linux: NAME_MAX; squashfs has the same.
pub(super) const MAX_NAME: usize = 255;

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) root: NodeId,
    /// In tar order.
    pub(super) files: Vec<InodeId>,
    pub(super) wants: Vec<Want>,
    /// Paths that visible links of the layers above want. For the guess only, so paths as they are written will do.
    pub(super) wanted: HashSet<Vec<u8>>,
    /// The last member's parent as written, and where that is: nearly all members stand beside the one before.
    last_parent: Option<(Vec<u8>, NodeId)>,
}

impl Layer {
    pub(super) fn new(root: NodeId, wanted: HashSet<Vec<u8>>) -> Layer {
        Layer { root, files: Vec::new(), wants: Vec::new(), wanted, last_parent: None }
    }

    /// To be called when something is replaced.
    pub(super) fn forget_parent(&mut self) {
        self.last_parent = None;
    }
}

/// Where a path leads in its layer.
pub(super) enum Place<'a> {
    Root,
    Child { dir: NodeId, name: &'a [u8] },
}

/// A walk's end: from the root to the place, the root itself left out.
pub(super) struct Walk<'a> {
    pub(super) names: Vec<Cow<'a, [u8]>>,
    /// None from where the layer has nothing on.
    pub(super) nodes: Vec<Option<NodeId>>,
}

impl Walk<'_> {
    pub(super) fn end(&self, root: NodeId) -> Option<NodeId> {
        self.nodes.last().copied().unwrap_or(Some(root))
    }
}

impl Merge {
    /// Finds the place of a member, implying its parents.
    pub(super) fn locate<'a>(&mut self, layer: &mut Layer, path: &'a [u8]) -> Result<Place<'a>, Error> {
        if path.len() > self.limits.path_len {
            return Err(Error::PathTooLong {
                path: printable(&path[..200.min(path.len())]),
                limit: self.limits.path_len,
            });
        }
        let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        let start = path[..end].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = (&path[..start], &path[start..end]);
        if matches!(name, b"" | b"." | b"..") {
            // Rare, so without the memory of the last parent.
            let mut parents = components(path);
            return match parents.pop() {
                None => Ok(Place::Root),
                Some(name) => self.child_of(layer, &parents, name, path),
            };
        }
        if let Some((_, dir)) = layer.last_parent.as_ref().filter(|(last, _)| last == parent) {
            let dir = *dir;
            check_name(name, path)?;
            return Ok(Place::Child { dir, name });
        }
        let place = self.child_of(layer, &components(parent), name, path)?;
        if let Place::Child { dir, .. } = place {
            layer.last_parent = Some((parent.to_vec(), dir));
        }
        Ok(place)
    }

    fn child_of<'a>(
        &mut self,
        layer: &Layer,
        parents: &[&[u8]],
        name: &'a [u8],
        path: &[u8],
    ) -> Result<Place<'a>, Error> {
        check_name(name, path)?;
        let walk = self.walk(layer.root, parents, path, true)?;
        // With `imply` all of the walk exists.
        let dir = walk.end(layer.root).unwrap_or(layer.root);
        Ok(Place::Child { dir, name })
    }

    /// Follows `parents` within the layer, symlinks included, never above its root. What is missing becomes an implied
    /// directory, or (without `imply`) stays missing and is passed by name alone. `path` is for errors.
    pub(super) fn walk<'a>(
        &mut self,
        root: NodeId,
        parents: &[&'a [u8]],
        path: &[u8],
        imply: bool,
    ) -> Result<Walk<'a>, Error> {
        let mut walk = Walk { names: Vec::with_capacity(parents.len()), nodes: Vec::with_capacity(parents.len()) };
        let mut pending: Vec<Cow<'a, [u8]>> = parents.iter().rev().map(|&name| Cow::Borrowed(name)).collect();
        let mut symlinks = 0;
        while let Some(name) = pending.pop() {
            if *name == *b".." {
                walk.names.pop();
                walk.nodes.pop();
                continue;
            }
            let dir = walk.end(root);
            let child = dir.and_then(|dir| self.nodes.child(dir, &name));
            let next = match child.map(|child| (child, &self.nodes.get(child).body)) {
                Some((child, Body::Directory(_))) => Some(child),
                Some((_, &Body::Leaf(inode))) => {
                    let Kind::Symlink { target } = &self.inodes[inode as usize].kind else {
                        return Err(Error::ParentNotDirectory { path: printable(path), parent: printable(&name) });
                    };
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(Error::SymlinkLoop { path: printable(path) });
                    }
                    if target.starts_with(b"/") {
                        walk.names.clear();
                        walk.nodes.clear();
                    }
                    let parts = target.split(|&b| b == b'/').filter(|part| !matches!(part, [] | [b'.']));
                    pending.extend(parts.rev().map(|part| Cow::Owned(part.to_vec())));
                    continue;
                }
                Some((_, Body::Nothing)) | None => match dir {
                    Some(dir) if imply => Some(self.imply(dir, &name, path)?),
                    _ => None,
                },
            };
            walk.names.push(name);
            walk.nodes.push(next);
            if walk.nodes.len() >= self.limits.path_depth {
                return Err(Error::PathTooDeep { path: printable(path), limit: self.limits.path_depth });
            }
        }
        Ok(walk)
    }

    fn imply(&mut self, dir: NodeId, name: &[u8], path: &[u8]) -> Result<NodeId, Error> {
        check_name(name, path)?;
        self.count_entry()?;
        self.keep(name.len())?;
        let above = self.nodes.above_child(dir, name);
        Ok(self.put(dir, name, Directory::body(None, above)).0)
    }

    pub(super) fn count_entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::TooManyEntries { limit: self.limits.entries });
        }
        Ok(())
    }

    /// Counts bytes of names and the like that stay in memory.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<(), Error> {
        self.metadata_bytes = self.metadata_bytes.saturating_add(bytes as u64);
        if self.metadata_bytes > self.limits.metadata_bytes {
            return Err(Error::TooMuchMetadata { limit: self.limits.metadata_bytes });
        }
        Ok(())
    }
}

fn check_name(name: &[u8], path: &[u8]) -> Result<(), Error> {
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong { path: printable(path) });
    }
    Ok(())
}
