//! The merge of layers, topmost first.
//!
//! While a layer is read it is a tree of its own, made by the rules of extraction; at its end it is folded into the
//! merged tree below everything that is there already.
//!
//! ```text
//!   in a layer      members apply in order: a file over a directory removes it with all below, a directory over a
//!   (layer.rs)      directory takes its metadata. Parents resolve symlinks of this layer, never beyond the root.
//!                   .wh.NAME cuts NAME, .wh..wh..opq what is in its directory, for lower layers only, wherever in the tar
//!   between layers  merged tree has       layer has          result
//!   (fold.rs)       nothing               anything           visible
//!                   a file, a whiteout    anything           hidden
//!                   a directory           a directory        both; the upper one's metadata, if it has an entry
//!                   a directory           a file             hidden, and all that is lower too
//!   links           to a member of its layer: one inode. Else a *want*: the layers below are asked, one by one, what
//!   (wants.rs)      they have there; the first that has it gives the inode, the first that cuts it makes an error.
//! ```
//!
//! An inode is visible if any of its names is. Nodes once folded in stay visible, and wants go downward only, so at a
//! layer's end it is known for all of its files. But their bytes came before that, emitted by a guess; where the guess
//! was wrong, the pass ends with [`Outcome::Restart`].

mod finish;
mod fold;
mod layer;
mod member;
mod nodes;
mod wants;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use crate::tar::{Archive, Framing};
use crate::tree::{Inode, InodeId, Kind, Meta};
use crate::{ApplyError, Contents, Entry, Error, Limits, Tree, Visibility};

use layer::Layer;
use nodes::{Above, Directory, NodeId, Nodes};
use wants::Want;

/// Warnings kept of one pass; the rest is counted.
const MAX_WARNINGS: usize = 100;

/// What [`Merge::ensure`] adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensure {
    /// 0755 0:0
    Directory,
    /// An empty file, 0644 0:0
    File,
}

/// The end of a pass.
#[derive(Debug)]
pub enum Outcome {
    Done {
        tree: Tree,
        warnings: Vec<Warning>,
    },
    /// A file whose bytes were emitted turned out hidden, or one that was skipped is needed: run the whole build again
    /// with this map. The second pass over the same layers never restarts.
    Restart(Visibility),
}

/// What an image's maker may want to know; paths made printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// An upper layer has files below this path, but no entry for it, and a lower layer a symlink here.
    SymlinkReplaced { path: String },
    /// The attribute is of a namespace that images do not keep; `path` is the first that has it.
    XattrDropped { path: String, name: String },
    /// So many more than are listed.
    More { count: u64 },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::SymlinkReplaced { path } => {
                write!(f, "{path}: a directory that an upper layer implies replaces a lower layer's symlink")
            }
            Warning::XattrDropped { path, name } => {
                write!(f, "extended attribute {name} is not kept, first seen at {path}")
            }
            Warning::More { count } => write!(f, "{count} more warnings of this kind"),
        }
    }
}

/// One pass over all layers of an image, topmost first. The module's docs have the rules.
pub struct Merge {
    limits: Limits,
    known: Visibility,
    nodes: Nodes,
    root: NodeId,
    inodes: Vec<Inode>,
    /// One for each inode.
    states: Vec<State>,
    /// The regular files of each layer, in tar order.
    files: Vec<Vec<InodeId>>,
    /// Hard links whose targets are looked for in the layers to come.
    open: Vec<Want>,
    /// Inodes that stand for a want's target → the target.
    resolved: BTreeMap<InodeId, InodeId>,
    restart: bool,
    warnings: Vec<Warning>,
    warnings_left_out: u64,
    entries: u64,
    apparent_bytes: u64,
    metadata_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// A name of it is in the merged tree, or a visible want is resolved to it.
    visible: bool,
    /// Its bytes were handed on.
    emitted: bool,
}

/// A regular file whose bytes come next.
struct Offer {
    inode: InodeId,
    size: u64,
    emit: bool,
}

impl Merge {
    /// `known` is what [`Outcome::Restart`] gave, else the default.
    pub fn new(limits: Limits, known: Visibility) -> Merge {
        let mut nodes = Nodes::default();
        let root = nodes.add(Directory::body(None, Above::Free));
        Merge {
            // Ids are 32 bits, and an entry takes at most one node more than one, and an inode.
            limits: Limits { entries: limits.entries.min(1 << 30), ..limits },
            known,
            nodes,
            root,
            inodes: Vec::new(),
            states: Vec::new(),
            files: Vec::new(),
            open: Vec::new(),
            resolved: BTreeMap::new(),
            restart: false,
            warnings: Vec::new(),
            warnings_left_out: 0,
            entries: 0,
            apparent_bytes: 0,
            metadata_bytes: 0,
        }
    }

