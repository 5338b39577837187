//! Publishing: an artifact appears whole, under the name of its digest, and never changes.
//!
//! ```text
//! begin ── Pending ── (the builder writes, hashes) ── publish ── Linked ── (write_ref) ── settle ── File
//!   temp file in sif/sha256/      fsync, link to ab/<hex>.sif              re-open by name; ENOENT: link again; unlink the temp
//! ```
//!
//! A rename would replace an inode that other nodes have mounted; a link fails instead. EEXIST is success if it is our own link (a
//! lost reply, sent again) or if what is there hashes right (a double build: waste, never an error). The temp name is kept until the
//! ref is written and the artifact seen by name: between "there already" and the ref, gc may have taken the old one away.

use crate::durable::{self, Link, Temp};
use crate::{Error, Store};
use sha2::{Digest as _, Sha256};
use siforge_reference::Digest;
use std::fs::{File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read an artifact's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// 0644
    Public,
    /// 0640, group: the agents'
    Private,
}

impl Visibility {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Private => 0o640,
        }
    }
}

/// An artifact that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Pending {
    temp: Temp,
}

impl Pending {
    /// Open for reading and writing, empty.
    pub fn file(&self) -> &File {
        &self.temp.file
    }

    pub fn path(&self) -> &Path {
        self.temp.path()
    }
}

/// An artifact that has its name; the temp name is kept until [`Linked::settle`]. Dropped, the artifact stays and the temp goes.
#[derive(Debug)]
pub struct Linked {
    temp: Temp,
    digest: Digest,
    path: PathBuf,
}

impl Linked {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The artifact's path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// After the ref is written: opens the artifact by its name, links it again if gc took it away meanwhile, and ends the build.
    pub fn settle(self) -> Result<File, Error> {
        for _ in 0..TRIES {
            if let Some(file) = durable::open_existing(&self.path)? {
                return Ok(file);
            }
            durable::make_dirs(parent_of(&self.path))?;
            self.temp.link(&self.path)?;
        }
        Err(Error::Vanished { digest: self.digest })
    }
}

const TRIES: u32 = 8;

impl Store {
    /// A file to write an artifact into.
    pub fn begin(&self) -> Result<Pending, Error> {
        Ok(Pending { temp: Temp::create(&self.layout().artifacts())? })
    }

    /// Gives a complete artifact its name. `digest` and `len` are what the builder hashed and wrote.
    pub fn publish(
        &self,
        pending: Pending,
        digest: &Digest,
        len: u64,
        visibility: Visibility,
    ) -> Result<Linked, Error> {
        let Pending { temp } = pending;
        let found = temp.file.metadata().map_err(Error::io("stat", temp.path()))?.len();
        if found != len {
            return Err(Error::Length { digest: *digest, found, expected: len });
        }
        if let (Visibility::Private, Some(group)) = (visibility, self.agent_group()) {
            std::os::unix::fs::fchown(&temp.file, None, Some(group))
                .map_err(Error::io("give to the agent group", temp.path()))?;
        }
        temp.seal(visibility.mode())?;

        let path = self.layout().artifact(digest);
        durable::make_dirs(parent_of(&path))?;
        for _ in 0..TRIES {
            let link = temp.link(&path)?;
            let done = link == Link::Made || self.accept_existing(&path, digest, len, visibility)?;
            if done {
                return Ok(Linked { temp, digest: *digest, path });
            }
        }
        Err(Error::Vanished { digest: *digest })
    }

    /// Whether what has the name already is the artifact. A damaged file is moved to the trash (open handles stay valid).
    fn accept_existing(&self, path: &Path, digest: &Digest, len: u64, visibility: Visibility) -> Result<bool, Error> {
        let Some(file) = durable::open_existing(path)? else {
            return Ok(false);
        };
        let metadata = file.metadata().map_err(Error::io("stat", path))?;
        if metadata.len() == len && hash(&file, path)? == *digest {
            // Widened here, narrowed only by whoever knows all refs of the digest.
            if visibility == Visibility::Public && metadata.mode() & 0o7777 != Visibility::Public.mode() {
                file.set_permissions(Permissions::from_mode(Visibility::Public.mode()))
                    .map_err(Error::io("set the mode of", path))?;
            }
            return Ok(true);
        }
        let trash = self.layout().trash().join(format!(
            "{}.damaged{}",
            digest.hex(),
            crate::writer::Writer::current().temp_name()
        ));
        match std::fs::rename(path, &trash) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("move to the trash", path)(error))
            }
            _ => Ok(false),
        }
    }

    /// Opens an artifact; None if it is not (or no longer) there.
    pub fn open_artifact(&self, digest: &Digest) -> Result<Option<File>, Error> {
        durable::open_existing(&self.layout().artifact(digest))
    }

    /// Sets who may read an artifact; false if it is not there. Narrowing needs the knowledge that no other ref is public.
    pub fn set_visibility(&self, digest: &Digest, visibility: Visibility) -> Result<bool, Error> {
        let path = self.layout().artifact(digest);
        let Some(file) = durable::open_existing(&path)? else {
            return Ok(false);
        };
        if let (Visibility::Private, Some(group)) = (visibility, self.agent_group()) {
            std::os::unix::fs::fchown(&file, None, Some(group)).map_err(Error::io("give to the agent group", &path))?;
        }
        file.set_permissions(Permissions::from_mode(visibility.mode())).map_err(Error::io("set the mode of", &path))?;
        Ok(true)
    }
}

fn hash(mut file: &File, path: &Path) -> Result<Digest, Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            len => hasher.update(&buffer[..len]),
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    // Every path of the layout has a parent below the root.
    path.parent().unwrap_or(Path::new("."))
}
