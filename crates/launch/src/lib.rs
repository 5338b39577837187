//! Namespaces, id maps, mounts and the process, from a pure [`Plan`].
//!
//! Knows nothing of SIF, OCI or Slurm: it gets a descriptor, an offset, a file system type and a Plan.
//! All `unsafe` of the project lives in [`syscall`] and in `fuse` here (and at the C edge of node-agent/spank).
//!
//! ```text
//!  Request + Host ── plan::make (pure) ──▶ Plan ── begin, enter_… / build_namespace ──▶ exec
//!
//!  ordinary user                            root, or a task with CAP_SYS_ADMIN
//!  UserNamespace::create                    unshare(NEWNS)
//!  (the agent writes gid_map, sends fd)
//!  unshare(NEWNS …)
//!        └────────────── root over "/", binds, pivot_root, chdir, exec ──────────────┘
//! ```

mod accounts;
mod error;
mod exec;
mod feign;
mod fuse;
mod host;
mod image;
mod loopdev;
mod mounts;
mod overlay;
mod peer;
pub mod plan;
mod process;
mod request;
mod root;
pub mod syscall;
mod userns;
mod workshop;

pub use error::Error;
pub use exec::{Begun, begin, build_namespace, drop_privileges, enter_directory, join_namespace};
pub use fuse::{clone_fuse_device, fuse_available, mount_fuse};
pub use host::{Host, UserEntry, path_kind};
pub use image::{attach, clone_detached, mount_loop_device, mount_squashfs};
pub use loopdev::LoopDevice;
pub use overlay::{Layers, replace_lower};
pub use peer::{map_peer_groups, peer_groups};
pub use plan::{Mount, PathKind, Plan, Source};
pub use request::{Bind, BindError, Contain, Home, Namespaces, NoMount, Overlay, Request};
pub use root::RootFs;
pub use userns::{Groups, Subordinate, UserNamespace, has_other_ids, idmap_namespace};
pub use workshop::{in_child, in_workshop, run, writable_overlay};
