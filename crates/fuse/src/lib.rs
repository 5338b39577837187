//! A squashfs image served over FUSE: no libfuse, no fusermount. Whoever mounted the file system hands over /dev/fuse.
//!
//! ```text
//!  kernel ── request ──▶ /dev/fuse ── read(2) ──▶ worker ── files.rs ──▶ squashfs reader
//!         ◀── reply ───            ◀── write(2) ── │
//!                                                  └ one thread, and one clone of the device, per worker
//! ```
//!
//! The image never changes, which makes the server simple and its calls few:
//! - Names, attributes, absent names, symlinks and contents are the kernel's to keep for ever.
//! - Opening needs no answer (ENOSYS, once): there are no handles, and nothing is released or flushed.
//! - A node's id is the place of its inode in the image, so there is no table of nodes and nothing to forget.
//!
//! What the image says is checked by the reader; whatever is wrong with it becomes EIO.
//!
//! Source: include/uapi/linux/fuse.h, fs/fuse/ of Linux.

mod directory;
mod files;
mod protocol;
mod server;

pub use files::{Owners, limits};
pub use server::{Error, serve};
