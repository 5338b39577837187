//! OCI layers → one merged tree. File contents go to a visitor while the tar is read.
//!
//! Layers are applied from the topmost down, so that what is hidden is known before its bytes are met:
//!
//! ```text
//!   our entries   .singularity.d …      apply_entries ─┐                  ┌→ Contents::file(inode | None, bytes)
//!   layer n       top of the image      apply_tar      ├─ Merge ──────────┤
//!   …                                   …              │  (one tree)      └→ finish → Tree | Restart(Visibility)
//!   layer 1       base of the image     apply_tar     ─┘
//! ```
//!
//! What a layer means is the OCI image specification's "Image Layer Filesystem Changeset" (`layer.md`). Where that is
//! silent we do what a kernel overlay mount of the separately extracted layers shows, and for hard links across layers
//! what umoci does. See [`Merge`] for the rules.

mod contents;
mod entry;
mod error;
mod limits;
mod merge;
mod path;
pub mod tar;
mod tree;
mod visibility;

pub use contents::Contents;
pub use entry::{Entry, EntryKind};
pub use error::{ApplyError, Error};
pub use limits::Limits;
pub use merge::{Ensure, Merge, Outcome, Warning};
pub use tree::{Inode, InodeId, Kind, Meta, Tree};
pub use visibility::Visibility;
