//! The files of PGP keys.
//!
//! ```text
//! ~/.apptainer/keys   0700
//!   pgp-public        0600   keys that verify
//!   pgp-secret        0600   keys that sign, mostly locked
//! /etc/apptainer/global-pgp-public     keys that verify for everybody
//! ```
//! A file is changed under a lock on its folder and replaced whole: nobody sees a half, and nobody's key is lost.

use crate::cli::KeyringOptions;
use crate::config::Config;
use crate::error::Error;
use crate::files::{self, read_limited};
use nix::fcntl::{Flock, FlockArg};
use siforge_sign::image::pgp::manage::unreadable;
use siforge_sign::image::pgp::{self, PublicKeys, SecretKeys};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// As Apptainer names them.
const PUBLIC: &str = "pgp-public";
const SECRET: &str = "pgp-secret";
/// Of keys that everybody may read, and of all others.
const SHARED: u32 = 0o644;
const PRIVATE: u32 = 0o600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Public,
    Secret,
}

/// The keyrings of one place.
pub(crate) struct Keyrings {
    public: PathBuf,
    secret: PathBuf,
    /// Everybody's.
    shared: bool,
}

/// What becomes of a keyring.
pub(crate) enum Edit<K> {
    /// The keys come to those that are there.
    Add(K),
    /// These are left.
    Only(K),
}

impl Keyrings {
    pub(crate) fn local(config: &Config, options: &KeyringOptions) -> Result<Self, Error> {
        let folder = config.keysdir(options.keysdir.as_deref())?;
        Ok(Self { public: folder.join(PUBLIC), secret: folder.join(SECRET), shared: false })
    }

    /// There are no secret keys of everybody.
    pub(crate) fn global(config: &Config) -> Self {
        Self { public: config.global_keyring.clone(), secret: "/dev/null".into(), shared: true }
    }

    pub(crate) fn path(&self, kind: Kind) -> PathBuf {
        match kind {
            Kind::Public => self.public.clone(),
            Kind::Secret => self.secret.clone(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.public.parent().unwrap_or(Path::new("."))
    }

    /// A keyring that is not there has no keys.
    pub(crate) fn public(&self) -> Result<PublicKeys, Error> {
        parsed(&self.public, &bytes(&self.public)?, PublicKeys::parse)
    }

    pub(crate) fn secret(&self) -> Result<SecretKeys, Error> {
        parsed(&self.secret, &bytes(&self.secret)?, SecretKeys::parse)
    }

    pub(crate) fn edit_public(
        &self,
        edit: impl FnOnce(PublicKeys) -> Result<Edit<PublicKeys>, Error>,
    ) -> Result<(), Error> {
        self.locked(Kind::Public, |before| match edit(parsed(&self.public, before, PublicKeys::parse)?)? {
            Edit::Add(keys) => Ok((true, keys.to_bytes())),
            Edit::Only(keys) => Ok((false, keys.to_bytes())),
        })
    }

    pub(crate) fn edit_secret(
        &self,
        edit: impl FnOnce(SecretKeys) -> Result<Edit<SecretKeys>, Error>,
    ) -> Result<(), Error> {
        self.locked(Kind::Secret, |before| match edit(parsed(&self.secret, before, SecretKeys::parse)?)? {
            Edit::Add(keys) => Ok((true, keys.to_bytes())),
            Edit::Only(keys) => Ok((false, keys.to_bytes())),
        })
    }

    /// `change` gives the keyring's new bytes, or those to be added to it.
    fn locked(
        &self,
        kind: Kind,
        change: impl FnOnce(&[u8]) -> Result<(bool, Result<Vec<u8>, pgp::manage::Error>), Error>,
    ) -> Result<(), Error> {
        let path = self.path(kind);
        let failed = |source: io::Error| Error::WriteKey { path: path.clone(), source };
        let (folder_mode, mode) = if self.shared { (0o755, SHARED) } else { (0o700, PRIVATE) };
        DirBuilder::new().recursive(true).mode(folder_mode).create(self.folder()).map_err(failed)?;
        let folder = File::open(self.folder()).map_err(failed)?;
        // Goes with the descriptor.
        let _lock = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
        let before = bytes(&path)?;
        let (add, new) = change(&before)?;
        let new = new.map_err(|source| Error::Key { source })?;
        let after = match (add, is_armored(&before)) {
            (true, _) if new.is_empty() => return Ok(()),
            // What cannot be read stays.
            (true, false) => [before, new].concat(),
            (true, true) => {
                self.refuse_loss(kind, &before)?;
                let before = match kind {
                    Kind::Public => parsed(&path, &before, PublicKeys::parse)?.to_bytes(),
                    Kind::Secret => parsed(&path, &before, SecretKeys::parse)?.to_bytes(),
                };
                [before.map_err(|source| Error::Key { source })?, new].concat()
            }
            (false, _) => {
                self.refuse_loss(kind, &before)?;
                new
            }
        };
        files::replace(&path, &after, mode).map_err(failed)
    }

    fn refuse_loss(&self, kind: Kind, before: &[u8]) -> Result<(), Error> {
        match unreadable(kind == Kind::Public, before) {
            0 => Ok(()),
            count => Err(Error::UnreadableKeys { path: self.path(kind), count }),
        }
    }
}

fn is_armored(keyring: &[u8]) -> bool {
    keyring.trim_ascii_start().starts_with(b"-----BEGIN")
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    match read_limited(path, pgp::MAX_KEYRING) {
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn parsed<K>(path: &Path, bytes: &[u8], parse: impl Fn(&[u8]) -> Result<K, pgp::InvalidKeyring>) -> Result<K, Error> {
    parse(bytes).map_err(|source| Error::Keys { path: path.to_owned(), source })
}

/// A key in a file of its own.
pub(crate) fn write_key(path: &Path, bytes: &[u8], secret: bool, force: bool) -> Result<(), Error> {
    let failed = |source| Error::WriteKey { path: path.to_owned(), source };
    if !force && path.symlink_metadata().is_ok() {
        return Err(failed(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is there already; --force writes over it",
        )));
    }
    files::replace(path, bytes, if secret { PRIVATE } else { SHARED }).map_err(failed)
}
