//! The pipeline: source + recipe → artifact.
//!
//! ```text
//!  reference ──oci::resolve──▶ Source ────┬─▶ oci::fetch (async, ≤ 4 blobs at once, topmost layer first)
//!       layout, archive ─────────▲        │        │ cache: blobs/sha256/ab/<hex>; local layers are read in place
//!                                         │        ▼ written watermark
//!                                         └─▶ one thread: decode ─▶ rootfs::Merge ─▶ squashfs::Writer ─▶ SIF in place
//!                                                  (diff_id checked)     (top-down)       (parallel)         │
//!                                                                              hashed once ◀─ sif::Draft ◀───┘
//!                                                                                   └─▶ store::publish | a file
//! ```
//!
//! A layer whose pack is there is neither fetched nor decoded: `packs.rs`.
//!
//! The image digest is the SHA-256 of the unsigned SIF. Its only inputs are the platform manifest's digest, the
//! canonical repository and the [`Recipe`]: no clock, host, program version or thread count.

mod convert;
mod decode;
pub mod definition;
mod error;
mod fetch;
#[cfg(test)]
mod golden;
mod output;
mod packs;
mod progress;
mod provenance;
mod recipe;
mod run;
mod shadow;
mod source;
pub mod source_tree;

pub use convert::inspect_json;
pub use error::{Error, chain};
pub use fetch::Reuse;
pub use output::Output;
pub use progress::{BlobState, Phase, Progress, Snapshot};
pub use provenance::manifest_of;
pub use recipe::{Codec, ENGINE_FORMAT, Limits, Recipe};
pub use run::{Built, Destination, Pulled, Settings, build, pull};
pub use source::{Image, Name, Source};
