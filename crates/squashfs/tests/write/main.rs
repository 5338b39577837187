//! The writer, judged by the kernel and by squashfs-tools.
