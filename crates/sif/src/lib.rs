//! SIF, the Singularity Image Format: a hardened reader, a canonical writer, and what an OCI image config becomes in an image.
//!
//! ```text
//! 0        128          4096                    32176                              next multiple of 4096
//! ├ header ┼ zeros ──── ┼ 48 descriptors × 585 ─┼ objects, one after the other ──┼ zeros ┼ partition (squashfs) ┤ padded to 4096
//! ```
//!
//! The layout follows what Apptainer 1.4 writes (package `sif` of github.com/sylabs/sif, `pkg/sif/{sif,descriptor}.go`); every number
//! is little endian. Deterministic: time and uuid are arguments, owners are 0, nothing of the host is written.
//!
//! - [`format`]: header, descriptor, data types, architectures: bytes ↔ values.
//! - [`reader`]: [`Sif`], for files from anywhere.
//! - [`writer`]: [`Draft`], the canonical form, the partition streamed in place.
//! - [`edit`]: [`edit::Editor`], changes to a file that is there; sound at every moment.
//! - [`image_config`]: OCI config JSON → what is added to the root file system and to the SIF.
//! - [`process`]: what a launch runs: environment and argv, without a shell.
//! - [`observe`]: what a launcher must see of an image's root to choose between the two ways of [`process`].
//! - [`show`]: header and descriptors as siftool prints them.
//! - [`inspect`]: the metadata that `inspect` prints.

pub mod edit;
pub mod format;
mod gojson;
pub mod image_config;
pub mod inspect;
pub mod observe;
pub mod process;
pub mod reader;
pub mod show;
pub mod writer;

pub use format::{Arch, DataType, Descriptor, Filesystem, Header};
pub use reader::{Error, Partition, Sif};
pub use writer::{Draft, Object};
