//! Image references: the one grammar that the CLI, Slurm, the API and annotations share. Pure.
//!
//! ```text
//!   docker://[registry/]repository[:tag][@sha256:hex]      an image in an OCI/Docker registry
//!   oras://registry/repository[:tag][@sha256:hex]          a SIF in a registry
//!   https://host/path/image.sif  http://…                  a SIF on a web server
//!   sif://namespace/name[@sha256:hex]                      an image in the store
//!   oci:path[selector]  oci-archive:path[selector]  docker-archive:path[selector]
//!                                                          selector: :name | :@n | @sha256:hex
//!   docker-daemon:name:tag
//!   /path  ./path  ../path  anything.sif                   a .sif file or a directory
//!   namespace/name  name                                   a path if one exists, else in the store
//! ```
//!
//! Each of them is printed by `Display` in a form that parses to the same value.

mod digest;
mod error;
mod image;
mod parse;
mod selector;
mod store;

pub use digest::Digest;
pub use error::ParseError;
pub use image::ImageRef;
pub use parse::{Context, Reference};
pub use selector::Selector;
pub use store::StoreRef;
