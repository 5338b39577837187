//! siforge's controller: SingularityImages → artifacts and refs in the store.
//!
//! ```text
//!  watch SingularityImages ─┐
//!  watch Secrets, ConfigMaps,├─▶ reconcile: observe ─▶ validate ─▶ plan ─▶ apply ─▶ status
//!   namespaces (metadata)    │                                                │
//!  queue: resolved, progress,┘◀── resolve, build (bounded, fair, single flight)◀┘
//!   built
//! ```
//!
//! `observe` and `apply` await, `validate`, `inputs`, `plan` and `status::project` decide and are pure.

pub mod cli;
pub mod config;
pub mod controller;

mod apply;
mod context;
mod credentials;
mod events;
mod failure;
mod fair;
mod finalizer;
mod flight;
mod http;
mod inputs;
mod interest;
mod leader;
mod metrics;
mod observe;
mod plan;
mod queue;
mod reconcile;
mod status;
mod units;
mod validate;
mod work;
