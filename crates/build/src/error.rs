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
    #[error("decoding layer {layer} as {compression:?}: {source}")]
    Decode {
        layer: Digest,
        compression: Compression,
        source: io::Error,
    },
    #[error(
        "layer {layer} decodes to sha256 {got}, but the image config's diff_id is {want}: the image is damaged, push it again"
    )]
    DiffId {
        layer: Digest,
        got: Digest,
        want: Digest,
    },
    #[error("layer {layer} brings the image over the limit of {limit} uncompressed bytes")]
    TooLarge { layer: Digest, limit: u64 },
    #[error(
        "layer {layer} decompresses to more than {limit} times its size ({bytes} bytes so far): refused as a decompression bomb"
    )]
    Ratio {
        layer: Digest,
        limit: u64,
        bytes: u64,
    },
    /// `layer` is None for what siforge adds to every image.
    #[error("applying layer {}: {source}", layer.as_ref().map_or_else(|| "(.singularity.d)".into(), Digest::to_string))]
    Layer {
        layer: Option<Digest>,
        source: siforge_rootfs::Error,
    },
    #[error("the image config of {image}: {source}")]
    Config {
        image: String,
        source: siforge_sif::image_config::Error,
    },
    #[error("the image has no layer at all: {image}")]
    NoLayers { image: String },
    #[error("writing the squashfs image: {0}")]
    Squashfs(#[from] siforge_squashfs::write::Error),
    #[error("writing the SIF: {0}")]
    Sif(#[from] siforge_sif::writer::Error),
    #[error(transparent)]
    Store(#[from] siforge_store::Error),
    #[error("{operation} {path}: {source}", path = path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
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
    /// The layer whose bytes were not what they should be, if that is what happened.
    pub(crate) fn damaged_layer(&self) -> Option<&Digest> {
        match self {
            Self::Decode { layer, .. } | Self::DiffId { layer, .. } => Some(layer),
            _ => None,
        }
    }
}
