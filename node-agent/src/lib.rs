//! The node agent: mounts each image once per node with the kernel, and hands copies of the mount to whoever may launch it.
//!
//! ```text
//!   CLI, SPANK plugin ──varlink, SO_PEERCRED──▶ server ─▶ requests ─▶ node ─┬─ authorise   whose image is it (pure)
//!                     ◀──detached mount fd────                              ├─ table       what is mounted, what next (pure)
//!                                                                           ├─ integrity   is it what it says
//!   slurmd ──▶ siforge-agent slurm prolog|epilog ──varlink──▶ (the same)    ├─ mounts      loop device, squashfs, copies
//!                                                                           └─ node_lease  the store knows what is in use
//!   containerd ──HTTP, loopback, token──▶ registry ─▶ shadow   an image of a few kB that stands for an artifact in a pod (pure)
//!   siforge-runtime ──varlink, for a pod's namespace──▶ (as the CLI)
//! ```
//!
//! It runs as root on every node, so it stays small: synchronous, a thread per connection, no async runtime; of an image it reads
//! the SIF header and the squashfs superblock's length, the rest is the kernel's. It links neither registry client nor squashfs
//! writer nor the builder.
//!
//! A kill -9 costs nobody anything: mounts belong to the kernel, and the next agent finds them ([`adopt`]).

pub mod admission;
pub mod adopt;
pub mod authorise;
pub mod cli;
pub mod config;
pub mod idmap;
pub mod install;
pub mod integrity;
pub mod leases;
pub mod loops;
pub mod mounts;
pub mod nearest;
pub mod node;
pub mod node_lease;
pub mod registry;
pub mod requests;
pub mod server;
pub mod shadow;
pub mod slurm;
pub mod state_dir;
pub mod state_file;
pub mod status;
pub mod table;
