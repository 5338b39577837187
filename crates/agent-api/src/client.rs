//! The caller's side: one typed function per method.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    Connection, Error, LeaseId, Limits, Method, MountReply, MountRequest, Refusal, ReleaseRequest, ResolveReply,
    ResolveRequest, StatusReply, WarmReply, WarmRequest,
};

/// A connection to the agent; calls are made one after the other.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

#[derive(Serialize)]
struct Call<'a, P> {
    method: &'static str,
    parameters: &'a P,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    parameters: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl Client {
    /// Connects to the agent's socket with [`Limits::CLIENT`].
    pub fn connect(path: &Path) -> Result<Client, Error> {
        Client::connect_with(path, Limits::CLIENT)
    }

    /// Connects with other limits; `limits.idle` is the longest wait for a reply.
    pub fn connect_with(path: &Path, limits: Limits) -> Result<Client, Error> {
        let stream = UnixStream::connect(path).map_err(|source| Error::Connect { path: path.to_path_buf(), source })?;
        Ok(Client { connection: Connection::new(stream, limits)? })
    }

    /// Mounts an image. `user_namespace` is the caller's new user namespace, whose gid_map the agent shall write; the
    /// request's field of that name is set accordingly.
    pub fn mount(
        &mut self,
        request: &MountRequest,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(MountReply, OwnedFd), Error> {
        self.ask_mount(request, user_namespace)?;
        self.mounted()
    }

    /// The first half of [`Client::mount`]: asks, and does not wait. The next call has to be [`Client::mounted`].
    pub fn ask_mount(&mut self, request: &MountRequest, user_namespace: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let request = MountRequest { user_namespace: user_namespace.map(|_| true), ..request.clone() };
        self.send(Method::Mount, &request, user_namespace.as_slice())
    }

    /// The second half: waits for what [`Client::ask_mount`] asked for.
    pub fn mounted(&mut self) -> Result<(MountReply, OwnedFd), Error> {
        let (reply, mut descriptors) = self.receive()?;
        match descriptors.pop() {
            Some(mount) if descriptors.is_empty() => Ok((reply, mount)),
            last => {
                let got = descriptors.len() + usize::from(last.is_some());
                Err(Error::Descriptors { method: Method::Mount.name(), got, want: 1 })
            }
        }
    }

    /// Mounts an image ahead of need.
    pub fn warm(&mut self, request: &WarmRequest) -> Result<WarmReply, Error> {
        self.call(Method::Warm, request)
    }

    /// Gives up a lease.
    pub fn release(&mut self, lease: &str) -> Result<(), Error> {
        let request = ReleaseRequest { lease: LeaseId::from(lease) };
        self.call::<_, Nothing>(Method::Release, &request).map(drop)
    }

    /// Asks what a reference stands for.
    pub fn resolve(&mut self, reference: &str) -> Result<ResolveReply, Error> {
        let request = ResolveRequest { reference: reference.to_owned() };
        self.call(Method::Resolve, &request)
    }

    /// Asks for the agent's state.
    pub fn status(&mut self) -> Result<StatusReply, Error> {
        self.call(Method::Status, &Nothing {})
    }

    fn call<P: Serialize, R: DeserializeOwned>(&mut self, method: Method, parameters: &P) -> Result<R, Error> {
        self.send(method, parameters, &[])?;
        self.receive().map(|(reply, _)| reply)
    }

    fn send<P: Serialize>(
        &mut self,
        method: Method,
        parameters: &P,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let call = serde_json::to_vec(&Call { method: method.name(), parameters }).map_err(Error::Malformed)?;
        match self.connection.send(call, descriptors) {
            // Refused before it was asked: what it says, which is why, is still to be received.
            Ok(()) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn receive<R: DeserializeOwned>(&mut self) -> Result<(R, Vec<OwnedFd>), Error> {
        let frame = self.connection.receive()?.ok_or(Error::Closed)?;
        let envelope: Envelope = serde_json::from_slice(&frame.bytes).map_err(Error::Malformed)?;
        let parameters = envelope.parameters.unwrap_or_else(|| serde_json::json!({}));
        match envelope.error {
            Some(error) => Err(Error::Refused(refusal(&error, parameters))),
            None => {
                let reply = serde_json::from_value(parameters).map_err(Error::Malformed)?;
                Ok((reply, frame.descriptors))
            }
        }
    }
}

/// The typed refusal; an error that a newer agent invented is kept as an internal one with its name.
fn refusal(error: &str, parameters: serde_json::Value) -> Refusal {
    let message = parameters.get("message").and_then(|m| m.as_str()).map(str::to_owned);
    let whole = serde_json::json!({ "error": error, "parameters": parameters });
    serde_json::from_value(whole).unwrap_or_else(|_| Refusal::Internal {
        message: match message {
            Some(message) => format!("{error}: {message}"),
            None => error.to_owned(),
        },
    })
}
