//! Sources that are a SIF already: `oras://` and `https://`. `pull` keeps the file as it is, with its signatures; `build`
//! builds it anew; what launches takes it out of the cache.

use crate::cli::{Global, Push, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::turn::Turn;
use crate::{signed, source, verified};
use siforge_build::{Output, Source, source_tree};
use siforge_oci::{Client, Download, Layer, http_sif};
use siforge_reference::{Digest, ImageRef, Reference};
use siforge_sif::Sif;
use siforge_store::{Store, Visibility};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Larger than any SIF that anyone keeps on a web server.
const MAX_SIF: u64 = 1 << 40;

pub(crate) fn is_sif(reference: &Reference) -> bool {
    matches!(reference, Reference::Oras(_) | Reference::Http(_))
}

/// What is asked for, and how to reach it.
#[derive(Clone, Copy)]
pub(crate) struct Remote<'a> {
    pub(crate) global: &'a Global,
    pub(crate) config: &'a Config,
    pub(crate) registry: &'a Registry,
    pub(crate) reference: &'a Reference,
}

impl Remote<'_> {
    /// `--sha256` where it would not be looked at is refused: who gives it relies on it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        signed::check_signable(self.registry, self.reference)?;
        match &self.registry.sha256 {
            Some(_) if !is_sif(self.reference) => Err(Error::NoSif { value: self.reference.to_string() }),
            _ => self.sha256().map(drop),
        }
    }

    /// Writes the SIF to `path` as it is; gives its digest and size.
    pub(crate) async fn pull(&self, path: &Path, force: bool) -> Result<(Digest, u64), Error> {
        let output = Output::create(path, force)?;
        let got = self.download(&output.file()?).await?;
        tokio::task::spawn_blocking(move || output.publish()).await.map_err(joined)??;
        Ok(got)
    }

    /// The SIF as the source of a build.
    pub(crate) async fn open(&self) -> Result<Source, Error> {
        let file = crate::files::temporary(source::tmpdir(self.config, self.registry))?;
        self.download(&file).await?;
        let (shown, platform) = (self.shown(), source::platform(self.registry)?);
        let opened = tokio::task::spawn_blocking(move || {
            source_tree::sif(&shown, file, &platform, &siforge_build::Limits::default())
        });
        Ok(opened.await.map_err(joined)??)
    }

    /// The SIF's file in the cache, put there if it is not, or is not what it was.
    pub(crate) async fn cached(&self, store: &Store) -> Result<PathBuf, Error> {
        let found = self.find().await?;
        // Without a digest it is known only when it is there.
        let _turn = match found.digest() {
            Some(digest) => {
                let turn = Turn::wait(self.global, &self.config.cache, &digest).await;
                let there = store.clone();
                if blocking(move || verified::is_sound(&there, &digest)).await? {
                    return Ok(store.layout().artifact(&digest));
                }
                turn
            }
            None => Turn::free(),
        };
        let pending = store.begin()?;
        let failed = |source| Error::Read { path: store.root().to_owned(), source };
        let file = pending.file().try_clone().map_err(failed)?;
        let (digest, size) = self.fetch(found, &file).await?;
        let store = store.clone();
        blocking(move || {
            store.publish(pending, &digest, size, Visibility::Private)?.settle()?;
            verified::note(&store, &digest);
            Ok(store.layout().artifact(&digest))
        })
        .await
    }

    /// Without the password and the token that a URL may hold.
    fn shown(&self) -> String {
        match self.reference {
            Reference::Http(url) => http_sif::shown(url),
            other => other.to_string(),
        }
    }

    /// `--sha256`
    fn sha256(&self) -> Result<Option<Digest>, Error> {
        let Some(text) = &self.registry.sha256 else {
            return Ok(None);
        };
        Ok(Some(Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text))?))
    }

    /// Writes the SIF to `file`; gives its digest and size.
    pub(crate) async fn download(&self, file: &File) -> Result<(Digest, u64), Error> {
        self.fetch(self.find().await?, file).await
    }

    /// Asks the registry for the digest. Another one than `--sha256` is refused here, wherever the bytes would come from.
    async fn find(&self) -> Result<Found<'_>, Error> {
        let want = self.sha256()?;
        match self.reference {
            Reference::Oras(image) => {
                let keys = signed::keys(&self.registry.verify_key)?;
                let client = crate::registry::connect(self.global, self.config, self.registry, image).await?;
                let (layer, manifest) = client.sif(image).await?;
                signed::check(self.global, &keys, &client, image, &[manifest]).await?;
                match want {
                    Some(want) if want != layer.digest => Err(Error::OtherDigest { got: layer.digest, want }),
                    _ => Ok(Found::Blob { client: Box::new(client), image, layer }),
                }
            }
            Reference::Http(url) => Ok(Found::Page { url, want }),
            other => Err(Error::Source { value: other.to_string() }),
        }
    }

    async fn fetch(&self, found: Found<'_>, file: &File) -> Result<(Digest, u64), Error> {
        let shown = || PathBuf::from(self.shown());
        let copy = || file.try_clone().map_err(|source| Error::Read { path: shown(), source });
        let got = match found {
            Found::Blob { client, image, layer } => {
                client.fetch(image, &layer, Download::new(Arc::new(copy()?), layer.size)).await?;
                (layer.digest, layer.size)
            }
            Found::Page { url, want } => {
                let tls = crate::registry::server_tls(self.config, self.registry)?;
                http_sif::download(url, want, &tls, file, MAX_SIF).await?
            }
        };
        Sif::open(copy()?).map_err(|source| Error::Sif { path: shown(), source })?;
        Ok(got)
    }
}

/// Where the SIF's bytes are.
enum Found<'a> {
    Blob { client: Box<Client>, image: &'a ImageRef, layer: Layer },
    Page { url: &'a str, want: Option<Digest> },
}

impl Found<'_> {
    /// None for a page whose digest nobody said.
    fn digest(&self) -> Option<Digest> {
        match self {
            Self::Blob { layer, .. } => Some(layer.digest),
            Self::Page { want, .. } => *want,
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(joined)?
}

fn joined(error: tokio::task::JoinError) -> Error {
    Error::Runtime { source: io::Error::other(error) }
}

/// `siforge push FILE oras://…`
pub(crate) async fn push(global: &Global, config: &Config, options: &Push) -> Result<Digest, Error> {
    let Reference::Oras(image) = source::parse(config, &options.destination)? else {
        return Err(Error::Destination { value: options.destination.clone() });
    };
    if !options.registry.verify_key.is_empty() {
        return Err(Error::VerifyPush);
    }
    let path = options.file.clone();
    let failed = |source| Error::Read { path: options.file.clone(), source };
    let read = tokio::task::spawn_blocking(move || {
        let failed = |source| Error::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        Sif::open(copy).map_err(|source| Error::Sif { path: path.clone(), source })?;
        verified::hash(&mut file).map_err(failed)
    });
    let content = read.await.map_err(joined)??;
    let title = options.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let client = crate::registry::connect(global, config, &options.registry, &image).await?.for_push();
    let file = File::open(&options.file).map_err(failed)?;
    Ok(client.push_sif(&image, file, content, &title).await?)
}
