//! What layers mean, the plain way: each is extracted by itself, in order, and laid over those below, bottom up, as an
//! overlay mount does. It is slow, and has nothing in common with the merge but the rules.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Directory { path: String, mode: u16 },
    File { path: String, data: String },
    Symlink { path: String, target: String },
    Link { path: String, target: String },
    Whiteout { path: String },
    Opaque { path: String },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// None: implied.
    Directory(Option<u16>),
    Leaf(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaf {
    File(String),
    Symlink(String),
}

/// Paths without a leading slash; the root is "".
type Items = BTreeMap<String, Item>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    leaves: Vec<Leaf>,
    /// Leaves from here on are the layer's own.
    own: usize,
    merged: Items,
    layer: Items,
    whiteouts: BTreeSet<String>,
    opaques: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct Invalid;

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_string() } else { format!("{dir}/{name}") }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_below(path: &str, dir: &str) -> bool {
    dir.is_empty() && !path.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    /// Applies one member to the layer in work; without effect if it fails.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), Invalid> {
        let mut next = self.clone();
        next.try_apply(op)?;
        *self = next;
        Ok(())
    }

    fn try_apply(&mut self, op: &Op) -> Result<(), Invalid> {
        match op {
            Op::Directory { path, mode } => {
                let place = self.place(path)?;
                if !matches!(self.layer.get(&place), Some(Item::Directory(_))) {
                    self.remove(&place);
                }
                self.layer.insert(place, Item::Directory(Some(*mode)));
            }
            Op::File { path, data } => self.leaf(path, Leaf::File(data.clone()))?,
            Op::Symlink { path, target } => self.leaf(path, Leaf::Symlink(target.clone()))?,
            Op::Link { path, target } => {
                let (dir, name) = split(target);
                let target = join(&self.resolve(dir, false)?, name);
                let item = self.layer.get(&target).or_else(|| self.merged.get(&target)).cloned();
                let Some(Item::Leaf(leaf)) = item else {
                    return Err(Invalid);
                };
                let place = self.place(path)?;
                self.remove(&place);
                self.layer.insert(place, Item::Leaf(leaf));
            }
            Op::Whiteout { path } => {
                let place = self.place(path)?;
                self.whiteouts.insert(place);
            }
            Op::Opaque { path } => {
                let place = self.resolve(path, true)?;
                self.opaques.insert(place);
            }
        }
        Ok(())
    }

    fn leaf(&mut self, path: &str, leaf: Leaf) -> Result<(), Invalid> {
        let place = self.place(path)?;
        self.remove(&place);
        self.leaves.push(leaf);
        self.layer.insert(place, Item::Leaf(self.leaves.len() - 1));
        Ok(())
    }

    fn place(&mut self, path: &str) -> Result<String, Invalid> {
        let (dir, name) = split(path);
        Ok(join(&self.resolve(dir, true)?, name))
    }

    fn remove(&mut self, place: &str) {
        self.layer.retain(|path, _| path != place && !is_below(path, place));
        self.whiteouts.retain(|path| !is_below(path, place));
        self.opaques.retain(|path| path != place && !is_below(path, place));
    }

    fn resolve(&mut self, path: &str, create: bool) -> Result<String, Invalid> {
        let mut todo: Vec<String> = path.split('/').rev().map(String::from).collect();
        let mut at = String::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    at = split(&at).0.to_string();
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &name);
            match self.layer.get(&next) {
                Some(Item::Directory(_)) => at = next,
                // What a link of this layer takes from a lower one is not known to it, not even that it is a symlink.
                Some(Item::Leaf(leaf)) if *leaf < self.own => return Err(Invalid),
                Some(Item::Leaf(leaf)) => {
                    let Leaf::Symlink(target) = self.leaves[*leaf].clone() else {
                        return Err(Invalid);
                    };
                    links += 1;
                    if links > 40 {
                        return Err(Invalid);
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    todo.extend(target.split('/').rev().map(String::from));
                }
                None => {
                    if create {
                        self.layer.insert(next.clone(), Item::Directory(None));
                    }
                    at = next;
                }
            }
        }
        Ok(at)
    }

    pub(crate) fn end_layer(&mut self) {
        self.own = self.leaves.len();
        for place in std::mem::take(&mut self.whiteouts) {
            self.merged.retain(|path, _| *path != place && !is_below(path, &place));
        }
        for place in std::mem::take(&mut self.opaques) {
            self.merged.retain(|path, _| !is_below(path, &place));
        }
        for (place, item) in std::mem::take(&mut self.layer) {
            match (&item, self.merged.get(&place)) {
                (Item::Directory(None), Some(Item::Directory(_))) => {}
                (Item::Directory(_), Some(Item::Directory(_))) => {
                    self.merged.insert(place, item);
                }
                _ => {
                    self.merged.retain(|path, _| !is_below(path, &place));
                    self.merged.insert(place, item);
                }
            }
        }
    }

    /// As `Image::text` has it.
    pub(crate) fn text(&self) -> String {
        let mut first = BTreeMap::<usize, String>::new();
        let word = |(path, item): (&String, &Item)| match item {
            Item::Directory(None | Some(0o755)) => format!("{path}/"),
            Item::Directory(Some(mode)) => format!("{path}/:{mode:o}"),
            Item::Leaf(leaf) => match first.get(leaf) {
                Some(earlier) => format!("{path}~{earlier}"),
                None => {
                    first.insert(*leaf, path.clone());
                    match &self.leaves[*leaf] {
                        Leaf::File(data) => format!("{path}={data}"),
                        Leaf::Symlink(target) => format!("{path}>{target}"),
                    }
                }
            },
        };
        self.merged.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}
