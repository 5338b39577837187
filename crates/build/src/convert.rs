//! Blobs → SIF, in one file, in one pass (a second one when the first guessed a file's visibility wrong).

use crate::decode::{Budget, Tar};
use crate::packs::{Framing, LayerPacks, Recording, Recordings};
use crate::progress::{Phase, Progress};
use crate::source::Image;
use crate::{Error, Limits, Recipe};
use sha2::{Digest as _, Sha256};
use siforge_oci::{Download, Layer};
use siforge_reference::Digest;
use siforge_rootfs::{
    ApplyError, Contents as RootfsContents, Ensure, Entry, EntryKind, InodeId, Merge, Meta, Outcome, Tree, Visibility,
};
use siforge_sif::image_config::{self, Contents, FileKind, ImageConfig, ImageFile};
use siforge_sif::{Arch, Draft};
use siforge_squashfs::write::pack::{Fault, Pack};
use siforge_squashfs::write::{Layer as Mode, Options, Writer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// One read of the finished file: large enough to be cheap, small beside the memory bound.
const HASH_BUFFER: usize = 1 << 20;

/// Everything that a conversion reads. Owned, since it runs on a thread of its own.
pub(crate) struct Inputs {
    pub(crate) resolved: Image,
    pub(crate) recipe: Recipe,
    pub(crate) recipe_key: Digest,
    pub(crate) threads: usize,
    pub(crate) memory: usize,
    pub(crate) limits: Limits,
    /// One for each layer, topmost first.
    pub(crate) downloads: Vec<Arc<Download>>,
    pub(crate) packs: LayerPacks,
    pub(crate) budget: Arc<Budget>,
    pub(crate) progress: Arc<Progress>,
}

/// A complete SIF; its digest is [`digest`]'s to find.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) size: u64,
    pub(crate) warnings: Vec<String>,
    pub(crate) recordings: Recordings,
}

/// What is added to an image.
fn contents(image: &Image, labels: &BTreeMap<String, String>) -> Result<Contents, Error> {
    let config_error = |source| Error::Config { image: image.name.shown.clone(), source };
    let config = ImageConfig::parse(&image.config).map_err(config_error)?;
    let source = image_config::Source {
        bootstrap: image.name.bootstrap.into(),
        from: format!("{}@{}", image.name.repository, image.manifest_digest),
        time: image.base.time,
    };
    image_config::plan_over(&config, &source, labels, &image.base).map_err(config_error)
}

/// The object inspect-metadata.json that a build of the image would have.
pub fn inspect_json(image: &Image) -> Result<Vec<u8>, Error> {
    contents(image, &BTreeMap::new()).map(|contents| contents.inspect_json)
}

/// Writes the SIF into `out`, an empty file at `path` (for messages). On an error the file holds no SIF header.
pub(crate) fn convert(inputs: &Inputs, out: &File, path: &Path) -> Result<Converted, Error> {
    let contents = contents(&inputs.resolved, &inputs.recipe.labels)?;
    let architecture = &inputs.resolved.platform.architecture;
    let mut objects = contents.objects();
    objects.push(crate::provenance::object(&inputs.resolved, &inputs.recipe_key));
    let draft = Draft::new(
        Arch::from_go(architecture).unwrap_or(Arch::Unknown),
        siforge_sif::writer::uuid_from(inputs.recipe_key.bytes()),
        contents.created,
        objects,
    )?;

    let mut known = Visibility::default();
    let base = draft.partition_offset();
    let (writer, tree, mut warnings, recording) = loop {
        match pass(inputs, &contents, out, path, base, known)? {
            Pass::Done { writer, tree, warnings, recording } => break (writer, tree, warnings, recording),
            Pass::Again(visibility) => known = visibility,
        }
        inputs.budget.refill();
        inputs.progress.restart();
    };
    let (finished, recorded) = writer.finish_recorded(&tree).map_err(|source| squashfs_error(path, source))?;
    warnings.extend(finished.warnings);
    let size = draft.finish(out, finished.bytes)?;

    let recordings = Recordings::new(recording, recorded, base, &inputs.recipe);
    Ok(Converted { size, warnings, recordings })
}

/// The image digest of what [`convert`] made in `out`, `size` bytes.
pub(crate) fn digest(inputs: &Inputs, size: u64, out: &File, path: &Path) -> Result<Digest, Error> {
    inputs.progress.enter(Phase::Hashing);
    hash(out, size, &inputs.budget).map_err(|source| file_error("hash", path, source))?
}

