//! The executor, judged by the kernel: what processes inside see of mounts, ids, capabilities and signals.
//! Needs root, busybox (static), mksquashfs and setpriv; ordinary users are played by setpriv.

mod agent;
mod behaviour;
mod support;
mod tree;
