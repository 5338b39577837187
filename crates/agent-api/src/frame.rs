//! One message at a time: JSON, NUL, and the descriptors that came with its bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::Error;

/// Most descriptors that any [`Limits`] can allow in one message: the size of the control buffer.
const CONTROL_DESCRIPTORS: usize = 4;

/// What a peer may send, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest message in bytes, without the NUL.
    pub message: usize,
    /// Most descriptors with one message (at most 4).
    pub descriptors: usize,
    /// Longest wait for the first byte of a message.
    pub idle: Duration,
    /// Longest time from a message's first byte to its NUL, and for sending one.
    pub transfer: Duration,
}

impl Limits {
    /// What the agent grants its clients: calls are small, and a silent client is let go.
    pub const SERVER: Limits =
        Limits { message: 64 * 1024, descriptors: 1, idle: Duration::from_secs(30), transfer: Duration::from_secs(5) };
    /// What a client grants the agent: the first mount of an image may hash gigabytes before the reply begins.
    pub const CLIENT: Limits = Limits {
        message: 16 * 1024 * 1024,
        descriptors: 1,
        idle: Duration::from_secs(600),
        transfer: Duration::from_secs(30),
    };
}

/// A message's bytes (without the NUL) and descriptors.
#[derive(Debug)]
pub struct Frame {
    /// The JSON text.
    pub bytes: Vec<u8>,
    /// In the order they were sent; all close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// A stream on which whole messages are sent and received.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    limits: Limits,
}

impl Connection {
    /// Takes over a connected socket. The socket must be blocking.
    pub fn new(stream: UnixStream, limits: Limits) -> Result<Connection, Error> {
        stream
            .set_write_timeout(Some(limits.transfer))
            .and_then(|()| stream.set_read_timeout(Some(limits.idle)))
            .map_err(|source| Error::Socket { operation: "set timeouts", source })?;
        Ok(Connection { stream, limits })
    }

    /// The socket, for peer credentials.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one message; `bytes` is JSON without a NUL.
    pub fn send(&mut self, mut bytes: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        if descriptors.len() > CONTROL_DESCRIPTORS {
            return Err(Error::TooManyDescriptors { limit: CONTROL_DESCRIPTORS });
        }
        bytes.push(0);
        let mut sent = 0;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // The descriptors ride on the first bytes only.
            if sent == 0 && !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let parts = [IoSlice::new(&bytes[sent..])];
            match rustix::net::sendmsg(self.stream.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    return Err(Error::TimedOut { limit: self.limits.transfer });
                }
                Err(rustix::io::Errno::PIPE) => return Err(Error::Closed),
                Err(errno) => {
                    return Err(Error::Socket { operation: "send", source: errno.into() });
                }
            }
        }
        Ok(())
    }

    /// Receives one message; `None` when the peer closed the connection between messages.
    pub fn receive(&mut self) -> Result<Option<Frame>, Error> {
        let mut frame = Frame { bytes: Vec::new(), descriptors: Vec::new() };
        let mut chunk = [0; 4096];
        let mut begun: Option<Instant> = None;
        loop {
            let n = match self.receive_some(&mut chunk, &mut frame.descriptors) {
                Ok(n) => n,
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                    let limit = if begun.is_some() { self.limits.transfer } else { self.limits.idle };
                    return Err(Error::TimedOut { limit });
                }
                Err(e) => return Err(e),
            };
            if n == 0 {
                let clean = frame.bytes.is_empty() && frame.descriptors.is_empty();
                return if clean { Ok(None) } else { Err(Error::Closed) };
            }
            if let Some(end) = chunk[..n].iter().position(|b| *b == 0) {
                if end + 1 != n {
                    return Err(Error::Pipelined);
                }
                self.grow(&mut frame, &chunk[..end])?;
                if begun.is_some() {
                    self.read_timeout(self.limits.idle)?;
                }
                return Ok(Some(frame));
            }
            self.grow(&mut frame, &chunk[..n])?;
            // A peer that drips bytes gets no more than `transfer` for the whole message.
            let start = *begun.get_or_insert_with(Instant::now);
            match self.limits.transfer.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => self.read_timeout(left)?,
                _ => {
                    return Err(Error::TimedOut { limit: self.limits.transfer });
                }
            }
        }
    }

    fn grow(&self, frame: &mut Frame, bytes: &[u8]) -> Result<(), Error> {
        if frame.bytes.len() + bytes.len() > self.limits.message {
            return Err(Error::TooLong { limit: self.limits.message });
        }
        frame.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn read_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.stream
            .set_read_timeout(Some(timeout))
            .map_err(|source| Error::Socket { operation: "set timeouts", source })
    }

    /// One recvmsg(2); descriptors beyond the limit are closed and the message refused.
    fn receive_some(&self, chunk: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, Error> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(chunk)];
            match rustix::net::recvmsg(self.stream.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => {
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = part {
                            descriptors.extend(fds);
                        }
                    }
                    let truncated = message.flags.contains(ReturnFlags::CTRUNC);
                    if truncated || descriptors.len() > self.limits.descriptors {
                        return Err(Error::TooManyDescriptors { limit: self.limits.descriptors });
                    }
                    return Ok(message.bytes);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Err(Error::Closed),
                Err(errno) => {
                    return Err(Error::Socket { operation: "receive", source: errno.into() });
                }
            }
        }
    }
}
