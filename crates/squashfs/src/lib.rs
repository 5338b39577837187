//! Squashfs 4.0 images: a streaming, parallel, deterministic writer (feature `write`), a reader for
//! images from anywhere and an unpacker (feature `read`). [`format`] draws what is on disk.

pub mod format;
#[cfg(feature = "read")]
pub mod read;
#[cfg(feature = "write")]
pub mod write;

#[cfg(feature = "write")]
pub use write::{Codec, Options};
