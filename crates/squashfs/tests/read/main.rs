//! The reader and unpacker, judged by the trees that mksquashfs took and by broken images. `unprivileged.rs` needs root to
//! become an ordinary user, and so do the sample's modes.

mod access;
mod codecs;
mod hostile;
mod mksquashfs;
mod mutations;
#[cfg(feature = "write")]
mod ours;
mod sample;
mod seen;
mod unprivileged;
