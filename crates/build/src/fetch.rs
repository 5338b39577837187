//! Layer blobs into the cache, several at once, topmost first.
//!
//! A blob that the cache has is not fetched again ("skip repeat blob"). Whether it may be *used* is another question: on a
//! site's store, where blobs of private images lie side by side, it may be only when it once came from this very registry
//! and the registry gives it to this build's credentials now ([`Reuse::Vouched`]); otherwise the bytes are fetched again.
//!
//! The layers of a local source are there: nothing is fetched, and the cache has nothing to do with them.

use crate::Error;
use crate::convert::file_error;
use crate::run::blocking;
use crate::source::{Source, Supply};
use futures::stream::{self, StreamExt, TryStreamExt};
use siforge_oci::{Client, Download, Layer, Operation, Resolved};
use siforge_reference::Digest;
use siforge_store::{Blobs, PendingBlob};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Whose blobs the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The cache is neither read nor filled.
    Never,
    /// One user's: what is there may be used.
    Own,
    /// Many users': the registry must vouch for each blob with the credentials of this build.
    Vouched,
}

/// A layer cache and what it may be used for.
#[derive(Clone, Copy)]
pub(crate) struct Cache<'a> {
    pub(crate) blobs: &'a Blobs,
    pub(crate) reuse: Reuse,
}

/// A layer's bytes: there, or about to be.
struct Blob {
    layer: Layer,
    download: Arc<Download>,
    from: From,
    /// None for what is there, and for a layer that the image has twice: its first one is fetched.
    pending: Option<PendingBlob>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Registry,
    Cache,
    /// Not needed: its layer has a pack.
    Pack,
    /// A file of the user's, read in place.
    Source,
}

/// The blobs of one build.
pub(crate) struct Fetch {
    /// Topmost layer first.
    blobs: Vec<Blob>,
}

impl Fetch {
    /// Looks into the cache and prepares files for what is missing; nothing is fetched yet. The blobs of `spare` are not
    /// needed: nobody reads their downloads.
    pub(crate) async fn prepare(
        source: &Source,
        cache: Cache<'_>,
        parallel: usize,
        spare: &[Digest],
    ) -> Result<Self, Error> {
        match &source.supply {
            Supply::Registry { client, resolved, over } => {
                let fetched = Self::registry(client, resolved, cache, parallel, spare).await?;
                let layers = source.image.layers.iter().skip(resolved.layers.len());
                let mut blobs = Self::there(layers, over);
                blobs.extend(fetched);
                Ok(Self { blobs })
            }
            Supply::Local(downloads) => Ok(Self { blobs: Self::there(source.image.layers.iter(), downloads) }),
        }
    }

