//! The protocol without a kernel: whoever holds the other end of a socket plays it, for versions and requests that this
//! machine's kernel does not send.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use siforge_fuse::{Error, Owners, limits, serve};
use siforge_squashfs::read::Reader;

use crate::sample::small;

struct Kernel {
    socket: OwnedFd,
    server: JoinHandle<Result<(), Error>>,
}

const INIT: u32 = 26;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOTDIR: i32 = 20;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Kernel {
    fn new() -> Self {
        let sample = small();
        let file = File::open(sample.image(&["-no-xattrs"])).unwrap();
        let size = file.metadata().unwrap().len();
        let reader = Reader::with_limits(Arc::new(file), 0, size, limits()).unwrap();
        let (socket, device) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let server = std::thread::spawn(move || {
            serve(device, reader, Owners::Image, 1, |_| Err(rustix::io::Errno::NOSYS.into()))
        });
        Self { socket, server }
    }

    fn send(&self, opcode: u32, node: u64, body: &[u8]) {
        let length = 40 + body.len() as u32;
        let mut message = words(&[length, opcode, 7, 0]);
        message.extend(node.to_ne_bytes());
        message.extend([0; 16]);
        message.extend(body);
        rustix::io::write(&self.socket, &message).unwrap();
    }

    /// errno, and the body.
    fn ask(&self, opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        self.send(opcode, node, body);
        let mut reply = vec![0; 1 << 16];
        let length = rustix::io::read(&self.socket, &mut reply).unwrap();
        reply.truncate(length);
        let word = |at: usize| i32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        assert_eq!((word(0) as usize, word(8)), (length, 7));
        (-word(4), reply[16..].to_vec())
    }

    fn greet(&self, major: u32, minor: u32) -> Vec<u8> {
        let (errno, body) = self.ask(INIT, 0, &words(&[major, minor, 1 << 17, u32::MAX]));
        assert_eq!((errno, body.len()), (0, 64));
        body
    }

    fn end(self) -> Result<(), Error> {
        drop(self.socket);
        self.server.join().unwrap()
    }
}

#[test]
fn versions() {
    for minor in [23, 31, 38, 45] {
        let kernel = Kernel::new();
        assert!(kernel.greet(7, minor).starts_with(&words(&[7, 38, 1 << 17])));
        kernel.end().unwrap();
    }
    let kernel = Kernel::new();
    // A later one asks again, as it was told.
    assert!(kernel.greet(8, 0).starts_with(&words(&[7, 38])));
    assert!(kernel.greet(7, 38).starts_with(&words(&[7, 38])));
    kernel.end().unwrap();
    for (major, minor) in [(7, 22), (6, 99)] {
        let kernel = Kernel::new();
        kernel.send(INIT, 0, &words(&[major, minor, 0, 0]));
        assert!(matches!(kernel.server.join().unwrap(), Err(Error::Version { .. })), "{major}.{minor}");
    }
    let kernel = Kernel::new();
    kernel.send(1, 1, b"one\0");
    assert!(matches!(kernel.server.join().unwrap(), Err(Error::NoGreeting)));
}

#[test]
fn requests() {
    let kernel = Kernel::new();
    kernel.greet(7, 38);
    // Not answered.
    kernel.send(2, 5, &[0; 8]);
    kernel.send(42, 0, &[1, 0, 0, 0, 0, 0, 0, 0]);
    rustix::io::write(&kernel.socket, b"short").unwrap();
    let node = |name: &[u8]| {
        let (errno, body) = kernel.ask(1, 1, name);
        assert_eq!((errno, body.len()), (0, 128));
        u64::from_ne_bytes(body[..8].try_into().unwrap())
    };
    let (marked, absent) = (node(b"marked\0"), node(b"absent\0"));
    assert_eq!(absent, 0);
    for (name, opcode, to, body, expected) in [
        ("open", 14, marked, &[0; 8][..], ENOSYS),
        ("opendir", 27, 1, &[0; 8], ENOSYS),
        ("flush", 25, marked, &[0; 24], ENOSYS),
        ("access", 34, 1, &[0; 8], ENOSYS),
        ("interrupt", 36, 0, &[0; 8], ENOSYS),
        ("getxattr without any", 22, marked, b"\0\0\0\0\0\0\0\0user.a\0", ENOSYS),
        ("unknown", 4711, 1, &[], ENOSYS),
        ("setattr", 4, marked, &[0; 88], EROFS),
        ("write", 16, marked, &[0; 40], EROFS),
        ("destroy", 38, 0, &[], 0),
        ("statfs", 17, 1, &[], 0),
        ("getattr", 3, marked, &[0; 16], 0),
        ("getattr of nothing", 3, u64::MAX, &[0; 16], EIO),
        ("lookup in a file", 1, marked, b"x\0", ENOTDIR),
        ("lookup without end", 1, 1, b"x", EINVAL),
        ("readlink of a file", 5, marked, &[], EINVAL),
        ("short read", 15, marked, &[0; 8], EINVAL),
        ("read of a directory", 15, 1, &[0; 40], EIO),
        ("readdir of a file", 28, marked, &[0; 40], ENOTDIR),
        ("lseek to nowhere", 46, marked, &[9; 24], EINVAL),
    ] {
        assert_eq!(kernel.ask(opcode, to, body).0, expected, "{name}");
    }
    let read = [&[0; 16][..], &words(&[u32::MAX, 0, 0, 0, 0, 0])].concat();
    assert_eq!(kernel.ask(15, marked, &read), (0, b"marked".to_vec()));
    kernel.end().unwrap();
}
