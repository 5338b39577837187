//! Each method of the interface: parameters and caller in, reply or refusal out.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use siforge_agent_api::{
    Connection, Error, Method, MountReply, MountRequest, Peer, Refusal, ReleaseRequest, Request, ResolveReply,
    ResolveRequest, StatusReply, WarmReply, WarmRequest,
};
use siforge_reference::Digest;
use siforge_store::Caller;

use crate::authorise;
use crate::node::{self, Node, chain};

/// A request is answered within this: before a client's own patience ends (`Limits::CLIENT`), so that it learns why.
const ANSWER_WITHIN: Duration = Duration::from_secs(570);
/// Most bytes of /proc/PID/cgroup that are looked at.
const CGROUP_LIMIT: u64 = 64 * 1024;

/// Answers one request. An error means that the connection is of no more use.
pub fn answer(node: &Arc<Node>, peer: Peer, request: Request, connection: &mut Connection) -> Result<(), Error> {
    let method = request.method;
    let outcome = caller_of(peer, connection).and_then(|caller| match method {
        Method::Mount => mount(node, peer, &caller, &request).map(Answer::Mount),
        Method::Warm => warm(node, &caller, &request).map(Answer::Warm),
        Method::Release => release(node, &caller, &request).map(|()| Answer::Nothing),
        Method::Resolve => resolve(node, &caller, &request).map(Answer::Resolve),
        Method::Status => Ok(Answer::Status(status(node, &caller))),
    });
    match outcome {
        Ok(Answer::Mount((reply, mount))) => connection.reply(&reply, &[mount.as_fd()]),
        Ok(Answer::Warm(reply)) => connection.reply(&reply, &[]),
        Ok(Answer::Resolve(reply)) => connection.reply(&reply, &[]),
        Ok(Answer::Status(reply)) => connection.reply(&reply, &[]),
        Ok(Answer::Nothing) => connection.reply(&serde_json::json!({}), &[]),
        Err(refusal) => {
            tracing::info!(method = method.name(), uid = peer.uid, pid = peer.pid, %refusal, "refused");
            connection.refuse(&refusal)
        }
    }
}

enum Answer {
    Mount((MountReply, OwnedFd)),
    Warm(WarmReply),
    Resolve(ResolveReply),
    Status(StatusReply),
    Nothing,
}

/// Who calls, by what the kernel recorded at connect(2): uid, gid and supplementary groups. A process of a pod is refused, and so is
/// one that is not to be seen from here: its uid says nothing about who it is.
fn caller_of(peer: Peer, connection: &Connection) -> Result<Caller, Refusal> {
    let refused = |message: String| Refusal::NotAllowed { message };
    let path = format!("/proc/{}/cgroup", peer.pid);
    let cgroup =
        read_limited(&path).map_err(|error| refused(format!("who calls cannot be told: read {path}: {error}")))?;
    if authorise::is_in_pod(&cgroup) {
        return Err(refused("pods get images by their runtime class or as a volume, not by this socket".to_owned()));
    }
    let internal = |error: siforge_launch::Error| Refusal::Internal { message: chain(&error) };
    let mut gids = siforge_launch::peer_groups(connection.stream()).map_err(internal)?;
    if !gids.contains(&peer.gid) {
        gids.push(peer.gid);
    }
    Ok(Caller { uid: peer.uid, gids, namespace: None })
}

