//! One build from end to end: into a store, or into a file.

use crate::convert::{self, Converted, Inputs, file_error};
use crate::decode::Budget;
use crate::fetch::{Cache, Fetch, Reuse};
use crate::output::Output;
use crate::packs::{Experience, LayerPacks, Saving};
use crate::progress::{Phase, Progress};
use crate::recipe::RATIO_FREE_BYTES;
use crate::source::{Source, Supply};
use crate::{Error, Limits, Recipe};
use siforge_reference::Digest;
use siforge_store::{Blobs, RecipeRecord, Store, Visibility};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to build; nothing here changes a byte of the result.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Compression threads.
    pub threads: usize,
    /// Bytes of data in flight and codec state of the squashfs writer.
    pub memory: usize,
    /// Blobs fetched at once.
    pub parallel_blobs: usize,
    pub limits: Limits,
    /// What the layer cache may be used for.
    pub reuse: Reuse,
    /// Use and make layer packs, beside the blobs.
    pub packs: bool,
    /// Bytes that blobs and packs may take together; None: as many as come.
    pub cache_bytes: Option<u64>,
}

impl Settings {
    /// For a machine with this many processors.
    pub fn for_processors(processors: usize) -> Self {
        let threads = processors.clamp(1, 64);
        Self {
            threads,
            // Blocks of 256 KiB: raw, compressed and queued ones of each thread fit into 16 MiB with room to spare.
            memory: (threads * (16 << 20)).clamp(48 << 20, 192 << 20),
            parallel_blobs: 4,
            limits: Limits::default(),
            reuse: Reuse::Vouched,
            packs: true,
            cache_bytes: None,
        }
    }
}

/// What [`build`] published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Image digest: SHA-256 of the SIF.
    pub digest: Digest,
    /// Bytes of the SIF.
    pub size: u64,
    /// The artifact in the store.
    pub path: PathBuf,
    pub recipe_key: Digest,
    /// The store had it already: nothing was built.
    pub reused: bool,
    pub warnings: Vec<String>,
}

/// What [`pull`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub digest: Digest,
    /// Bytes of the SIF.
    pub size: u64,
    pub warnings: Vec<String>,
}

/// Where [`pull`] writes and what it may keep.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The SIF file.
    pub path: &'a Path,
    /// Replace an existing file.
    pub force: bool,
    /// Layer cache.
    pub cache: &'a Blobs,
}

/// Builds `source` into the store and publishes the artifact, readable by the agents alone until a ref makes it public.
///
/// The caller has resolved the image with the credentials of whoever asks, or opened it: that is what allows a recorded
/// result to be reused. Dropping the future stops the build; nothing half-written is ever visible. Whoever writes a ref to the result
/// opens the artifact again afterwards, as gc may run at any time.
pub async fn build(
    store: &Store,
    source: &Source,
    recipe: &Recipe,
    settings: &Settings,
    progress: Arc<Progress>,
) -> Result<Built, Error> {
    let key = source.key(recipe);
    // A damaged record is no more than a missing one: what is built takes its place.
    let recorded = match store.recipe(&key) {
        Err(siforge_store::Error::Damaged { .. }) => None,
        recorded => recorded?,
    };
    if let Some(record) = recorded {
        // What an earlier version built has none.
        let (stored, digest) = (store.clone(), record.digest);
        blocking(move || crate::shadow::ensure(&stored, &digest)).await?;
        progress.enter(Phase::Done);
        return Ok(built(store, key, record.digest, record.size, true, Vec::new()));
    }
    let pending = store.begin()?;
    let file = pending
        .file()
        .try_clone()
        .map_err(|source| file_error("duplicate the descriptor of", pending.path(), source))?;
    let target = Target { file, path: pending.path().to_owned() };
    let cache = Cache { blobs: &store.blobs()?, reuse: settings.reuse };
    let made = assemble(source, recipe, &key, settings, cache, &target, &progress).await?;

    progress.enter(Phase::Publishing);
    let store = store.clone();
    let Made { digest, size, warnings, saving } = made;
    // fsync of some GB takes its time: not on a thread of the runtime.
    let published = blocking(move || {
        let linked = store.publish(pending, &digest, size, Visibility::Private)?;
        crate::shadow::ensure(&store, &digest)?;
        let record = store.record_recipe(RecipeRecord::new(key, digest, size))?;
        linked.settle()?;
        Ok(built(&store, key, record.digest, record.size, false, warnings))
    })
    .await?;
    saving.wait().await;
    progress.enter(Phase::Done);
    Ok(published)
}

fn built(store: &Store, recipe_key: Digest, digest: Digest, size: u64, reused: bool, warnings: Vec<String>) -> Built {
    Built { path: store.layout().artifact(&digest), digest, size, recipe_key, reused, warnings }
}