#[allow(clippy::large_enum_variant, reason = "one value per pass")]
enum Pass {
    Done { writer: Writer, tree: Tree, warnings: Vec<String>, recording: Option<Recording> },
    Again(Visibility),
}

fn pass(
    inputs: &Inputs,
    contents: &Contents,
    out: &File,
    path: &Path,
    offset: u64,
    known: Visibility,
) -> Result<Pass, Error> {
    let mut writer = writer(inputs, contents, out, path, offset)?;
    let limits = siforge_rootfs::Limits {
        entries: inputs.limits.files,
        apparent_bytes: inputs.limits.uncompressed_bytes,
        tar_bytes: inputs.limits.uncompressed_bytes,
        ..siforge_rootfs::Limits::default()
    };
    let mut merge = Merge::new(limits, known);

    let entries: Vec<Entry<'_>> = contents.files.iter().map(|file| entry(file, contents.created)).collect();
    merge.apply_entries(&entries, &mut writer).map_err(|error| apply_error(None, path, error))?;
    let mut recording = Recording::start(&inputs.packs);
    for (number, layer) in inputs.resolved.layers.iter().rev().enumerate() {
        match inputs.packs.get(number) {
            Some(pack) => apply_pack(inputs, layer, pack, path, &mut merge, &mut writer)?,
            None => apply_blob(inputs, number, path, &mut merge, &mut writer, &mut recording)?,
        }
    }
    for dir in &contents.missing_dirs {
        merge.ensure(dir.path.as_bytes(), Ensure::Directory, contents.created);
    }
    for file in &contents.missing_files {
        merge.ensure(file.path.as_bytes(), Ensure::File, contents.created);
    }
    Ok(match merge.finish(contents.created).map_err(|error| apply_error(None, path, ApplyError::Layer(error)))? {
        Outcome::Done { tree, warnings } => {
            Pass::Done { writer, tree, warnings: warnings.iter().map(ToString::to_string).collect(), recording }
        }
        Outcome::Restart(visibility) => Pass::Again(visibility),
    })
}

/// Applies the `number`th layer, counted from the topmost, from its blob.
fn apply_blob(
    inputs: &Inputs,
    number: usize,
    path: &Path,
    merge: &mut Merge,
    writer: &mut Writer,
    recording: &mut Option<Recording>,
) -> Result<(), Error> {
    let layer = &inputs.resolved.layers[inputs.resolved.layers.len() - 1 - number];
    let download = &inputs.downloads[number];
    let blob = Counted { inner: download.reader(), progress: inputs.progress.clone() };
    let mut tar = Tar::start(blob, layer, inputs.budget.clone())?;
    // Once the pass is known to be in vain, the layers below are read only for what they hide and need.
    let framing = match (recording.as_ref(), merge.must_restart()) {
        (Some(recording), false) => recording.begin(layer, &inputs.packs, writer),
        _ => None,
    };
    let applied = match framing {
        Some(mut framing) => {
            let applied = merge.apply_framed(&mut tar, writer, &mut framing);
            if let Some(recording) = recording {
                recording.end(layer, framing);
            }
            applied
        }
        None if merge.must_restart() => merge.apply_tar(&mut tar, &mut Unread),
        None => merge.apply_tar(&mut tar, writer),
    };
    let read = match applied {
        Ok(()) => tar.finish(),
        // The decoder knows better why its tar ended early.
        Err(error) => Err(tar.failure().unwrap_or_else(|| apply_error(Some(&layer.digest), path, error))),
    };
    read.map_err(|error| blame(error, layer, download, &inputs.budget))
}

/// Applies a layer from its pack.
fn apply_pack(
    inputs: &Inputs,
    layer: &Layer,
    pack: &Arc<Pack>,
    path: &Path,
    merge: &mut Merge,
    writer: &mut Writer,
) -> Result<(), Error> {
    let mut tar = Framing::new(pack.framing(), layer, inputs.budget.clone());
    let applied = if merge.must_restart() {
        merge.apply_tar(&mut tar, &mut Unread)
    } else {
        writer.next_layer(Mode::Pack(pack.clone()));
        merge.apply_tar(&mut tar, writer)
    };
    inputs.progress.add_done(layer.size);
    applied.map_err(|error| match (tar.failure(), error) {
        (Some(failure), _) => failure,
        // The tar was sound when the pack was made of it.
        (None, ApplyError::Layer(siforge_rootfs::Error::Tar(_))) => {
            Error::Pack { layer: layer.diff_id, fault: Fault::Damaged("its framing is no tar") }
        }
        (None, error) => apply_error(Some(&layer.digest), path, error),
    })
}

