//! The session: greeting, workers, end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use siforge_squashfs::read::Reader;

use crate::Owners;
use crate::files::Files;
use crate::protocol::{MAJOR, MINOR_MIN, REQUEST_MAX, Reply, Request, flags, opcode};

/// Why no file system is served any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read a request from /dev/fuse: {source}")]
    Read { source: io::Error },
    #[error("answer the kernel's greeting on /dev/fuse: {source}")]
    Greet { source: io::Error },
    #[error("the kernel's first request on /dev/fuse is not a greeting")]
    NoGreeting,
    #[error("the kernel speaks FUSE {major}.{minor}, at least 7.23 is needed (Linux 4.5)")]
    Version { major: u32, minor: u32 },
}

/// Serves the image behind `reader` on `device`, /dev/fuse after it was mounted, until it is unmounted. `workers` threads
/// answer at a time, each on a device of its own by `clone` (FUSE_DEV_IOC_CLONE) if that can be had.
pub fn serve(
    device: OwnedFd,
    reader: Reader,
    owners: Owners,
    workers: usize,
    clone: impl Fn(BorrowedFd<'_>) -> io::Result<OwnedFd>,
) -> Result<(), Error> {
    let files = Files::new(reader, owners);
    let mut input = vec![0; REQUEST_MAX];
    if !greet(device.as_fd(), &mut input)? {
        return Ok(());
    }
    // Without clones all read from the one device, which is only slower.
    let devices: Vec<Option<OwnedFd>> = (1..workers.max(1)).map(|_| clone(device.as_fd()).ok()).collect();
    let (files, device) = (&files, device.as_fd());
    std::thread::scope(|scope| {
        for own in &devices {
            let own = own.as_ref().map_or(device, AsFd::as_fd);
            let worker = move || work(files, own, &mut vec![0; REQUEST_MAX]);
            // At a limit of the user's processes those that there are answer all, and so does this one alone.
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        work(files, device, &mut input)
    })
}

/// Reads the next request; None when the file system is gone.
fn receive<'b>(device: BorrowedFd<'_>, input: &'b mut [u8]) -> Result<Option<&'b [u8]>, Error> {
    loop {
        match rustix::io::read(device, &mut *input) {
            // Never by the kernel: another end that is closed.
            Ok(0) => return Ok(None),
            Ok(length) => return Ok(input.get(..length)),
            // A signal; a request that was taken back before it was read.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            // Unmounted; aborted through fusectl.
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => return Err(Error::Read { source: errno.into() }),
        }
    }
}

/// Answers INIT. False if the file system was gone before.
fn greet(device: BorrowedFd<'_>, input: &mut [u8]) -> Result<bool, Error> {
    let mut reply = Reply::new();
    loop {
        let Some(bytes) = receive(device, input)? else { return Ok(false) };
        let request = Request::decode(bytes).filter(|request| request.opcode == opcode::INIT);
        let request = request.ok_or(Error::NoGreeting)?;
        let mut body = request.body;
        let mut next = || body.u32().map_err(|_| Error::NoGreeting);
        let (major, minor) = (next()?, next()?);
        reply.clear();
        match major {
            MAJOR if minor >= MINOR_MIN => reply.init(next()?, next()? & flags::WANTED),
            // Asked to, it comes back with a version that both speak.
            later if later > MAJOR => reply.version(),
            _ => return Err(Error::Version { major, minor }),
        }
        match rustix::io::writev(device, &reply.message(request.unique, Ok(()))) {
            Ok(_) if major == MAJOR => return Ok(true),
            Ok(_) => {}
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(false),
            Err(errno) => return Err(Error::Greet { source: errno.into() }),
        }
    }
}

fn work(files: &Files, device: BorrowedFd<'_>, input: &mut [u8]) -> Result<(), Error> {
    let mut reply = Reply::new();
    while let Some(bytes) = receive(device, input)? {
        let Some(request) = Request::decode(bytes) else { continue };
        if matches!(request.opcode, opcode::FORGET | opcode::BATCH_FORGET) {
            continue;
        }
        reply.clear();
        // Whatever an image can bring about, others use this file system as well.
        let answer = catch_unwind(AssertUnwindSafe(|| files.answer(&request, &mut reply))).unwrap_or(Err(Errno::IO));
        // ENOENT: whoever asked is gone. Anything else the next read tells.
        let _ = rustix::io::writev(device, &reply.message(request.unique, answer));
    }
    Ok(())
}
