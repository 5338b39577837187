//! The test harness: starts real parts (registry, Kubernetes API server, Slurm) on free ports of 127.0.0.1, each in a
//! folder of its own, and takes every process down again.
//!
//! ```text
//!   test binary ──pipe──> siforge-test-guard ──> docker-registry | etcd | slurmd | siforge-agent | …
//!        │ dies, by whatever signal: the pipe closes        │
//!        └──────────────────────────────────────────────────┴─> the guard ends the part and all it started
//! ```
//!
//! A part is stopped when its value is dropped. Values in statics ([`Cluster::shared`]) are never dropped; the closed
//! pipe ends them with the test binary. Nothing here skips: what a test needs and the machine lacks is a panic that
//! says what to install ([`need`]).
//!
//! [`Cluster::shared`]: cluster::Cluster::shared

pub mod apptainer;
pub mod bench;
pub mod binaries;
pub mod cluster;
pub mod config;
pub mod cosign;
pub mod demo;
pub mod fuse;
pub mod image;
pub mod images;
pub mod listing;
pub mod need;
pub mod node;
pub mod overlay;
pub mod ports;
pub mod process;
pub mod registry;
pub mod run;
pub mod siforge;
pub mod site;
pub mod slurm;
pub mod source;
pub mod tar;
pub mod user;
pub mod wait;

pub use binaries::binary;
pub use cluster::Cluster;
pub use image::{Compression, Image, push, push_index};
pub use listing::Listing;
pub use node::Node;
pub use ports::free_port;
pub use process::Process;
pub use registry::Registry;
pub use run::{Finished, run};
pub use siforge::Siforge;
pub use slurm::Slurm;
pub use tar::Tar;
pub use user::User;
pub use wait::wait_until;