fn read_limited(path: &str) -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::open(path)?.take(CGROUP_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn mount(node: &Arc<Node>, peer: Peer, caller: &Caller, request: &Request) -> Result<(MountReply, OwnedFd), Refusal> {
    let asked: MountRequest = request.parameters()?;
    let user_namespace = match (asked.user_namespace.unwrap_or(false), request.descriptors.as_slice()) {
        (true, [namespace]) => Some(namespace),
        (false, []) => None,
        _ => {
            return Err(Refusal::InvalidParameter { parameter: "user_namespace".to_owned() });
        }
    };
    let caller = &on_behalf_of(caller, &asked)?;
    let (_, granted) = node.resolve(&asked.reference, caller).map_err(refusal)?;
    let pinned = node.hold(&granted.digest, Instant::now() + ANSWER_WITHIN).map_err(refusal)?;
    let (mount, idmapped) = copy(node, &granted.digest, caller.uid, peer.gid, asked.idmap)?;
    if let Some(namespace) = user_namespace {
        siforge_launch::map_peer_groups(namespace.as_fd(), peer.pid, peer.uid, peer.gid, &caller.gids)
            .map_err(|error| Refusal::NotAllowed { message: chain(&error) })?;
    }
    if let Some(lease) = &asked.lease {
        node.take_lease(caller.uid, lease, &granted.digest).map_err(refusal)?;
    }
    drop(pinned);
    let reply = MountReply {
        digest: granted.digest.to_string(),
        revision: granted.revision,
        size: granted.size,
        path_hint: Some(node.store().layout().artifact(&granted.digest).display().to_string()),
        mount_fd: 0,
        idmapped,
        groups_mapped: user_namespace.is_some(),
    };
    Ok((reply, mount))
}

/// Who counts: the caller, or the pod that root asks for.
fn on_behalf_of(caller: &Caller, asked: &MountRequest) -> Result<Caller, Refusal> {
    let Some(namespace) = &asked.namespace else {
        return Ok(caller.clone());
    };
    if caller.uid != 0 {
        let message = format!("uid {} may not ask for a pod: only a container runtime, which is root, may", caller.uid);
        return Err(Refusal::NotAllowed { message });
    }
    siforge_store::names::check_namespace(namespace)
        .map_err(|error| Refusal::InvalidParameter { parameter: chain(&error) })?;
    Ok(Caller { namespace: Some(namespace.clone()), ..caller.clone() })
}

/// A detached copy for the caller. Where the kernel can't map ids, a plain one: the reply says so, and the caller decides.
fn copy(node: &Node, digest: &Digest, uid: u32, gid: u32, idmap: bool) -> Result<(OwnedFd, bool), Refusal> {
    let internal = |error: &dyn std::error::Error| Refusal::Internal { message: chain(error) };
    if idmap {
        let namespace = node.idmaps.namespace(uid, gid).map_err(|error| internal(&error))?;
        match node.mounts().detached_clone(digest, Some((*namespace).as_fd())) {
            Ok(mount) => return Ok((mount, true)),
            Err(error) => tracing::warn!(uid, error = chain(&error), "no id-mapped copy, giving a plain one"),
        }
    }
    let mount = node.mounts().detached_clone(digest, None).map_err(|error| internal(&error))?;
    Ok((mount, false))
}

fn warm(node: &Arc<Node>, caller: &Caller, request: &Request) -> Result<WarmReply, Refusal> {
    no_descriptors(request)?;
    let asked: WarmRequest = request.parameters()?;
    let (_, granted) = node.resolve(&asked.reference, caller).map_err(refusal)?;
    // The lease first: a warm that outlives the caller's patience must not be undone as idle.
    if let Some(lease) = &asked.lease {
        node.take_lease(caller.uid, lease, &granted.digest).map_err(refusal)?;
    }
    let patience = asked.budget_ms.map_or(ANSWER_WITHIN, Duration::from_millis).min(ANSWER_WITHIN);
    let ready = match node.hold(&granted.digest, Instant::now() + patience) {
        Ok(_) => true,
        Err(node::Error::TimedOut { .. }) if asked.budget_ms.is_some() => false,
        Err(error) => return Err(refusal(error)),
    };
    Ok(WarmReply { digest: granted.digest.to_string(), revision: granted.revision, ready })
}

fn release(node: &Node, caller: &Caller, request: &Request) -> Result<(), Refusal> {
    no_descriptors(request)?;
    let asked: ReleaseRequest = request.parameters()?;
    node.release(caller.uid, &asked.lease).map_err(refusal)
}

fn resolve(node: &Node, caller: &Caller, request: &Request) -> Result<ResolveReply, Refusal> {
    no_descriptors(request)?;
    let asked: ResolveRequest = request.parameters()?;
    let (_, granted) = node.resolve(&asked.reference, caller).map_err(refusal)?;
    Ok(ResolveReply { digest: granted.digest.to_string(), revision: granted.revision, size: granted.size })
}

fn status(node: &Node, caller: &Caller) -> StatusReply {
    let (mounts, leases) = node.status(caller.uid);
    let store = node.store().root().display().to_string();
    StatusReply { version: env!("CARGO_PKG_VERSION").to_owned(), store, mounts, leases }
}

fn no_descriptors(request: &Request) -> Result<(), Refusal> {
    match request.descriptors.is_empty() {
        true => Ok(()),
        false => Err(Refusal::InvalidParameter { parameter: "this method takes no descriptors".to_owned() }),
    }
}

/// The interface's error for each of the agent's.
fn refusal(error: node::Error) -> Refusal {
    use crate::mounts::Error as MountError;
    let message = chain(&error);
    match error {
        node::Error::Reference { .. } | node::Error::NotStore { .. } => Refusal::InvalidReference { message },
        node::Error::Unknown { nearest, .. } => Refusal::NotFound { message, nearest },
        node::Error::OtherDigest { .. } => Refusal::NotFound { message, nearest: None },
        node::Error::NotAllowed { .. } => Refusal::NotAllowed { message },
        node::Error::TimedOut { .. } => Refusal::NotReady { message },
        node::Error::Full { .. } => Refusal::Busy { message },
        node::Error::Lease(crate::leases::Error::Name { .. }) => Refusal::InvalidParameter { parameter: message },
        node::Error::Lease(_) => Refusal::Busy { message },
        node::Error::Mount(why) => match &*why {
            MountError::Integrity(damage) if damage.is_damage() => Refusal::Damaged { message },
            MountError::Missing { .. } => Refusal::NotReady { message },
            _ => Refusal::Internal { message },
        },
        node::Error::Store { .. } | node::Error::State(_) => Refusal::Internal { message },
    }
}
