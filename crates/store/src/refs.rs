//! Refs: what a name points at, since when, for whom.
//!
//! ```text
//! refs/<namespace>/<name>/
//!   7.json      made by link, never changed: the revisions are the truth
//!   8.json
//!   current     a copy of one of them, replaced by rename: a hint where to start
//! ```
//!
//! A reader takes `current` and walks on to higher revisions until there is none, so a writer that died between link and rename, or
//! two whose renames crossed, are seen right. A writer decides on the newest revision, links the next; EEXIST means that another was
//! first: read and decide again. Every revision carries the generation of its writer's leader lease; a lower one is refused, so a
//! leader that lost its lease without noticing cannot undo its successor's work. Removing writes a tombstone: a name that comes
//! back goes on counting, and no reader ever sees a revision go back.

use crate::access::{Access, Caller};
use crate::durable::{self, Link};
use crate::{Error, Store, layout};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use std::path::Path;

const FORMAT: u32 = 1;
/// Most bytes of a ref that are read: room for access lists of some ten thousand ids.
const LIMIT: u64 = 1 << 20;
/// How often a writer decides again after losing the race for a revision.
const WRITE_TRIES: u32 = 64;
/// How often a reader looks again when the file system shows an older revision than was seen before.
const READ_TRIES: u32 = 5;

/// Where an artifact came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// As the user wrote it, normalised: `docker://docker.io/godlovedc/lolcow:latest`.
    pub reference: String,
    /// The platform manifest's digest.
    pub digest: Digest,
    /// The recipe key.
    pub recipe: Digest,
    /// Version of the program that built it; not part of the image.
    pub builder_version: String,
}

/// What a writer says about a name; the revision is given when it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefContent {
    pub namespace: String,
    pub name: String,
    /// The image digest: SHA-256 of the artifact.
    pub digest: Digest,
    /// The artifact's bytes.
    pub size: u64,
    /// `linux/amd64`.
    pub platform: String,
    pub source: Provenance,
    pub access: Access,
    /// Unix seconds, as the writer's clock said; for people, never for decisions.
    pub published_at: i64,
}

/// One revision of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// From 1, without gaps except those that history limits leave.
    pub revision: u64,
    /// Of the writer's leader lease (its number of transitions); 0 where there is only one writer.
    pub generation: u64,
    #[serde(flatten)]
    pub content: RefContent,
}

impl Ref {
    /// Whether `caller` may launch it.
    pub fn allows(&self, caller: &Caller) -> bool {
        self.content.access.allows(&self.content.namespace, caller)
    }
}

impl std::ops::Deref for Ref {
    type Target = RefContent;

    fn deref(&self) -> &RefContent {
        &self.content
    }
}

/// What writing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A new revision.
    New(Ref),
    /// The newest revision says the same (but for the time): nothing was written.
    Unchanged(Ref),
}

impl Written {
    pub fn into_ref(self) -> Ref {
        match self {
            Self::New(it) | Self::Unchanged(it) => it,
        }
    }
}

/// A revision file: a ref or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Revision {
    format: u32,
    revision: u64,
    generation: u64,
    /// None: the name was removed.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    content: Option<RefContent>,
}

impl Revision {
    fn into_ref(self) -> Option<Ref> {
        let Self { revision, generation, content, .. } = self;
        content.map(|content| Ref { revision, generation, content })
    }
}

/// What a writer has to do. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Write(Box<Revision>),
    Keep,
    Refuse { found: u64 },
}

fn decide(newest: Option<&Revision>, content: Option<&RefContent>, generation: u64) -> Step {
    let next =
        |revision| Step::Write(Box::new(Revision { format: FORMAT, revision, generation, content: content.cloned() }));
    match newest {
        None if content.is_none() => Step::Keep,
        None => next(1),
        Some(newest) if newest.generation > generation => Step::Refuse { found: newest.generation },
        Some(newest) if says_the_same(newest.content.as_ref(), content) => Step::Keep,
        Some(newest) => next(newest.revision + 1),
    }
}

