//! Layer packs in a build: which ones it may use, and which ones it makes.
//!
//! ```text
//!  packs/<diff_id>.<kind> ── may be used, is sound ──▶ its layer is neither fetched nor decoded
//!  no pack ──▶ the layer is recorded while it is converted ──▶ saved from the finished SIF, while that is hashed and published
//!  damaged ──▶ removed, the build starts over without it, and makes it anew
//!  lacks what this image shows ──▶ the build starts over without all such, and makes ones that lack nothing
//! ```
//!
//! A pack may be used where its layer's blob might be ([`Reuse`]), and where that very blob was seen to decode to the layer: also
//! in one's own cache, since a config may name a foreign diff_id. So a blob of another compression is decoded once, and noted;
//! from then on both share the pack.
//! Packs are an economy: what goes wrong while one is made is told in the log and ends no build.

use crate::decode::Budget;
use crate::fetch::{Cache, Reuse};
use crate::recipe::{Codec, ENGINE_FORMAT};
use crate::run::blocking;
use crate::source::{Image, Source, Supply};
use crate::{Error, Recipe};
use futures::stream::{self, StreamExt, TryStreamExt};
use siforge_oci::Layer;
use siforge_reference::Digest;
use siforge_squashfs::write::pack::{FramingRecord, FramingRecorder, Key, Pack, Recorded, Scratch};
use siforge_squashfs::write::{Layer as Mode, Writer};
use siforge_store::cache::{Removal, enforce};
use siforge_store::{Blobs, Packs};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::task::JoinHandle;

#[cfg(test)]
mod tests;

/// What decides a pack besides its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    codec: siforge_squashfs::Codec,
    name: &'static str,
    level: i32,
    block_size: u32,
}

impl Kind {
    pub(crate) fn of(recipe: &Recipe) -> Self {
        let (name, level) = recipe.codec.name_and_level();
        Self { codec: recipe.codec.squashfs(), name, level, block_size: recipe.block_size }
    }

    fn file_name(self) -> String {
        format!("{}-{}-{}k.{ENGINE_FORMAT}", self.name, self.level, self.block_size >> 10)
    }

    fn key(self, diff_id: &Digest) -> Key {
        Key { diff_id: *diff_id.bytes(), codec: self.codec, block_size: self.block_size, engine_format: ENGINE_FORMAT }
    }
}

/// The packs of one build's layers.
#[derive(Default)]
pub(crate) struct LayerPacks {
    /// One for each layer, topmost first; may be shorter.
    found: Vec<Option<Arc<Pack>>>,
    /// There if layers are to be recorded.
    scratch: Option<Arc<Scratch>>,
    /// diff_ids whose packs lacked something: the next one is to lack nothing.
    lacking: Vec<Digest>,
}

/// What an attempt to build learnt about the packs that are there.
#[derive(Default)]
pub(crate) struct Experience {
    damaged: Vec<Digest>,
    lacking: Vec<Digest>,
}

