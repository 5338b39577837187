use std::io::Read;

use crate::tree::InodeId;

/// Takes file contents in tar order, layer by layer, topmost layer first.
///
/// Every regular file of a layer is offered, also the hidden ones: what decides the image's bytes includes the layer's
/// complete list. Whiteouts, opaque markers and AUFS metadata (`.wh.*`) are not files and not offered, nor are further
/// names of a file (hard links) and the empty files that [`crate::Merge::ensure`] adds.
pub trait Contents {
    type Error;

    /// A layer begins; also called for the layer made by [`crate::Merge::apply_entries`].
    fn begin_layer(&mut self) -> Result<(), Self::Error>;

    /// One regular file, in tar order. `inode` is None if no name of it is visible in the merged tree.
    ///
    /// `data` yields exactly `size` bytes (sparse files expanded with zeros) or an error. An implementation may stop
    /// reading early; the rest is skipped. An inode id comes at most once.
    fn file(&mut self, inode: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Self::Error>;

    /// The layer is complete.
    fn end_layer(&mut self) -> Result<(), Self::Error>;
}
