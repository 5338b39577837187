//! A store: its root, its format, its agent group.

use crate::blobs::Blobs;
use crate::durable::{self, Link};
use crate::layout::{FORMAT, Layout};
use crate::leftovers::{self, Leftover};
use crate::{Error, layout};
use serde::{Deserialize, Serialize};
use siforge_reference::Digest;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An open store. Cheap to clone; holds no file open.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Layout,
    agent_group: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormatFile {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_group: Option<u32>,
}

impl Store {
    /// Makes a store at `root`, or completes and opens the one that is there (its agent group stays).
    ///
    /// `agent_group`: the gid of the agents, who read private artifacts and write leases. None: everything is for the owner alone
    /// (a per-user cache) or for everyone.
    pub fn init(root: &Path, agent_group: Option<u32>) -> Result<Self, Error> {
        let layout = Layout::new(root);
        let agent_group = match Self::open(root) {
            Ok(existing) => existing.agent_group,
            Err(Error::NotAStore { .. }) => agent_group,
            Err(error) => return Err(error),
        };
        durable::make_dirs(root)?;
        for directory in layout.directories() {
            durable::make_dirs(&directory)?;
        }
        if let Some(group) = agent_group {
            // Agents make their lease's temp file beside it; the sticky bit keeps them off each other's.
            let leases = layout.leases();
            std::os::unix::fs::chown(&leases, None, Some(group))
                .map_err(Error::io("give to the agent group", &leases))?;
            std::fs::set_permissions(&leases, Permissions::from_mode(0o1775))
                .map_err(Error::io("set the mode of", &leases))?;
        }
        // The format file comes last: a directory without it is no store yet.
        let temp = durable::json_temp(root, &FormatFile { format: FORMAT, agent_group }, 0o644)?;
        match temp.link(&layout.format_file())? {
            Link::Made | Link::Taken => Self::open(root),
        }
    }

    pub fn open(root: &Path) -> Result<Self, Error> {
        let layout = Layout::new(root);
        // The format number is read first and by itself: a newer store may have another shape altogether.
        match durable::read_json::<FormatFile>(&layout.format_file(), layout::FORMAT_FILE_LIMIT, FORMAT) {
            Ok(Some(file)) => Ok(Self { layout, agent_group: file.agent_group }),
            Ok(None) => Err(Error::NotAStore { root: root.to_owned() }),
            Err(Error::FileFormat { found, .. }) => Err(Error::StoreFormat { root: root.to_owned(), found }),
            Err(error) => Err(error),
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    pub fn agent_group(&self) -> Option<u32> {
        self.agent_group
    }

    /// The store's layer cache.
    pub fn blobs(&self) -> Result<Blobs, Error> {
        Blobs::at(&self.layout.blobs())
    }

    /// The artifacts that are there, each with its path. A listing: what appears or goes meanwhile may be in it or not.
    pub fn artifacts(&self) -> Result<Vec<(Digest, PathBuf)>, Error> {
        let mut found = Vec::new();
        let root = self.layout.artifacts();
        for prefix in durable::list(&root)? {
            for name in durable::list(&root.join(prefix))? {
                let digest = name.strip_suffix(".sif").and_then(|hex| format!("sha256:{hex}").parse().ok());
                found.extend(digest.map(|digest| (digest, self.layout.artifact(&digest))));
            }
        }
        Ok(found)
    }

    /// Unfinished files anywhere in the store, with what can be known of their writers from here.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let mut found = Vec::new();
        for (directory, depth) in self.layout.unfinished() {
            found.append(&mut leftovers::find(&directory, depth)?);
        }
        Ok(found)
    }

    /// Removes what dead builds of this machine left unfinished, and returns how many; and what left the layer cache long enough
    /// ago. What other machines left is told by [`Store::leftovers`] and [`Leftover::stamp`].
    pub fn sweep_dead(&self) -> Result<usize, Error> {
        crate::cache::sweep(&self.blobs()?)?;
        leftovers::remove_dead(&self.leftovers()?)
    }
}