    /// Applies a layer of our own making. Like [`Merge::apply_tar`] it goes below all that was applied before: call it
    /// first to make it the topmost.
    pub fn apply_entries<C: Contents>(
        &mut self,
        entries: &[Entry<'_>],
        contents: &mut C,
    ) -> Result<(), ApplyError<C::Error>> {
        contents.begin_layer().map_err(ApplyError::Contents)?;
        let mut layer = self.begin_layer();
        for entry in entries {
            if let Some((offer, mut data)) = self.entry(&mut layer, entry)? {
                let inode = offer.emit.then_some(offer.inode);
                contents.file(inode, offer.size, &mut data).map_err(ApplyError::Contents)?;
            }
        }
        self.end_layer(layer)?;
        contents.end_layer().map_err(ApplyError::Contents)
    }

    /// Applies one layer, its uncompressed tar, which is read to the end of the stream (also behind the archive's end,
    /// so that a reader that hashes sees all of it). Layers come topmost first.
    ///
    /// After an error the merge is of no more use.
    pub fn apply_tar<C: Contents>(&mut self, tar: &mut dyn Read, contents: &mut C) -> Result<(), ApplyError<C::Error>> {
        self.apply_framed(tar, contents, ())
    }

    /// As [`Merge::apply_tar`]; `framing` sees all of the tar that `contents` is not offered.
    pub fn apply_framed<C: Contents>(
        &mut self,
        tar: &mut dyn Read,
        contents: &mut C,
        framing: impl Framing,
    ) -> Result<(), ApplyError<C::Error>> {
        contents.begin_layer().map_err(ApplyError::Contents)?;
        let mut layer = self.begin_layer();
        let mut archive = Archive::framed(tar, self.limits.tar_bytes, framing);
        while let Some(header) = archive.next_member().map_err(Error::from)? {
            let Some(offer) = self.member(&mut layer, header)? else {
                continue;
            };
            let inode = offer.emit.then_some(offer.inode);
            archive.keep_aside(offer.size);
            let result = contents.file(inode, offer.size, &mut archive.data());
            // Whatever the visitor made of it, the cause is here.
            if let Some(failure) = archive.take_failure() {
                return Err(Error::from(failure).into());
            }
            result.map_err(ApplyError::Contents)?;
        }
        archive.drain().map_err(Error::from)?;
        self.end_layer(layer)?;
        contents.end_layer().map_err(ApplyError::Contents)
    }

    /// True as soon as it is certain that [`Merge::finish`] will ask for a second pass: what [`Contents`] makes of the
    /// layers still to come is then thrown away, and a cheaper one may take them.
    pub fn must_restart(&self) -> bool {
        self.restart
    }

    /// After all layers: makes sure that something stands at `path`, with its parents (0755 0:0). What stands there
    /// already is kept, whatever it is; where a parent is a symlink or a file nothing is added.
    pub fn ensure(&mut self, path: &[u8], kind: Ensure, mtime: i64) {
        let components = crate::path::components(path);
        if components.iter().any(|name| name.len() > 255) {
            return;
        }
        let mut dir = self.root;
        for (i, name) in components.iter().enumerate() {
            let found = self.nodes.child(dir, name);
            if let Some(found) = found {
                match self.nodes.get(found).body {
                    nodes::Body::Nothing => {}
                    nodes::Body::Directory(_) => {
                        dir = found;
                        continue;
                    }
                    nodes::Body::Leaf(_) => return,
                }
            }
            let meta = |mode| Meta { mode, mtime, ..Meta::default() };
            let body = if i + 1 == components.len() && kind == Ensure::File {
                let inode = self.add_inode(meta(0o644), Kind::File { size: 0 });
                nodes::Body::Leaf(inode)
            } else {
                Directory::body(Some(meta(0o755)), Above::Free)
            };
            dir = self.put(dir, name, body).0;
        }
    }

    fn begin_layer(&mut self) -> Layer {
        let root = self.nodes.add(Directory::body(None, Above::Merged(self.root)));
        Layer::new(root, self.wanted())
    }

    fn end_layer(&mut self, layer: Layer) -> Result<(), Error> {
        self.resolve_wants(layer.root)?;
        self.fold(layer.root);
        self.open.extend(layer.wants);
        let wrong = layer.files.iter().any(|&inode| {
            let state = self.states[inode as usize];
            state.visible != state.emitted
        });
        if wrong && self.known.is_known() {
            return Err(Error::Changed);
        }
        self.restart |= wrong;
        self.files.push(layer.files);
        Ok(())
    }

    fn add_inode(&mut self, meta: Meta, kind: Kind) -> InodeId {
        let id = self.inodes.len() as InodeId;
        self.inodes.push(Inode { meta, kind, links: 0 });
        self.states.push(State::default());
        id
    }

    /// Sets what stands at `name`; a cut stays. True if something stood there.
    fn put(&mut self, dir: NodeId, name: &[u8], body: nodes::Body) -> (NodeId, bool) {
        if let Some(child) = self.nodes.child(dir, name) {
            self.nodes.get_mut(child).body = body;
            return (child, true);
        }
        let child = self.nodes.add(body);
        if let Some(directory) = self.nodes.directory_mut(dir) {
            directory.children.insert(name.into(), child);
        }
        (child, false)
    }

    fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.warnings_left_out += 1;
        }
    }
}
