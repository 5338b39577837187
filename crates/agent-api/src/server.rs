//! The agent's side: reads calls, answers varlink's own interface, and knows who calls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Connection, DESCRIPTION, Error, INTERFACE, Method, Refusal};

/// The calling process, as the kernel recorded it at connect(2) (SO_PEERCRED). Its supplementary groups
/// (SO_PEERGROUPS): `siforge_launch::peer_groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the agent's pid namespace; 0 when the caller is not visible there.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Who is at the other end of a connected Unix socket.
pub fn peer(socket: &impl AsFd) -> Result<Peer, Error> {
    // Not rustix: its type has no room for the pid 0 of a caller outside the agent's pid namespace.
    let credentials = getsockopt(socket, PeerCredentials)
        .map_err(|errno| Error::Socket { operation: "read peer credentials", source: errno.into() })?;
    Ok(Peer { pid: credentials.pid().unsigned_abs(), uid: credentials.uid(), gid: credentials.gid() })
}

/// A call of `dev.siforge.Agent`, its parameters not yet typed.
#[derive(Debug)]
pub struct Request {
    /// What is called.
    pub method: Method,
    /// A JSON object, or null.
    pub parameters: serde_json::Value,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl Request {
    /// The parameters as the method's request type.
    pub fn parameters<P: DeserializeOwned>(&self) -> Result<P, Refusal> {
        let object = if self.parameters.is_null() { serde_json::json!({}) } else { self.parameters.clone() };
        serde_json::from_value(object).map_err(|e| Refusal::InvalidParameter { parameter: e.to_string() })
    }
}

#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    parameters: serde_json::Value,
    #[serde(default)]
    oneway: bool,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    upgrade: bool,
}

#[derive(Serialize)]
struct Reply<'a, P> {
    parameters: &'a P,
}

impl Connection {
    /// The next call for the agent; calls of `org.varlink.service` and unknown methods are answered here.
    /// `version` is the agent's. `None` when the client is gone.
    pub fn read_request(&mut self, version: &str) -> Result<Option<Request>, Error> {
        while let Some(frame) = self.receive()? {
            let call: Call = serde_json::from_slice(&frame.bytes).map_err(Error::Malformed)?;
            let refusal = if call.oneway || call.more || call.upgrade {
                // No method streams, upgrades or goes unanswered.
                Refusal::InvalidParameter { parameter: "oneway, more and upgrade are not supported".to_owned() }
            } else if let Some(method) = Method::from_name(&call.method) {
                return Ok(Some(Request { method, parameters: call.parameters, descriptors: frame.descriptors }));
            } else {
                match service(&call, version) {
                    Ok(reply) => {
                        self.reply(&reply, &[])?;
                        continue;
                    }
                    Err(refusal) => refusal,
                }
            };
            self.refuse(&refusal)?;
        }
        Ok(None)
    }

    /// Answers a call.
    pub fn reply<P: Serialize>(&mut self, parameters: &P, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&Reply { parameters }).map_err(Error::Malformed)?;
        self.send(bytes, descriptors)
    }

    /// Answers a call with an error.
    pub fn refuse(&mut self, refusal: &Refusal) -> Result<(), Error> {
        self.send(serde_json::to_vec(refusal).map_err(Error::Malformed)?, &[])
    }
}

/// Varlink's introspection interface, <https://varlink.org/Service>.
fn service(call: &Call, version: &str) -> Result<serde_json::Value, Refusal> {
    match call.method.as_str() {
        "org.varlink.service.GetInfo" => Ok(serde_json::json!({
            "vendor": "siforge",
            "product": "siforge-agent",
            "version": version,
            "url": "https://siforge.dev",
            "interfaces": ["org.varlink.service", INTERFACE],
        })),
        "org.varlink.service.GetInterfaceDescription" => {
            let interface = call.parameters.get("interface").and_then(|i| i.as_str());
            match interface {
                Some(INTERFACE) => Ok(serde_json::json!({ "description": DESCRIPTION })),
                Some(other) => Err(Refusal::InterfaceNotFound { interface: other.to_owned() }),
                None => Err(Refusal::InvalidParameter { parameter: "interface".to_owned() }),
            }
        }
        method => Err(match method.rsplit_once('.') {
            Some((interface, _)) if interface != INTERFACE && interface != "org.varlink.service" => {
                Refusal::InterfaceNotFound { interface: interface.to_owned() }
            }
            _ => Refusal::MethodNotFound { method: method.to_owned() },
        }),
    }
}