    /// Layers that are read where they are.
    fn there<'a>(
        layers: impl DoubleEndedIterator<Item = &'a Layer> + ExactSizeIterator,
        downloads: &[Arc<Download>],
    ) -> Vec<Blob> {
        let blob = |(layer, download): (&Layer, &Arc<Download>)| Blob {
            layer: layer.clone(),
            download: download.clone(),
            from: From::Source,
            pending: None,
        };
        layers.zip(downloads).rev().map(blob).collect()
    }

    async fn registry(
        client: &Client,
        resolved: &Resolved,
        cache: Cache<'_>,
        parallel: usize,
        spare: &[Digest],
    ) -> Result<Vec<Blob>, Error> {
        let registry = &resolved.reference.registry;
        let usable = |layer: Layer| async move {
            let usable = match cache.reuse {
                _ if spare.contains(&layer.digest) => false,
                Reuse::Never => false,
                Reuse::Own => true,
                Reuse::Vouched => {
                    cache.blobs.came_from(&layer.digest, registry)?
                        && client.has_blob(&resolved.reference, &layer).await?
                }
            };
            Ok::<_, Error>((layer, usable))
        };
        let layers: Vec<(Layer, bool)> =
            stream::iter(resolved.layers.iter().rev().cloned()).map(usable).buffered(parallel).try_collect().await?;
        let mut blobs: Vec<Blob> = Vec::with_capacity(layers.len());
        let mut nothing = None;
        for (layer, usable) in layers {
            let same = blobs.iter().find(|blob| blob.layer.digest == layer.digest);
            if let Some((download, from)) = same.map(|blob| (blob.download.clone(), blob.from)) {
                // The same layer twice in one image: fetched once, read twice.
                blobs.push(Blob { layer, download, from, pending: None });
                continue;
            }
            if spare.contains(&layer.digest) {
                let download = match &nothing {
                    Some(nothing) => Arc::clone(nothing),
                    None => nothing.insert(empty()?).clone(),
                };
                blobs.push(Blob { layer, download, from: From::Pack, pending: None });
                continue;
            }
            let cached = if usable { cache.blobs.open(&layer.digest)? } else { None };
            blobs.push(match cached {
                Some(file) => {
                    Blob { download: Download::complete(file, layer.size), layer, from: From::Cache, pending: None }
                }
                None => {
                    let pending = cache.blobs.begin(&layer.digest)?;
                    Blob {
                        download: Download::new(pending.file().clone(), layer.size),
                        layer,
                        from: From::Registry,
                        pending: Some(pending),
                    }
                }
            });
        }
        Ok(blobs)
    }

    /// Compressed bytes of all layers.
    pub(crate) fn total(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.layer.size).sum()
    }

    /// Topmost layer first.
    pub(crate) fn downloads(&self) -> Vec<Arc<Download>> {
        self.blobs.iter().map(|blob| blob.download.clone()).collect()
    }

    /// Digests of what came from the cache.
    pub(crate) fn cached(&self) -> Vec<Digest> {
        self.blobs.iter().filter(|blob| blob.from == From::Cache).map(|blob| blob.layer.digest).collect()
    }

    /// For a progress display: digest, compressed bytes, and the download unless the blob is there already.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (Digest, u64, Option<Arc<Download>>)> {
        // What lies in the source is neither fetched nor skipped.
        self.blobs.iter().filter(|blob| blob.from != From::Source).map(|blob| {
            let download = (blob.from == From::Registry).then(|| blob.download.clone());
            (blob.layer.digest, blob.layer.size, download)
        })
    }

    /// Fetches what is missing and gives each complete blob its name in the cache. Dropping the future, or an
    /// error, gives the other downloads up, so that no reader waits for them.
    pub(crate) async fn run(self, source: &Source, cache: Cache<'_>, parallel: usize) -> Result<(), Error> {
        let Supply::Registry { client, resolved, .. } = &source.supply else {
            return Ok(());
        };
        let _abandon = Abandon {
            downloads: self.blobs.iter().map(|blob| (blob.layer.digest, blob.download.clone())).collect(),
            image: resolved.reference.familiar(),
        };
        let missing = self.blobs.into_iter().filter_map(|blob| {
            let Blob { layer, download, pending, .. } = blob;
            pending.map(|pending| (layer, download, pending))
        });
        stream::iter(missing)
            .map(Ok)
            .try_for_each_concurrent(parallel, |(layer, download, pending)| async move {
                client.fetch(&resolved.reference, &layer, download).await?;
                if cache.reuse != Reuse::Never {
                    // Its fsync may take seconds, and the other blobs of this build come in on the same task.
                    blocking(move || Ok(pending.commit()?)).await?;
                    cache.blobs.note_origin(&layer.digest, &resolved.reference.registry)?;
                }
                Ok(())
            })
            .await
    }
}

/// A blob that nobody reads.
fn empty() -> Result<Arc<Download>, Error> {
    let path = Path::new("/dev/null");
    let file = File::open(path).map_err(|source| file_error("open", path, source))?;
    Ok(Download::complete(file, 0))
}

/// Wakes the readers of downloads that nobody will finish; harmless for finished ones.
struct Abandon {
    downloads: Vec<(Digest, Arc<Download>)>,
    image: String,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        for (digest, download) in self.downloads.drain(..) {
            download.fail(siforge_oci::Error::Interrupted {
                operation: Operation::Blob { digest: digest.to_string(), name: self.image.clone() },
                written: download.written(),
            });
        }
    }
}