/// Converts `source` into a SIF file of mode 0755 less the umask.
///
/// The file appears complete or not at all, also after a kill -9.
pub async fn pull(
    source: &Source,
    recipe: &Recipe,
    settings: &Settings,
    destination: Destination<'_>,
    progress: Arc<Progress>,
) -> Result<Pulled, Error> {
    let key = source.key(recipe);
    let output = Output::create(destination.path, destination.force)?;
    let target = Target { file: output.file()?, path: destination.path.to_owned() };
    let cache = Cache { blobs: destination.cache, reuse: settings.reuse };
    let made = assemble(source, recipe, &key, settings, cache, &target, &progress).await?;
    progress.enter(Phase::Publishing);
    blocking(move || output.publish()).await?;
    made.saving.wait().await;
    progress.enter(Phase::Done);
    Ok(Pulled { digest: made.digest, size: made.size, warnings: made.warnings })
}

struct Target {
    file: File,
    /// For messages.
    path: PathBuf,
}

/// A complete SIF, hashed; its layers' packs may still be in the making.
struct Made {
    digest: Digest,
    size: u64,
    warnings: Vec<String>,
    saving: Saving,
}

/// Fetches and converts at the same time; a damaged blob of the cache is dropped and fetched anew, once.
#[allow(clippy::too_many_arguments)]
async fn assemble(
    source: &Source,
    recipe: &Recipe,
    recipe_key: &Digest,
    settings: &Settings,
    cache: Cache<'_>,
    target: &Target,
    progress: &Arc<Progress>,
) -> Result<Made, Error> {
    let image = &source.image;
    if image.layers.is_empty() {
        return Err(Error::NoLayers { image: image.name.shown.clone() });
    }
    let mut damaged = Vec::new();
    let mut experience = Experience::default();
    loop {
        let packs = match settings.packs && cache.reuse != Reuse::Never {
            true => LayerPacks::prepare(source, cache, recipe, settings.parallel_blobs, &experience).await?,
            false => LayerPacks::default(),
        };
        let fetch = Fetch::prepare(source, cache, settings.parallel_blobs, &packs.spare(image)).await?;
        progress.begin(fetch.total(), fetch.blobs());
        let cached = fetch.cached();
        let inputs = Inputs {
            resolved: image.clone(),
            recipe: recipe.clone(),
            recipe_key: *recipe_key,
            threads: settings.threads,
            memory: settings.memory,
            limits: settings.limits,
            downloads: fetch.downloads(),
            packs,
            budget: Budget::new(settings.limits.uncompressed_bytes, settings.limits.ratio, RATIO_FREE_BYTES),
            progress: progress.clone(),
        };
        let fetching = fetch.run(source, cache, settings.parallel_blobs);
        let into = (cache.blobs.clone(), settings.cache_bytes, cache.reuse);
        let result = fetch_and_convert(fetching, inputs, target, into).await;
        match result {
            Err(Error::Blob { layer, source: cause }) if matches!(source.supply, Supply::Local(_)) => {
                return Err(Error::Damaged { image: image.name.shown.clone(), layer, source: cause });
            }
            // The disk or someone changed it since it was cached. Once per blob.
            Err(error) => match error.damaged_layer() {
                Some(layer) if cached.contains(layer) && !damaged.contains(layer) => {
                    cache.blobs.remove(layer)?;
                    damaged.push(*layer);
                }
                _ if experience.learn(&error, &cache.blobs.packs(), recipe)? => {}
                _ => return Err(error),
            },
            made => return made,
        }
    }
}

/// The conversion reads behind the downloads' watermarks, so both end at nearly the same time.
async fn fetch_and_convert(
    fetching: impl Future<Output = Result<(), Error>>,
    inputs: Inputs,
    target: &Target,
    (cache, bound, reuse): (Blobs, Option<u64>, Reuse),
) -> Result<Made, Error> {
    let _cancel = CancelOnDrop(inputs.budget.clone());
    let file =
        target.file.try_clone().map_err(|source| file_error("duplicate the descriptor of", &target.path, source))?;
    let (file, path) = (Arc::new(file), target.path.clone());
    let converting = blocking(move || {
        let Converted { size, warnings, recordings } = convert::convert(&inputs, &file, &path)?;
        // While the SIF is hashed and published: all of them only read it.
        let saving = recordings.save(file.clone(), cache, bound, reuse);
        Ok(Made { digest: convert::digest(&inputs, size, &file, &path)?, size, warnings, saving })
    });
    tokio::pin!(fetching, converting);
    tokio::select! {
        fetched = &mut fetching => {
            fetched?;
            converting.await
        }
        converted = &mut converting => {
            let made = converted?;
            fetching.await?;
            Ok(made)
        }
    }
}

/// Ends the conversion's threads when nobody waits for them any more.
struct CancelOnDrop(Arc<Budget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs what blocks away from the runtime's threads; a panic becomes an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::Panicked(panic_text(error.into_panic()))),
        Err(_) => Err(Error::Cancelled),
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
