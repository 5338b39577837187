//! A registry on loopback, only read, that serves [`crate::shadow`] images to the node's container runtime.
//!
//! ```text
//! <state>/registry/           0700, root's
//!   token                     made at each start; a request without it gets nothing
//!   hosts.toml                what containerd's certs.d/siforge.dev/hosts.toml is to be a link to: address and token
//! ```
//!
//! The token keeps other processes of the node out, pods of its network namespace among them: a shadow tells an image's environment,
//! users and groups. Who may have the image itself is asked when a container is made.

pub mod answer;
pub mod http;
pub mod route;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::node::Node;
use http::{HEAD_LIMIT, Request, Response};

/// Connections at once; a container runtime makes a few for each image.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request, and again to take its answer.
const TRANSFER: Duration = Duration::from_secs(10);
/// Stack of a connection's thread: the largest shadow's text is on the heap.
const STACK: usize = 256 * 1024;
/// Pause after accept(2) failed for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of randomness in the token.
const TOKEN_BYTES: usize = 32;

/// The registry can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("listen on {address} for the registry: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("start the registry's thread: {0}")]
    Thread(#[source] io::Error),
}

/// Serves on `address` from now on, in threads of its own, until the process ends.
pub fn start(node: &Arc<Node>, address: SocketAddr, state_dir: &Path) -> Result<(), Error> {
    let token = token(&state_dir.join("registry"))?;
    let listener = TcpListener::bind(address).map_err(|source| Error::Listen { address, source })?;
    let path = state_dir.join("registry/hosts.toml");
    write_private(&path, &hosts_toml(address, &token))?;
    tracing::info!(%address, hosts = %path.display(), "serving pods' images");
    let node = Arc::clone(node);
    let expected: Arc<str> = format!("Bearer {token}").into();
    let serve = move || accept_all(&listener, &node, &expected);
    let thread = std::thread::Builder::new().name("registry".to_owned()).stack_size(STACK);
    thread.spawn(serve).map(drop).map_err(Error::Thread)
}

/// What tells containerd 1.5 and later where images of `siforge.dev` are. No `[host]`: its server, which is asked after all hosts,
/// would then be asked again, without the token.
fn hosts_toml(address: SocketAddr, token: &str) -> String {
    format!(
        "server = \"http://{address}\"\ncapabilities = [\"pull\", \"resolve\"]\n\n[header]\n  Authorization = \"Bearer {token}\"\n"
    )
}

fn accept_all(listener: &TcpListener, node: &Arc<Node>, expected: &Arc<str>) {
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept for the registry");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        // Only this thread adds.
        if busy.load(Ordering::Acquire) >= CONNECTIONS {
            continue;
        }
        busy.fetch_add(1, Ordering::AcqRel);
        let (node, expected, place) = (Arc::clone(node), Arc::clone(expected), Place(Arc::clone(&busy)));
        let thread = std::thread::Builder::new().name("image".to_owned()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            let _place = place;
            if let Err(error) = converse(stream, &node, &expected) {
                tracing::debug!(%error, "a registry connection ended");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "start a thread for the registry");
        }
    }
}

/// One of [`CONNECTIONS`]; left by Drop, whatever becomes of its thread.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn converse(mut stream: TcpStream, node: &Node, expected: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(TRANSFER))?;
    let (head_only, response) = match read_head(&mut stream)?.map(|head| Request::parse(&head)) {
        None => (false, Response::failure(431, "the request's head is too long")),
        Some(Err(response)) => (false, response),
        Some(Ok(request)) => {
            let response = match is_equal(request.authorization.as_deref().unwrap_or_default(), expected) {
                true => answer::answer(node.store(), &|image, caller| node.nearest(image, caller), &request),
                false => Response::failure(401, "this registry is the node's container runtime's alone"),
            };
            if response.status != 200 {
                tracing::info!(path = request.path, status = response.status, reason = response.reason, "no image");
            }
            (request.head_only, response)
        }
    };
    stream.write_all(&response.bytes(head_only))
}

/// All up to the empty line; None if it does not come soon enough. The whole has one deadline: a byte at a time buys no time.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + TRANSFER;
    let mut head: Vec<u8> = Vec::new();
    let mut buffer = [0; 2048];
    while head.len() < HEAD_LIMIT {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no timeout at all.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let read = stream.read(&mut buffer)?;
        head.extend(&buffer[..read]);
        // What tries TLS first would wait for an answer until the deadline.
        if head.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if head.windows(4).any(|window| window == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if read == 0 || left.is_zero() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(None)
}

/// Compares without telling by its time how much was right.
fn is_equal(given: &str, expected: &str) -> bool {
    let differences = given.bytes().zip(expected.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == expected.len() && differences == 0
}

/// A new token: one that was sent to somebody in the agent's place means nothing any more.
fn token(directory: &Path) -> Result<String, Error> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { operation, path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io("create", directory))?;
    let path = directory.join("token");
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; TOKEN_BYTES];
    let mut random = std::fs::File::open(source).map_err(io("open", source))?;
    random.read_exact(&mut bytes).map_err(io("read", source))?;
    let token = siforge_reference::Digest::from_bytes(bytes).hex();
    write_private(&path, &token)?;
    Ok(token)
}

/// Replaces a file that only root may read.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let failed = |operation| {
        let path = beside.clone();
        move |source| Error::Io { operation, path, source }
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed("create"))?;
    file.write_all(text.as_bytes()).map_err(failed("write"))?;
    std::fs::rename(&beside, path).map_err(failed("rename"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_new_and_is_roots_alone() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("registry");
        let first = token(&directory).unwrap();
        assert!(first.len() == 2 * TOKEN_BYTES && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(token(&directory).unwrap(), first);
        assert_eq!(std::fs::metadata(directory.join("token")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn tokens_are_compared_whole() {
        for (given, expected) in [("Bearer ab", true), ("Bearer aa", false), ("Bearer a", false), ("", false)] {
            assert_eq!(is_equal(given, "Bearer ab"), expected, "{given}");
        }
    }
}
