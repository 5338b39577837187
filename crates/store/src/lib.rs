//! The store: artifacts on shared storage, correct on NFS and Lustre with neither flock nor trusted clocks nor fresh listings.
//!
//! Three kinds of writer meet here: the builder (artifacts, refs, recipes, blobs, claims), each node's agent (its own lease, nothing
//! else) and the per-user cache of the CLI (a store or a [`Blobs`] of its own). What they rely on is `link(2)`, which never replaces a
//! name, `rename(2)`, which replaces one at once, `fsync(2)` of files and directories, and that `open(2)` by name sees what was
//! closed before (NFS close-to-open). Nothing relies on locks, on listings being complete, or on two machines' clocks agreeing.
//!
//! - [`layout`]: every path is made there. [`names`]: which names a path holds.
//! - [`publish`]: an artifact appears whole or not at all. [`refs`]: what a name points at, with history and fencing.
//! - [`access`]: who may launch. [`shadows`]: artifact → its image in a pod. [`recipes`]: recipe key → artifact. [`blobs`], [`packs`]: the layer cache; [`cache`]: what goes when it is full.
//! - [`claims`]: "I am building this". [`leases`]: "this node uses these".
//!
//! What is later garbage collected is decided from these files alone: refs (with tombstones), leases (with counters), recipes.

pub mod access;
pub mod blobs;
pub mod cache;
pub mod claims;
mod durable;
mod error;
pub mod layout;
pub mod leases;
pub mod leftovers;
pub mod names;
mod origins;
pub mod packs;
pub mod publish;
pub mod recipes;
pub mod refs;
pub mod shadows;
mod store;
pub mod writer;

pub use access::{Access, Caller, Namespaces};
pub use blobs::{Blobs, PendingBlob};
pub use claims::{Acquired, Claim, Holder, Watch};
pub use error::Error;
pub use layout::Layout;
pub use leases::{Lease, LeaseWriter};
pub use leftovers::Leftover;
pub use packs::{Packs, PendingPack};
pub use publish::{Linked, Pending, Visibility};
pub use recipes::RecipeRecord;
pub use refs::{Provenance, Ref, RefContent, Written};
pub use shadows::Shadow;
pub use store::Store;
