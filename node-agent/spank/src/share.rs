//! From a step's first task on a node to the others: one message, which each of them looks at and nobody takes.
//!
//! ```text
//!   code (1 byte; 0: entered) · container's name (≤ 4096 bytes)     + the mount namespace's descriptor, if entered
//! ```
//! Peeking hands every reader a descriptor of its own (MSG_PEEK, unix(7)), so that nobody counts tasks, and it does not
//! matter which of them is late. setns by the first task's pid is not to be had: it is not dumpable, having changed its
//! user. poll(2) wakes all that wait; a blocked recvmsg(2) would wake only one.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::error::Error;

/// How long the others wait: above what the agent may take for an image that nobody has used yet.
const PATIENCE: Duration = Duration::from_secs(660);
/// Longest name of a container that is passed on.
const NAME_LIMIT: usize = 4096;

/// Both ends; made in slurmstepd, inherited by all tasks, closed by execve.
#[derive(Debug)]
pub(crate) struct Handover {
    first: OwnedFd,
    others: OwnedFd,
}

impl Handover {
    pub(crate) fn new() -> Result<Self, Error> {
        let (first, others) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(call("make a socketpair for the step's tasks"))?;
        Ok(Self { first, others })
    }

    /// The first task has entered.
    pub(crate) fn entered(&self, namespace: BorrowedFd<'_>, container: &OsStr) -> Result<(), Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [namespace];
        // There is room for it by construction.
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let name = container.as_bytes();
        self.send(0, &name[..name.len().min(NAME_LIMIT)], &mut control)
    }

    /// It has not, and has said why.
    pub(crate) fn failed(&self, code: u8) -> Result<(), Error> {
        self.send(code, &[], &mut SendAncillaryBuffer::default())
    }

    fn send(&self, code: u8, name: &[u8], control: &mut SendAncillaryBuffer<'_, '_, '_>) -> Result<(), Error> {
        let code = [code];
        let parts = [IoSlice::new(&code), IoSlice::new(name)];
        rustix::net::sendmsg(&self.first, &parts, control, SendFlags::NOSIGNAL)
            .map_err(call("hand the mount namespace to the step's tasks"))?;
        Ok(())
    }

    /// Waits for the first task; its mount namespace and the container's name.
    pub(crate) fn wait(&self) -> Result<(OwnedFd, OsString), Error> {
        self.wait_for(PATIENCE)
    }

    fn wait_for(&self, patience: Duration) -> Result<(OwnedFd, OsString), Error> {
        let failed = "wait for the step's first task";
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        loop {
            let mut poll = [PollFd::new(&self.others, PollFlags::IN)];
            match rustix::event::poll(&mut poll, Some(&timeout)) {
                Ok(0) => {
                    return Err(Error::FirstTaskLate { seconds: patience.as_secs() });
                }
                Ok(_) => return self.peek(),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(call(failed)(errno)),
            }
        }
    }

    fn peek(&self) -> Result<(OwnedFd, OsString), Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut message = vec![0; 1 + NAME_LIMIT];
        let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC;
        let received =
            rustix::net::recvmsg(self.others.as_fd(), &mut [IoSliceMut::new(&mut message)], &mut control, flags)
                .map_err(call("receive the step's mount namespace"))?;
        let namespace = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        message.truncate(received.bytes);
        match (message.split_first(), namespace) {
            (Some((0, name)), Some(namespace)) => Ok((namespace, OsString::from_vec(name.to_vec()))),
            (Some((code @ 1.., _)), _) => Err(Error::FirstTaskFailed { code: *code }),
            _ => Err(call("receive the step's mount namespace")(rustix::io::Errno::BADMSG)),
        }
    }
}

fn call<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Call { operation, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn everybody_gets_a_descriptor_before_and_after() {
        let handover = Handover::new().expect("socketpair");
        let file = File::open("/proc/self/ns/mnt").expect("open");
        let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).expect("stat").st_ino;
        std::thread::scope(|scope| {
            let wait = || {
                let (descriptor, name) = handover.wait().expect("wait");
                assert_eq!(name, "sif://lab/x");
                identity(descriptor.as_fd())
            };
            let early: Vec<_> = (0..16).map(|_| scope.spawn(wait)).collect();
            handover.entered(file.as_fd(), "sif://lab/x".as_ref()).expect("send");
            let late = scope.spawn(wait);
            for thread in early.into_iter().chain([late]) {
                assert_eq!(thread.join().expect("thread"), identity(file.as_fd()));
            }
        });
    }

    #[test]
    fn failures_and_silence_are_told() {
        let handover = Handover::new().expect("socketpair");
        let late = handover.wait_for(Duration::ZERO).expect_err("nobody sends");
        assert!(matches!(late, Error::FirstTaskLate { .. }), "{late}");
        handover.failed(77).expect("send");
        for _ in 0..2 {
            let failed = handover.wait().expect_err("it failed");
            assert_eq!(failed.exit_code(), 77, "{failed}");
            assert!(failed.is_said_elsewhere());
        }
    }
}
