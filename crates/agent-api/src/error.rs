//! What can go wrong: the agent refuses ([`Refusal`], part of the interface), or the exchange itself fails ([`Error`]).

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The interface's errors. Each message is written for the person who asked, and says what to do where that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", content = "parameters")]
pub enum Refusal {
    /// No such image.
    #[error("{message}{}", nearest.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
    #[serde(rename = "dev.siforge.Agent.NotFound")]
    NotFound {
        /// For the person who asked.
        message: String,
        /// A name that does exist and that the caller may see.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nearest: Option<String>,
    },
    /// The access rules do not let the caller use this image.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.NotAllowed")]
    NotAllowed {
        /// For the person who asked.
        message: String,
    },
    /// The image exists but is not built yet, or the agent is starting.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.NotReady")]
    NotReady {
        /// For the person who asked.
        message: String,
    },
    /// The artifact does not have its digest, or its structure is broken.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.Damaged")]
    Damaged {
        /// For the person who asked.
        message: String,
    },
    /// Too much is being asked at once.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.Busy")]
    Busy {
        /// For the person who asked.
        message: String,
    },
    /// The reference does not follow the grammar, or is not one that the agent serves.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.InvalidReference")]
    InvalidReference {
        /// For the person who asked.
        message: String,
    },
    /// The agent failed for a reason that is not the caller's.
    #[error("{message}")]
    #[serde(rename = "dev.siforge.Agent.Internal")]
    Internal {
        /// For the person who asked.
        message: String,
    },
    /// Varlink: no such interface.
    #[error("the agent has no interface {interface}")]
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound {
        /// The interface that was asked for.
        interface: String,
    },
    /// Varlink: no such method.
    #[error("the agent has no method {method}: it may be older or newer than this program")]
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound {
        /// The method that was called.
        method: String,
    },
    /// Varlink: a parameter is missing, of the wrong type or out of range.
    #[error("the agent does not accept the parameter: {parameter}")]
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter {
        /// The parameter's name, or what is wrong with it.
        parameter: String,
    },
}

/// The exchange with the peer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or the socket may not be used.
    #[error("connect to the agent at {}: {source} (is siforge-agent running on this node?)", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call on the connection failed.
    #[error("{operation} on the agent's socket: {source}")]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The peer did not answer, or did not finish its message, in time.
    #[error("no complete message on the agent's socket within {} ms", limit.as_millis())]
    TimedOut {
        /// The limit that was hit.
        limit: std::time::Duration,
    },
    /// The peer closed the connection in the middle of an exchange.
    #[error("the agent's socket was closed before a complete message came")]
    Closed,
    /// A message is longer than [`crate::Limits::message`].
    #[error("message on the agent's socket exceeds {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A message came with more descriptors than [`crate::Limits::descriptors`].
    #[error("message on the agent's socket carries more than {limit} descriptors")]
    TooManyDescriptors {
        /// The limit.
        limit: usize,
    },
    /// Bytes of a second message came with the first: calls are one at a time here.
    #[error("more than one message at a time on the agent's socket")]
    Pipelined,
    /// A message is not what varlink says it should be.
    #[error("malformed varlink message: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The reply's descriptors are not those its method promises.
    #[error("the agent's reply to {method} carries {got} descriptors instead of {want}")]
    Descriptors {
        /// The method that was called.
        method: &'static str,
        /// How many came.
        got: usize,
        /// How many should have come.
        want: usize,
    },
    /// The agent refused, and says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
