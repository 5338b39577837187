use std::io::Read;

use crate::{ApplyError, Contents, Entry, Error, Limits, Tree, Visibility};

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
    Done { tree: Tree, warnings: Vec<Warning> },
    /// A file whose bytes were emitted turned out hidden, or one that was skipped is needed: run the whole build again
    /// with this map. The second pass over the same layers never restarts.
    Restart(Visibility),
}

/// What an image's maker may want to know; paths made printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    SymlinkReplaced { path: String },
    XattrDropped { path: String, name: String },
    More { count: u64 },
}

pub struct Merge {}

impl Merge {
    pub fn new(_limits: Limits, _known: Visibility) -> Merge {
        todo!()
    }
    pub fn apply_entries<C: Contents>(&mut self, _entries: &[Entry<'_>], _contents: &mut C) -> Result<(), ApplyError<C::Error>> {
        todo!()
    }
    pub fn apply_tar<C: Contents>(&mut self, _tar: &mut dyn Read, _contents: &mut C) -> Result<(), ApplyError<C::Error>> {
        todo!()
    }
    pub fn must_restart(&self) -> bool {
        todo!()
    }
    pub fn ensure(&mut self, _path: &[u8], _kind: Ensure, _mtime: i64) {
        todo!()
    }
    pub fn finish(self, _image_mtime: i64) -> Result<Outcome, Error> {
        todo!()
    }
}
