//! The writer, judged by the kernel (loop mounts, so these tests need root) and by squashfs-tools.

mod bytes;
mod image;
mod layer;
mod refusals;
mod sample;
mod seen;
