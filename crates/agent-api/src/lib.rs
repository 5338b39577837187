//! The node agent's interface `dev.siforge.Agent`: the contract that agent, CLI and SPANK plugin read.
//!
//! [Varlink](https://varlink.org) over a Unix stream socket, with file descriptors passed by SCM_RIGHTS as
//! systemd's varlink services do. A message is one JSON object and a NUL byte; the descriptors that belong to it
//! travel with its bytes:
//!
//! ```text
//!  client → agent   {"method":"dev.siforge.Agent.Mount","parameters":{…}}\0     [0 or 1 descriptor: user namespace]
//!  agent  → client  {"parameters":{…}}\0                                        [0 or 1 descriptor: detached mount]
//!                   {"error":"dev.siforge.Agent.NotFound","parameters":{"message":…}}\0
//! ```
//!
//! Synchronous and small on purpose: it is on the hot path of every launch and inside slurmstepd's task.
//! Every message, descriptor count and wait has a limit ([`Limits`]).

mod client;
mod error;
mod frame;
mod interface;
mod marker;
mod server;

pub use client::Client;
pub use error::{Error, Refusal};
pub use frame::{Connection, Frame, Limits};
pub use interface::{
    DEFAULT_SOCKET, DESCRIPTION, INTERFACE, LeaseId, Method, MountReply, MountRequest, MountStatus, ReleaseRequest,
    ResolveReply, ResolveRequest, StatusReply, WarmReply, WarmRequest,
};
pub use marker::{MARKER, MARKER_LIMIT, Marker};
pub use server::{Peer, Request, peer};
