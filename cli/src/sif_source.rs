//! Sources that are a SIF already: `oras://` and `https://`. `pull` keeps the file as it is, with its signatures; `build`
//! builds it anew; what launches takes it out of the cache.

use crate::cli::{Global, Push, Registry};
use crate::config::Config;
use crate::error::Error;
use crate::source;
use sha2::{Digest as _, Sha256};
use siforge_build::{Output, Source, source_tree};
use siforge_oci::{Download, http_sif};
use siforge_reference::{Digest, ImageRef, Reference};
use siforge_sif::Sif;
use siforge_store::Blobs;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Larger than any SIF that anyone keeps on a web server.
const MAX_SIF: u64 = 1 << 40;

pub(crate) fn is_sif(reference: &Reference) -> bool {
    matches!(reference, Reference::Oras(_) | Reference::Http(_))
}

/// What is asked for, and how to reach it.
pub(crate) struct Remote<'a> {
    pub(crate) global: &'a Global,
    pub(crate) config: &'a Config,
    pub(crate) registry: &'a Registry,
    pub(crate) reference: &'a Reference,
}

impl Remote<'_> {
    /// Writes the SIF to `path` as it is; gives its digest and size.
    pub(crate) async fn pull(&self, path: &Path, force: bool) -> Result<(Digest, u64), Error> {
        let output = Output::create(path, force)?;
        let got = self.download(&output.file()?).await?;
        tokio::task::spawn_blocking(move || output.publish()).await.map_err(joined)??;
        Ok(got)
    }

    /// The SIF as the source of a build.
    pub(crate) async fn open(&self) -> Result<Source, Error> {
        let file = self.temporary()?;
        self.download(&file).await?;
        let (shown, platform) = (self.reference.to_string(), source::platform(self.registry)?);
        let opened = tokio::task::spawn_blocking(move || {
            source_tree::sif(&shown, file, &platform, &siforge_build::Limits::default())
        });
        Ok(opened.await.map_err(joined)??)
    }

    /// The SIF's file in the cache, put there if it is not.
    pub(crate) async fn cached(&self, cache: &Blobs) -> Result<PathBuf, Error> {
        let known = match self.reference {
            Reference::Oras(image) => {
                let client = crate::registry::connect(self.global, self.config, self.registry, image).await?;
                let (layer, _) = client.sif(image).await?;
                Some(layer.digest)
            }
            _ => self.sha256()?,
        };
        if let Some(digest) = known
            && !self.registry.disable_cache
            && cache.open(&digest)?.is_some()
        {
            return Ok(cache.path(&digest));
        }
        // Its digest may be known only when it is there.
        let mut file = self.temporary()?;
        let (digest, _) = self.download(&file).await?;
        let cache = cache.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let failed = |source| Error::Read { path: cache.path(&digest), source };
            let pending = cache.begin(&digest)?;
            io::Seek::rewind(&mut file).map_err(failed)?;
            io::copy(&mut file, &mut &**pending.file()).map_err(failed)?;
            pending.commit()?;
            Ok(cache.path(&digest))
        });
        stored.await.map_err(joined)?
    }

    fn temporary(&self) -> Result<File, Error> {
        let dir = self.registry.tmpdir.as_ref().unwrap_or(&self.config.tmpdir);
        tempfile::tempfile_in(dir).map_err(|source| Error::Temporary { path: dir.clone(), source })
    }

    /// `--sha256`
    fn sha256(&self) -> Result<Option<Digest>, Error> {
        let Some(text) = &self.registry.sha256 else {
            return Ok(None);
        };
        Ok(Some(Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text))?))
    }

    async fn download(&self, file: &File) -> Result<(Digest, u64), Error> {
        let got = match self.reference {
            Reference::Oras(image) => self.oras(image, file).await?,
            Reference::Http(url) => {
                let tls = crate::registry::server_tls(self.registry)?;
                http_sif::download(url, self.sha256()?, &tls, file, MAX_SIF).await?
            }
            other => return Err(Error::Source { value: other.to_string() }),
        };
        let shown = || PathBuf::from(self.reference.to_string());
        let copy = file.try_clone().map_err(|source| Error::Read { path: shown(), source })?;
        Sif::open(copy).map_err(|source| Error::Sif { path: shown(), source })?;
        Ok(got)
    }

    async fn oras(&self, image: &ImageRef, file: &File) -> Result<(Digest, u64), Error> {
        let client = crate::registry::connect(self.global, self.config, self.registry, image).await?;
        let (layer, _) = client.sif(image).await?;
        let copy = file.try_clone().map_err(|source| Error::Read { path: image.to_string().into(), source })?;
        client.fetch(image, &layer, Download::new(Arc::new(copy), layer.size)).await?;
        match self.sha256()? {
            Some(want) if want != layer.digest => Err(Error::OtherDigest { got: layer.digest, want }),
            _ => Ok((layer.digest, layer.size)),
        }
    }
}

fn joined(error: tokio::task::JoinError) -> Error {
    Error::Runtime { source: io::Error::other(error) }
}

/// `siforge push FILE oras://…`
pub(crate) async fn push(global: &Global, config: &Config, options: &Push) -> Result<Digest, Error> {
    let Reference::Oras(image) = source::parse(config, &options.destination)? else {
        return Err(Error::Destination { value: options.destination.clone() });
    };
    let path = options.file.clone();
    let failed = |source| Error::Read { path: options.file.clone(), source };
    let read = tokio::task::spawn_blocking(move || {
        let failed = |source| Error::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        Sif::open(copy).map_err(|source| Error::Sif { path: path.clone(), source })?;
        let (mut sha, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let n = file.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                return Ok::<_, Error>((Digest::from_bytes(sha.finalize().into()), size));
            }
            sha.update(&buffer[..n]);
            size += n as u64;
        }
    });
    let content = read.await.map_err(joined)??;
    let title = options.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let client = crate::registry::connect(global, config, &options.registry, &image).await?.for_push();
    let file = File::open(&options.file).map_err(failed)?;
    Ok(client.push_sif(&image, file, content, &title).await?)
}