fn says_the_same(a: Option<&RefContent>, b: Option<&RefContent>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => *a == RefContent { published_at: a.published_at, ..b.clone() },
        _ => false,
    }
}

impl Store {
    /// Writes what a name points at, keeping `history` older revisions. Refused with [`Error::Fenced`] when a writer of a higher
    /// generation has been here.
    pub fn write_ref(&self, content: &RefContent, generation: u64, history: u32) -> Result<Written, Error> {
        self.write_revision(&content.namespace, &content.name, Some(content), generation, history)
            .map(|(revision, new)| (revision.and_then(Revision::into_ref), new))
            .and_then(|(written, new)| match (written, new) {
                (Some(it), true) => Ok(Written::New(it)),
                (Some(it), false) => Ok(Written::Unchanged(it)),
                // Content was given, so the newest revision has some: decide() never keeps a tombstone then.
                (None, _) => Err(contended(&content.namespace, &content.name)),
            })
    }

    /// Removes a name: a tombstone becomes the newest revision, older ones go. False if there was nothing.
    pub fn remove_ref(&self, namespace: &str, name: &str, generation: u64) -> Result<bool, Error> {
        self.write_revision(namespace, name, None, generation, 0).map(|(_, new)| new)
    }

    /// What a name points at now; None if it does not exist or was removed.
    pub fn read_ref(&self, namespace: &str, name: &str) -> Result<Option<Ref>, Error> {
        Ok(self.newest(&self.layout().ref_dir(namespace, name)?)?.and_then(Revision::into_ref))
    }

    /// Like [`Store::read_ref`], for a reader that has seen revision `known`: never shows an older one.
    pub fn read_ref_since(&self, namespace: &str, name: &str, known: u64) -> Result<Option<Ref>, Error> {
        let dir = self.layout().ref_dir(namespace, name)?;
        let mut found = 0;
        for tries in 0..READ_TRIES {
            if tries > 0 {
                std::thread::sleep(std::time::Duration::from_millis(20 << tries));
            }
            let newest = self.newest(&dir)?;
            found = newest.as_ref().map_or(0, |newest| newest.revision);
            if found >= known {
                return Ok(newest.and_then(Revision::into_ref));
            }
        }
        Err(Error::WentBack { namespace: namespace.to_owned(), name: name.to_owned(), found, known })
    }

    /// The revisions that are kept, newest first, tombstones left out. From a listing: on NFS it may miss the youngest.
    pub fn history(&self, namespace: &str, name: &str) -> Result<Vec<Ref>, Error> {
        let dir = self.layout().ref_dir(namespace, name)?;
        let mut numbers = list_revisions(&dir)?;
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut history = Vec::new();
        for number in numbers {
            if let Some(revision) = read_revision(&layout::revision(&dir, number))? {
                history.extend(revision.into_ref());
            }
        }
        Ok(history)
    }