/// A layer's contents are to blame only when its blob is what the manifest names: one that is still on its way may prove
/// wrong at its end, and one of the cache may have changed on the disk.
fn blame(error: Error, layer: &Layer, download: &Arc<Download>, budget: &Budget) -> Error {
    if !error.may_be_the_blobs() {
        return error;
    }
    let (mut reader, mut sha) = (download.reader(), Sha256::new());
    let mut buffer = vec![0; HASH_BUFFER];
    let damaged = |source| Error::Blob { layer: layer.digest, source };
    loop {
        if budget.is_cancelled() {
            return Error::Cancelled;
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => sha.update(&buffer[..n]),
            Err(source) => {
                return source.downcast::<siforge_oci::Error>().map_or_else(damaged, Error::Oci);
            }
        }
    }
    let got = Digest::from_bytes(sha.finalize().into());
    match got == layer.digest {
        true => error,
        false => damaged(io::Error::new(io::ErrorKind::InvalidData, format!("it has become {got}"))),
    }
}

/// A writer of the partition at `offset` of `out`.
fn writer(inputs: &Inputs, contents: &Contents, out: &File, path: &Path, offset: u64) -> Result<Writer, Error> {
    let options = Options {
        codec: inputs.recipe.codec.squashfs(),
        block_size: inputs.recipe.block_size,
        threads: inputs.threads,
        memory: inputs.memory,
        // The superblock holds 1970–2106.
        mtime: contents.created.clamp(0, i64::from(u32::MAX)) as u32,
    };
    let file = out.try_clone().map_err(|source| file_error("duplicate the descriptor of", path, source))?;
    let writer = match inputs.packs.scratch() {
        Some(scratch) => Writer::recording(file, offset, options, scratch.clone()),
        None => Writer::new(file, offset, options),
    };
    writer.map_err(|source| squashfs_error(path, source))
}

/// Takes no contents.
struct Unread;

impl RootfsContents for Unread {
    type Error = siforge_squashfs::write::Error;

    fn begin_layer(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn file(&mut self, _: Option<InodeId>, _: u64, _: &mut dyn Read) -> Result<(), Self::Error> {
        Ok(())
    }

    fn end_layer(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn entry(file: &ImageFile, mtime: i64) -> Entry<'_> {
    Entry {
        path: file.path.as_bytes(),
        meta: Meta { mode: file.mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() },
        kind: match &file.kind {
            FileKind::Directory => EntryKind::Directory,
            FileKind::Regular(data) => EntryKind::File { data },
            FileKind::Symlink(target) => EntryKind::Symlink { target: target.as_bytes() },
        },
    }
}

fn apply_error(layer: Option<&Digest>, path: &Path, error: ApplyError<siforge_squashfs::write::Error>) -> Error {
    match error {
        ApplyError::Layer(source) => Error::Layer { layer: layer.copied(), source },
        ApplyError::Contents(source) => squashfs_error(path, source),
    }
}

fn squashfs_error(path: &Path, source: siforge_squashfs::write::Error) -> Error {
    match source {
        siforge_squashfs::write::Error::Pack { diff_id, fault } => {
            Error::Pack { layer: Digest::from_bytes(diff_id), fault }
        }
        siforge_squashfs::write::Error::Lacking { diff_ids } => {
            Error::Lacking { layers: diff_ids.into_iter().map(Digest::from_bytes).collect() }
        }
        source => Error::Squashfs { path: path.to_owned(), source },
    }
}

pub(crate) fn file_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { operation, path: path.to_owned(), source }
}

/// SHA-256 of the first `size` bytes.
fn hash(file: &File, size: u64, budget: &Budget) -> io::Result<Result<Digest, Error>> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER];
    let mut at = 0;
    while at < size {
        if budget.is_cancelled() {
            return Ok(Err(Error::Cancelled));
        }
        let want = usize::try_from(size - at).map_or(HASH_BUFFER, |left| left.min(HASH_BUFFER));
        file.read_exact_at(&mut buffer[..want], at)?;
        sha.update(&buffer[..want]);
        at += want as u64;
    }
    Ok(Ok(Digest::from_bytes(sha.finalize().into())))
}

/// Tells the progress how much of the blobs is read.
struct Counted<R> {
    inner: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.progress.add_done(n as u64);
        Ok(n)
    }
}
