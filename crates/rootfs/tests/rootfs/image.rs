//! Runs a merge as a caller does, checks what must hold for every image, and makes the tree readable.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;

use siforge_rootfs::{
    ApplyError, Contents, Entry, Error, InodeId, Kind, Limits, Merge, Outcome, Tree, Visibility, Warning,
};

/// Keeps all it is given.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) files: BTreeMap<InodeId, Vec<u8>>,
    /// Per layer, in order: emitted or not, and the bytes.
    pub(crate) layers: Vec<Vec<(bool, Vec<u8>)>>,
    open: bool,
}

impl Contents for Recorder {
    type Error = Infallible;

    fn begin_layer(&mut self) -> Result<(), Infallible> {
        assert!(!std::mem::replace(&mut self.open, true), "layer begins in a layer");
        self.layers.push(Vec::new());
        Ok(())
    }

    fn file(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Infallible> {
        assert!(self.open, "file outside of a layer");
        let mut bytes = Vec::new();
        // An error here is the merge's to report.
        if data.read_to_end(&mut bytes).is_ok() {
            assert_eq!(bytes.len() as u64, size);
        }
        if let Some(inode) = inode {
            assert!(self.files.insert(inode, bytes.clone()).is_none(), "inode {inode} offered twice");
        }
        self.layers.last_mut().expect("begun").push((inode.is_some(), bytes));
        Ok(())
    }

    fn end_layer(&mut self) -> Result<(), Infallible> {
        assert!(std::mem::replace(&mut self.open, false), "layer ends outside of a layer");
        Ok(())
    }
}

pub(crate) struct Image {
    pub(crate) tree: Tree,
    pub(crate) contents: Recorder,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) restarted: bool,
}

pub(crate) const IMAGE_TIME: i64 = 99;

pub(crate) fn layer_error(error: ApplyError<Infallible>) -> Error {
    match error {
        ApplyError::Layer(error) => error,
        ApplyError::Contents(never) => match never {},
    }
}

pub(crate) fn pass(
    entries: &[Entry<'_>],
    layers: &[&[u8]],
    limits: &Limits,
    known: Visibility,
) -> Result<(Outcome, Recorder), Error> {
    let mut contents = Recorder::default();
    let mut merge = Merge::new(limits.clone(), known);
    if !entries.is_empty() {
        merge.apply_entries(entries, &mut contents).map_err(layer_error)?;
    }
    for layer in layers.iter().rev() {
        merge.apply_tar(&mut &layer[..], &mut contents).map_err(layer_error)?;
    }
    let certain = merge.must_restart();
    let outcome = merge.finish(IMAGE_TIME)?;
    assert_eq!(certain, matches!(outcome, Outcome::Restart(_)));
    Ok((outcome, contents))
}

/// Layers come bottom first here, as people list them.
pub(crate) fn build(entries: &[Entry<'_>], layers: &[&[u8]], limits: &Limits) -> Result<Image, Error> {
    let (outcome, contents) = pass(entries, layers, limits, Visibility::default())?;
    let (tree, warnings, contents, restarted) = match outcome {
        Outcome::Done { tree, warnings } => (tree, warnings, contents, false),
        Outcome::Restart(map) => match pass(entries, layers, limits, map)? {
            (Outcome::Done { tree, warnings }, contents) => (tree, warnings, contents, true),
            (Outcome::Restart(_), _) => panic!("the second pass restarts"),
        },
    };
    let image = Image { tree, contents, warnings, restarted };
    image.check();
    Ok(image)
}

pub(crate) fn image(layers: &[&[u8]]) -> Result<Image, Error> {
    build(&[], layers, &Limits::default())
}

impl Image {
    /// Every name in the tree, without the root; depth first.
    pub(crate) fn names(&self) -> Vec<(Vec<u8>, InodeId)> {
        let mut names = Vec::new();
        let mut pending = vec![(Vec::new(), self.tree.root())];
        while let Some((path, dir)) = pending.pop() {
            for (name, inode) in self.tree.children(dir) {
                let path = [&path[..], name].concat();
                if self.tree.inode(*inode).kind == Kind::Directory {
                    pending.push(([&path[..], b"/"].concat(), *inode));
                }
                names.push((path, *inode));
            }
        }
        names.sort();
        names
    }

    pub(crate) fn find(&self, path: &str) -> InodeId {
        let found = self.names().into_iter().find(|(name, _)| name == path.as_bytes());
        found.unwrap_or_else(|| panic!("no {path} in {}", self.text())).1
    }

    /// What holds for every image.
    fn check(&self) {
        let mut links = BTreeMap::<InodeId, u32>::new();
        for (_, inode) in self.names() {
            *links.entry(inode).or_default() += 1;
        }
        for id in 0..self.tree.len() as InodeId {
            let inode = self.tree.inode(id);
            let shown = if id == self.tree.root() { 1 } else { links.get(&id).copied().unwrap_or(0) };
            assert_eq!(inode.links, shown, "links of inode {id}");
            let Kind::File { size } = inode.kind else {
                assert!(!self.contents.files.contains_key(&id), "bytes of inode {id}, no file");
                continue;
            };
            match self.contents.files.get(&id) {
                Some(bytes) => {
                    assert!(shown > 0, "bytes of hidden inode {id}");
                    assert_eq!(bytes.len() as u64, size);
                }
                // What `ensure` adds has no bytes.
                None => assert!(shown == 0 || size == 0, "no bytes of visible inode {id}"),
            }
        }
        for (path, inode) in self.names() {
            let children = self.tree.children(inode);
            assert!(children.is_sorted_by(|a, b| a.0 < b.0), "order in {path:?}");
        }
    }

    /// One word a name: `a/` directory, `a=DATA` file, `a>TARGET` symlink, `a!` device, `a|` fifo; a directory's mode
    /// unless 0755, `a~b` if `a` is the same inode as the earlier `b`.
    pub(crate) fn text(&self) -> String {
        let mut first = BTreeMap::new();
        let word = |(path, id): (Vec<u8>, InodeId)| {
            let path = String::from_utf8_lossy(&path).into_owned();
            if let Some(earlier) = first.get(&id) {
                return format!("{path}~{earlier}");
            }
            first.insert(id, path.clone());
            let inode = self.tree.inode(id);
            match &inode.kind {
                Kind::Directory if inode.meta.mode == 0o755 => format!("{path}/"),
                Kind::Directory => format!("{path}/:{:o}", inode.meta.mode),
                Kind::File { .. } => {
                    let bytes = self.contents.files.get(&id).cloned().unwrap_or_default();
                    format!("{path}={}", String::from_utf8_lossy(&bytes))
                }
                Kind::Symlink { target } => format!("{path}>{}", String::from_utf8_lossy(target)),
                Kind::CharDevice { .. } | Kind::BlockDevice { .. } => format!("{path}!"),
                Kind::Fifo => format!("{path}|"),
                Kind::Socket => format!("{path}?"),
            }
        };
        self.names().into_iter().map(word).collect::<Vec<_>>().join(" ")
    }
}
