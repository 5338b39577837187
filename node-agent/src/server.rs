//! The socket: one thread per connection, bounded; SIGTERM ends it.
//!
//! ```text
//!   main thread:  poll [ listener, signalfd ] ── accept ──▶ SO_PEERCRED ──▶ admission ──▶ thread: read, answer, read, …
//!                           │ SIGTERM, SIGINT
//!                           ▼
//!       close the listener, wait for requests that are being answered, leave the mounts in place
//! ```
//!
//! Everything a client may do has a limit: message length, descriptors, time to send one, time between two
//! ([`siforge_agent_api::Limits::SERVER`]), connections ([`crate::admission`]), time to answer ([`crate::node`]).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use siforge_agent_api::{Connection, Limits, Peer, Refusal, peer};
use siforge_launch::syscall::Bystander;

use crate::admission::Admission;
use crate::node::Node;
use crate::requests;

/// How long requests that are being answered are waited for after SIGTERM: below systemd's TimeoutStopSec.
const FINISH: Duration = Duration::from_secs(20);
/// Stack of a connection's thread: JSON of 64 KiB and a few syscalls.
const STACK: usize = 256 * 1024;
/// Pause after accept(2) failed for want of descriptors or memory, which takes a client to go.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket could not be made or served.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {source}", path = path.display())]
pub struct Error {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug, Default)]
struct Counts {
    admission: Admission,
    answering: usize,
}

/// Connections and requests, for limits and for the end.
#[derive(Debug, Default)]
struct Traffic {
    counts: Mutex<Counts>,
    changed: Condvar,
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks the signals that end the agent, in this thread and all that it starts: call before any thread is.
pub fn block_signals() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(signals)
}

/// Makes the socket, replacing one that an earlier agent left (the caller holds the state directory's lock). Any user may
/// connect: who may do what is decided per request.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |operation| move |source| Error { operation, path: path.to_owned(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(failed("another agent listens on")(io::ErrorKind::AddrInUse.into()));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed("create the directory of socket"))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove the old socket")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("bind socket"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed("open to all the socket"))?;
    listener.set_nonblocking(true).map_err(failed("set non-blocking the socket"))?;
    Ok(listener)
}

/// Serves until a signal of `signals` comes. Requests that are being answered then are finished.
pub fn serve(listener: UnixListener, path: &Path, signals: &SigSet, node: &Arc<Node>) -> Result<(), Error> {
    let failed = |operation| move |errno: nix::Error| Error { operation, path: path.to_owned(), source: errno.into() };
    let signal = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC).map_err(failed("make a signalfd for"))?;
    let traffic = Arc::new(Traffic::default());
    loop {
        let mut ready =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(signal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(failed("poll")(errno)),
        }
        if ready[1].any().unwrap_or(false) {
            break;
        }
        match listener.accept() {
            Ok((stream, _)) => admit(stream, &traffic, node),
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accept on {}", path.display());
                std::thread::sleep(PAUSE);
            }
        }
    }
    drop(listener);
    tracing::info!("stopping: no new requests, mounts stay");
    let counts = traffic.lock();
    let (counts, _) = traffic
        .changed
        .wait_timeout_while(counts, FINISH, |counts| counts.answering > 0)
        .unwrap_or_else(PoisonError::into_inner);
    if counts.answering > 0 {
        tracing::warn!(requests = counts.answering, "ending before these requests were answered");
    }
    Ok(())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

fn admit(stream: UnixStream, traffic: &Arc<Traffic>, node: &Arc<Node>) {
    let caller = match peer(&stream) {
        Ok(caller) => caller,
        Err(error) => {
            tracing::warn!(%error, "a connection without credentials");
            return;
        }
    };
    if !traffic.lock().admission.enter(caller.uid) {
        refuse_busy(&stream);
        close_at_once(stream);
        return;
    }
    let (for_thread, node) = (Arc::clone(traffic), Arc::clone(node));
    let thread = std::thread::Builder::new().name("client".to_owned()).stack_size(STACK).spawn(move || {
        // Leaves by Drop: a panic in a request must not eat the place for good.
        let _place = Place { traffic: &for_thread, uid: caller.uid };
        if let Err(error) = converse(stream, caller, &for_thread, &node) {
            tracing::debug!(pid = caller.pid, uid = caller.uid, %error, "conversation ended");
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "start a thread for a connection");
        traffic.lock().admission.leave(caller.uid);
    }
}

/// Says why in one short message that fits any socket buffer.
fn refuse_busy(stream: &UnixStream) {
    let limits = Limits { transfer: Duration::from_millis(10), ..Limits::SERVER };
    let refusal = Refusal::Busy { message: "too many connections to the node's agent: try again".to_owned() };
    // The client is gone, or its buffer full: then it sees the connection closed.
    let _ = stream
        .try_clone()
        .map_err(|source| siforge_agent_api::Error::Socket { operation: "duplicate", source })
        .and_then(|stream| Connection::new(stream, limits)?.refuse(&refusal));
}

/// Closes a connection without waiting, in the thread on which all others depend.
///
/// What a client has sent and nobody read is closed with the connection; if that is a descriptor of a TCP socket with SO_LINGER,
/// close(2) waits as long as the client likes. The end of a killed process waits for nothing (inet_release in net/ipv4/af_inet.c).
/// So a child gets a copy, which makes ours not the last, and is killed.
fn close_at_once(stream: UnixStream) {
    match Bystander::with_descriptors() {
        Ok(last) => {
            drop(stream);
            drop(last);
        }
        Err(error) => tracing::warn!(%error, "start a process to close a connection"),
    }
}

struct Place<'a> {
    traffic: &'a Traffic,
    uid: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.traffic.lock().admission.leave(self.uid);
    }
}

struct Answering<'a>(&'a Traffic);

impl<'a> Answering<'a> {
    fn begin(traffic: &'a Traffic) -> Self {
        traffic.lock().answering += 1;
        Answering(traffic)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.answering = counts.answering.saturating_sub(1);
        self.0.changed.notify_all();
    }
}

fn converse(
    stream: UnixStream,
    caller: Peer,
    traffic: &Traffic,
    node: &Arc<Node>,
) -> Result<(), siforge_agent_api::Error> {
    let blocking = stream.set_nonblocking(false);
    blocking.map_err(|source| siforge_agent_api::Error::Socket { operation: "set blocking", source })?;
    let mut connection = Connection::new(stream, Limits::SERVER)?;
    while let Some(request) = connection.read_request(env!("CARGO_PKG_VERSION"))? {
        let _answering = Answering::begin(traffic);
        requests::answer(node, caller, request, &mut connection)?;
    }
    Ok(())
}
