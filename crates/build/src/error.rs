//! Why a build failed.

use siforge_oci::Compression;
use siforge_reference::Digest;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry's side: has a reaction of its own.
    #[error(transparent)]
    Oci(#[from] siforge_oci::Error),
    /// A definition file's sections.
    #[error(transparent)]
    Definition(#[from] crate::definition::Error),
    /// What is on this machine's disk is not what was verified when it came.
    #[error("the copy of layer {layer} on the disk is damaged: {source}")]
    Blob { layer: Digest, source: io::Error },
    /// An archive or layout that is not what its own documents say.
    #[error("{image}: layer {layer} is damaged: {source}")]
    Damaged { image: String, layer: Digest, source: io::Error },
    #[error("{image}: {source}")]
    ForeignSif { image: String, source: siforge_sif::Error },
    #[error("{image}: {detail}")]
    Foreign { image: String, detail: String },
    /// Reading a tree of files; `source` names the file.
    #[error("{image}: {source}")]
    Tree { image: String, source: io::Error },
    #[error(transparent)]
    Local(#[from] siforge_oci::local::Error),
    #[error("decoding layer {layer} as {compression:?}: {source}")]
    Decode { layer: Digest, compression: Compression, source: io::Error },
    /// A layer's pack does not serve; `layer` is the diff_id.
    #[error("the pack of layer {layer} {fault}")]
    Pack { layer: Digest, fault: siforge_squashfs::write::pack::Fault },
    /// Other images hid what this one shows; `layers` are the diff_ids, each once.
    #[error("the packs of {} layers lack contents that are needed here", layers.len())]
    Lacking { layers: Vec<Digest> },
    #[error("save the pack of layer {layer}: {source}")]
    SavePack { layer: Digest, source: io::Error },
    #[error(
        "layer {layer} decodes to sha256 {got}, but the image config's diff_id is {want}: the image is damaged, push it again"
    )]
    DiffId { layer: Digest, got: Digest, want: Digest },
    #[error("layer {layer} brings the image over the limit of {limit} uncompressed bytes")]
    TooLarge { layer: Digest, limit: u64 },
    #[error(
        "layer {layer} decompresses to more than {limit} times its size ({bytes} bytes so far): refused as a decompression bomb"
    )]
    Ratio { layer: Digest, limit: u64, bytes: u64 },
    /// `layer` is None for what only all of them together show: a hard link whose target none has.
    #[error("applying {}: {source}", layer.as_ref().map_or_else(|| "the layers".into(), |layer| format!("layer {layer}")))]
    Layer { layer: Option<Digest>, source: siforge_rootfs::Error },
    #[error("the image config of {image}: {source}")]
    Config { image: String, source: siforge_sif::image_config::Error },
    #[error("the image has no layer at all: {image}")]
    NoLayers { image: String },
    #[error("writing the squashfs image of {path}: {source}", path = path.display())]
    Squashfs { path: PathBuf, source: siforge_squashfs::write::Error },
    #[error("writing the SIF: {0}")]
    Sif(#[from] siforge_sif::writer::Error),
    #[error(transparent)]
    Store(#[from] siforge_store::Error),
    #[error("{operation} {path}: {source}", path = path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("image file already exists: {path:?} - will not overwrite; use --force")]
    Exists { path: PathBuf },
    #[error("starting a thread: {source}")]
    Thread { source: io::Error },
    #[error("the decoder thread ended without a verdict (a bug)")]
    DecoderGone,
    #[error("the build was cancelled")]
    Cancelled,
    #[error("the conversion thread panicked (a bug): {0}")]
    Panicked(String),
}

impl Error {
    /// Whether this machine is at fault (a full disk, no more threads) and not the image: trying again may help.
    pub fn is_local(&self) -> bool {
        use siforge_squashfs::write::Error as Squashfs;
        match self {
            Self::Local(error) => error.is_local(),
            Self::File { .. }
            | Self::Blob { .. }
            | Self::Thread { .. }
            | Self::DecoderGone
            | Self::Panicked(_)
            | Self::Cancelled
            | Self::Sif(siforge_sif::writer::Error::Write { .. }) => true,
            Self::Squashfs { source, .. } => matches!(
                source,
                Squashfs::Write { .. } | Squashfs::Truncate { .. } | Squashfs::Spawn(_) | Squashfs::Panicked { .. }
            ),
            _ => false,
        }
    }

    /// Whether a blob that is not what the manifest names can look like this. Limits are not among it: what is too large is
    /// not fetched to its end first.
    pub(crate) fn may_be_the_blobs(&self) -> bool {
        use siforge_rootfs::{Error as Rootfs, tar};
        match self {
            Self::Decode { .. } | Self::DiffId { .. } => true,
            Self::Layer { source, .. } => match source {
                Rootfs::Tar(tar::Error::TooLong { .. }) => false,
                Rootfs::Tar(_) => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// The layer whose copy on the disk is damaged, if that is what happened.
    pub(crate) fn damaged_layer(&self) -> Option<&Digest> {
        match self {
            Self::Blob { layer, .. } => Some(layer),
            _ => None,
        }
    }
}

/// An error and its causes in one line; a cause that its effect already tells is not told twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