impl Experience {
    /// True if the build is worth another attempt: an error of packs that were not given up before.
    pub(crate) fn learn(&mut self, error: &Error, packs: &Packs, recipe: &Recipe) -> Result<bool, Error> {
        match error {
            Error::Lacking { layers } => {
                let new: Vec<Digest> = layers.iter().filter(|layer| !self.forbids(layer)).copied().collect();
                self.lacking.extend(&new);
                Ok(!new.is_empty())
            }
            Error::Pack { layer, .. } if !self.forbids(layer) => {
                tracing::warn!("a layer pack is made anew: {error}");
                packs.remove(layer, &Kind::of(recipe).file_name())?;
                self.damaged.push(*layer);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn forbids(&self, layer: &Digest) -> bool {
        self.damaged.contains(layer) || self.lacking.contains(layer)
    }
}

impl LayerPacks {
    /// Opens the packs that this build may use, and makes ready to record the other layers.
    pub(crate) async fn prepare(
        source: &Source,
        cache: Cache<'_>,
        recipe: &Recipe,
        parallel: usize,
        experience: &Experience,
    ) -> Result<Self, Error> {
        let packs = cache.blobs.packs();
        let layers = &source.image.layers;
        let mut seen = HashSet::new();
        // An image may have a layer several times: all of them are the pack or none is.
        let mut distinct = layers.clone();
        distinct.retain(|layer| seen.insert(name(layer)) && !experience.forbids(&layer.diff_id));
        let find = |layer: Layer| {
            let packs = &packs;
            async move { find(source, &layer, cache, packs, Kind::of(recipe)).await.map(|pack| (name(&layer), pack)) }
        };
        // Each may ask the registry.
        let found: HashMap<_, _> =
            stream::iter(distinct.into_iter().map(find)).buffered(parallel).try_collect().await?;
        let found: Vec<_> = layers.iter().rev().map(|layer| found.get(&name(layer)).cloned().flatten()).collect();
        let scratch = if found.iter().all(Option::is_some) {
            None
        } else {
            blocking(move || {
                Ok(packs.scratch().inspect_err(|error| tracing::warn!("no layer packs are made: {error}")).ok())
            })
            .await?
        };
        Ok(Self {
            found,
            scratch: scratch.map(|file| Arc::new(Scratch::new(file))),
            lacking: experience.lacking.clone(),
        })
    }

    /// The pack of the `layer`th layer, the topmost being 0.
    pub(crate) fn get(&self, layer: usize) -> Option<&Arc<Pack>> {
        self.found.get(layer).and_then(Option::as_ref)
    }

    /// Blobs that are not needed: every layer that names one has a pack.
    pub(crate) fn spare(&self, image: &Image) -> Vec<Digest> {
        let of = |packed| {
            let layers = image.layers.iter().rev().enumerate();
            layers.filter(move |(number, _)| self.get(*number).is_some() == packed).map(|(_, layer)| layer.digest)
        };
        let needed: HashSet<Digest> = of(false).collect();
        of(true).filter(|digest| !needed.contains(digest)).collect()
    }

    pub(crate) fn scratch(&self) -> Option<&Arc<Scratch>> {
        self.scratch.as_ref()
    }
}

/// What decides which pack a layer may use.
fn name(layer: &Layer) -> (Digest, Digest) {
    (layer.diff_id, layer.digest)
}

async fn find(
    source: &Source,
    layer: &Layer,
    cache: Cache<'_>,
    packs: &Packs,
    kind: Kind,
) -> Result<Option<Arc<Pack>>, Error> {
    if cache.reuse == Reuse::Never {
        return Ok(None);
    }
    if !packs.is_of_blob(&layer.diff_id, &layer.digest)? {
        return Ok(None);
    }
    let Some(file) = packs.open(&layer.diff_id, &kind.file_name())? else {
        return Ok(None);
    };
    let allowed = match cache.reuse {
        Reuse::Never => false,
        Reuse::Own => true,
        Reuse::Vouched => match &source.supply {
            Supply::Registry { client, resolved, .. } => {
                cache.blobs.came_from(&layer.digest, &resolved.reference.registry)?
                    && client.has_blob(&resolved.reference, layer).await?
            }
            // An archive may name a layer that it does not have: its own bytes must show that it does.
            Supply::Local(_) => false,
        },
    };
    if !allowed {
        return Ok(None);
    }
    let (packs, diff_id) = (packs.clone(), layer.diff_id);
    blocking(move || open(file, &diff_id, &packs, kind)).await
}

/// None, and it is gone, if it is damaged.
fn open(file: File, diff_id: &Digest, packs: &Packs, kind: Kind) -> Result<Option<Arc<Pack>>, Error> {
    match Pack::open(file, &kind.key(diff_id)) {
        Ok(pack) => Ok(Some(Arc::new(pack))),
        Err(fault) => {
            tracing::warn!("the pack of layer {diff_id} {fault}; it is made anew");
            packs.remove(diff_id, &kind.file_name())?;
            Ok(None)
        }
    }
}

/// Records the layers of one pass.
pub(crate) struct Recording {
    scratch: Arc<Scratch>,
    layers: Vec<(Layer, FramingRecord)>,
}

/// What a pass recorded: packs to be, once the SIF is complete.
pub(crate) struct Recordings {
    recording: Option<Recording>,
    recorded: Vec<Recorded>,
    /// Where the squashfs begins in the SIF.
    base: u64,
    kind: Kind,
}

impl std::fmt::Debug for Recordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recordings").field("recorded", &self.recorded.len()).finish_non_exhaustive()
    }
}

impl Recording {
    /// None when nothing is to be recorded.
    pub(crate) fn start(packs: &LayerPacks) -> Option<Self> {
        let scratch = packs.scratch()?.clone();
        if let Err(error) = scratch.clear() {
            tracing::warn!("no layer packs are made: empty the scratch file: {error}");
            return None;
        }
        Some(Self { scratch, layers: Vec::new() })
    }

