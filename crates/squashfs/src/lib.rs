//! Squashfs 4.0 images: a streaming, parallel, deterministic writer (feature `write`). [`format`] draws what is on disk.

pub mod format;
#[cfg(feature = "write")]
pub mod write;

#[cfg(feature = "write")]
pub use write::{Codec, Options};