    /// All names that have a directory, sorted; some may be removed ones ([`Store::read_ref`] says). From listings, which may be stale.
    pub fn list_refs(&self) -> Result<Vec<(String, String)>, Error> {
        let mut names = Vec::new();
        for namespace in durable::list(&self.layout().refs())? {
            for name in durable::list(&self.layout().refs().join(&namespace))? {
                if crate::names::check_namespace(&namespace).is_ok() && crate::names::check_name(&name).is_ok() {
                    names.push((namespace.clone(), name));
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the newest revision and whether it was written by this call.
    fn write_revision(
        &self,
        namespace: &str,
        name: &str,
        content: Option<&RefContent>,
        generation: u64,
        history: u32,
    ) -> Result<(Option<Revision>, bool), Error> {
        let dir = self.layout().ref_dir(namespace, name)?;
        for _ in 0..WRITE_TRIES {
            let newest = self.newest(&dir)?;
            match decide(newest.as_ref(), content, generation) {
                Step::Keep => return Ok((newest, false)),
                Step::Refuse { found } => {
                    let (namespace, name) = (namespace.to_owned(), name.to_owned());
                    return Err(Error::Fenced { namespace, name, found, own: generation });
                }
                Step::Write(revision) => {
                    durable::make_dirs(&dir)?;
                    if link_revision(&dir, &revision)? && self.is_newest(&dir, &revision)? {
                        replace_current(&dir, &revision)?;
                        prune(&dir, revision.revision, history)?;
                        return Ok((Some(*revision), true));
                    }
                }
            }
        }
        Err(contended(namespace, name))
    }

    /// A writer that slept between reading and linking may have linked a number that history pruning had freed: then `current` is
    /// beyond it, and its link is taken back.
    fn is_newest(&self, dir: &Path, own: &Revision) -> Result<bool, Error> {
        let current = read_revision(&layout::current(dir))?;
        if current.is_none_or(|current| current.revision < own.revision) {
            return Ok(true);
        }
        durable::remove(&layout::revision(dir, own.revision))?;
        Ok(false)
    }

    fn newest(&self, dir: &Path) -> Result<Option<Revision>, Error> {
        // Without `current` (the first writer died before its rename) the walk starts at 1.
        let mut newest = read_revision(&layout::current(dir))?;
        loop {
            let next = newest.as_ref().map_or(1, |revision| revision.revision + 1);
            let path = layout::revision(dir, next);
            match read_revision(&path)? {
                Some(revision) if revision.revision != next => {
                    let reason = format!("it says that it is revision {}", revision.revision);
                    return Err(Error::Damaged { path, reason });
                }
                Some(revision) => newest = Some(revision),
                None => return Ok(newest),
            }
        }
    }
}

fn contended(namespace: &str, name: &str) -> Error {
    Error::Contended { namespace: namespace.to_owned(), name: name.to_owned(), tries: WRITE_TRIES }
}

/// Reads a revision; one that was written for another name is refused, for its access rules are not this name's.
fn read_revision(path: &Path) -> Result<Option<Revision>, Error> {
    let revision: Option<Revision> = durable::read_json(path, LIMIT, FORMAT)?;
    let content = revision.as_ref().and_then(|revision| revision.content.as_ref());
    if let Some(RefContent { namespace, name, .. }) = content.filter(|content| !path_names(path, content)) {
        return Err(Error::Damaged {
            path: path.to_owned(),
            reason: format!("it is a revision of {namespace}/{name}"),
        });
    }
    Ok(revision)
}

/// Whether `refs/<namespace>/<name>/<file>` is the content's own.
fn path_names(path: &Path, content: &RefContent) -> bool {
    let mut parents = path.ancestors().skip(1).filter_map(Path::file_name);
    parents.next().is_some_and(|name| name == content.name.as_str())
        && parents.next().is_some_and(|namespace| namespace == content.namespace.as_str())
}

fn link_revision(dir: &Path, revision: &Revision) -> Result<bool, Error> {
    let temp = durable::json_temp(dir, revision, 0o644)?;
    Ok(temp.link(&layout::revision(dir, revision.revision))? == Link::Made)
}

fn replace_current(dir: &Path, revision: &Revision) -> Result<(), Error> {
    durable::json_temp(dir, revision, 0o644)?.rename(&layout::current(dir))
}

/// Unlinks revisions older than the newest `history` + 1.
fn prune(dir: &Path, newest: u64, history: u32) -> Result<(), Error> {
    let keep_from = newest.saturating_sub(u64::from(history));
    for number in list_revisions(dir)? {
        if number < keep_from {
            durable::remove(&layout::revision(dir, number))?;
        }
    }
    Ok(())
}

fn list_revisions(dir: &Path) -> Result<Vec<u64>, Error> {
    let names = durable::list(dir)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

#[cfg(test)]
mod tests;