    /// Makes `writer` record the layer that begins next; None for one that is recorded already.
    pub(crate) fn begin(&self, layer: &Layer, packs: &LayerPacks, writer: &mut Writer) -> Option<FramingRecorder> {
        if self.layers.iter().any(|(earlier, _)| earlier.diff_id == layer.diff_id) {
            return None;
        }
        writer.next_layer(Mode::Record { hidden: packs.lacking.contains(&layer.diff_id) });
        Some(FramingRecorder::new(self.scratch.clone()))
    }

    pub(crate) fn end(&mut self, layer: &Layer, framing: FramingRecorder) {
        self.layers.push((layer.clone(), framing.finish()));
    }
}

impl Recordings {
    pub(crate) fn new(recording: Option<Recording>, recorded: Vec<Recorded>, base: u64, recipe: &Recipe) -> Self {
        Self { recording, recorded, base, kind: Kind::of(recipe) }
    }

    /// Makes the packs from the finished SIF on a thread of the runtime's, which its end waits for, and brings the cache
    /// below its bound.
    pub(crate) fn save(self, sif: Arc<File>, cache: Blobs, bound: Option<u64>, reuse: Reuse) -> Saving {
        Saving(tokio::task::spawn_blocking(move || {
            self.save_packs(&sif, &cache.packs());
            let removal = Removal::of(&cache, reuse == Reuse::Own);
            if let Some(Err(error)) = bound.map(|bound| enforce(&cache, bound, removal)) {
                tracing::warn!("the layer cache may be larger than it should be: {error}");
            }
        }))
    }

    fn save_packs(self, sif: &File, packs: &Packs) {
        let Some(recording) = self.recording else {
            return;
        };
        for ((layer, framing), recorded) in recording.layers.into_iter().zip(self.recorded) {
            let made = || {
                let pending = packs.begin(&layer.diff_id, &self.kind.file_name())?;
                let saved = recorded
                    .save(&self.kind.key(&layer.diff_id), framing, (sif, self.base), &recording.scratch, pending.file())
                    .map_err(|source| Error::SavePack { layer: layer.diff_id, source })?;
                pending.commit(saved.complete)?;
                Ok::<(), Error>(packs.note_blob(&layer.diff_id, &layer.digest)?)
            };
            if let Err(error) = made() {
                tracing::warn!("a layer pack was not made: {error}");
            }
        }
    }
}

/// Packs in the making; dropped, they are made all the same.
pub(crate) struct Saving(JoinHandle<()>);

impl Saving {
    /// Waits until they are there, or the log says why not.
    pub(crate) async fn wait(self) {
        if self.0.await.is_err() {
            tracing::warn!("the thread that makes layer packs panicked");
        }
    }
}

/// A pack's framing, charged to the build's budget as the decoded blob would be.
pub(crate) struct Framing<R> {
    inner: R,
    layer: Layer,
    budget: Arc<Budget>,
    taken: u64,
    failure: Option<Error>,
}

impl<R: Read> Framing<R> {
    pub(crate) fn new(inner: R, layer: &Layer, budget: Arc<Budget>) -> Self {
        Self { inner, layer: layer.clone(), budget, taken: 0, failure: None }
    }

    /// Why a read failed, when it was the budget's doing.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

impl<R: Read> Read for Framing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        self.taken += bytes as u64;
        if let Err(error) = self.budget.take(&self.layer, bytes as u64, self.taken) {
            let told = io::Error::other(error.to_string());
            self.failure = Some(error);
            return Err(told);
        }
        Ok(bytes)
    }
}

impl Codec {
    pub(crate) fn squashfs(self) -> siforge_squashfs::Codec {
        match self {
            Self::Zstd { level } => siforge_squashfs::Codec::Zstd { level },
            Self::Gzip { level } => siforge_squashfs::Codec::Gzip { level },
            Self::Lz4 { level } => siforge_squashfs::Codec::Lz4 { level },
            Self::Xz { level } => siforge_squashfs::Codec::Xz { level },
            Self::None => siforge_squashfs::Codec::None,
        }
    }

    fn name_and_level(self) -> (&'static str, i32) {
        match self {
            Self::Zstd { level } => ("zstd", level),
            Self::Gzip { level } => ("gzip", level),
            Self::Lz4 { level } => ("lz4", level),
            Self::Xz { level } => ("xz", level),
            Self::None => ("none", 0),
        }
    }
}
