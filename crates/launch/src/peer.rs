//! What the agent does for a peer's user namespace: writing the gid_map that an ordinary user may not write.
//!
//! An unprivileged process can map its own gid alone (user_namespaces(7)); chgrp and `cp -p` to a supplementary
//! group then fail. Root may map any, and here maps exactly those that the peer's credentials hold, setgroups denied
//! first: without that, a group by which access is *refused* could be dropped.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::{Error, syscall};

/// The kernel takes at most 340 lines (UID_GID_MAP_MAX_EXTENTS) and less than one page.
const MAP_LINES: usize = 340;
const MAP_BYTES: usize = 4095;

/// Supplementary groups of the process at the other end of a connected Unix socket, as of its connect(2).
pub fn peer_groups(socket: &impl AsFd) -> Result<Vec<u32>, Error> {
    syscall::peer_groups(socket.as_fd()).map_err(Error::call("read the peer's groups"))
}

/// Writes the gid_map of process `pid`'s user namespace: `gid` and `groups`, each mapped to itself. `user_namespace` is
/// what the peer sent; it must be the one that the process is in, and be owned by `uid`. Needs CAP_SETGID here.
pub fn map_peer_groups(
    user_namespace: BorrowedFd<'_>,
    pid: u32,
    uid: u32,
    gid: u32,
    groups: &[u32],
) -> Result<(), Error> {
    let foreign = |reason| Error::ForeignNamespace { pid, reason };
    if pid == 0 {
        return Err(foreign("the process is outside the agent's pid namespace"));
    }
    // By its name in /proc, which no file system of the peer's is asked for: ioctl and stat of a descriptor on its own FUSE
    // mount would last as long as it likes.
    let link = format!("/proc/self/fd/{}", user_namespace.as_raw_fd());
    let name = rustix::fs::readlink(&link, Vec::new()).map_err(Error::path("read", Path::new(&link)))?;
    if !name.as_bytes().starts_with(b"user:[") {
        return Err(foreign("the descriptor passed is no user namespace"));
    }
    // All goes through one descriptor of /proc/<pid>, which stays with this process even if the id is reused.
    let process = PathBuf::from(format!("/proc/{pid}"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, &process, flags, Mode::empty()).map_err(Error::path("open", &process))?;
    let owner = syscall::namespace_owner(user_namespace).map_err(Error::call("read the owner of a user namespace"))?;
    if owner != uid {
        return Err(foreign("the user namespace passed is another user's"));
    }
    let passed = rustix::fs::fstat(user_namespace).map_err(Error::call("stat user namespace"))?;
    let own = rustix::fs::statat(&directory, "ns/user", rustix::fs::AtFlags::empty())
        .map_err(Error::path("stat user namespace of", &process))?;
    if (passed.st_dev, passed.st_ino) != (own.st_dev, own.st_ino) {
        return Err(foreign("the user namespace passed is not its own"));
    }
    write_at(&directory, &process, "setgroups", "deny")?;
    write_at(&directory, &process, "gid_map", &gid_map(gid, groups))
}

fn write_at(directory: &OwnedFd, process: &Path, name: &str, text: &str) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = rustix::fs::openat(directory, name, flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, text.as_bytes()))
        .map_err(io::Error::from);
    match written {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Error::path("write", &process.join(name))(io::Error::from(io::ErrorKind::WriteZero))),
        Err(e) => Err(Error::path("write", &process.join(name))(e)),
    }
}

/// The text of a map of each id to itself, neighbours in one line. The primary gid comes first: where the kernel's
/// limit cuts the list, it is never the one that is lost.
pub(crate) fn gid_map(gid: u32, groups: &[u32]) -> String {
    let mut rest: Vec<u32> = groups.iter().copied().filter(|g| *g != gid && *g != u32::MAX).collect();
    rest.sort_unstable();
    rest.dedup();
    let mut ranges: Vec<(u32, u32)> = vec![(gid, 1)];
    for group in rest {
        match ranges.last_mut() {
            Some((first, count)) if ranges_join(*first, *count, group) => *count += 1,
            _ => ranges.push((group, 1)),
        }
    }
    let mut text = String::new();
    for (first, count) in ranges.into_iter().take(MAP_LINES) {
        let before = text.len();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{first} {first} {count}");
        if text.len() > MAP_BYTES {
            text.truncate(before);
            break;
        }
    }
    text
}

fn ranges_join(first: u32, count: u32, next: u32) -> bool {
    first.checked_add(count) == Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gid_maps() {
        let check = |gid, groups: &[u32], expect: &str| assert_eq!(gid_map(gid, groups), expect);
        check(100, &[], "100 100 1\n");
        check(100, &[100, 27, 4], "100 100 1\n4 4 1\n27 27 1\n");
        check(100, &[102, 101, 101, 200], "100 100 3\n200 200 1\n");
        check(100, &[99], "100 100 1\n99 99 1\n");
        check(5, &[u32::MAX], "5 5 1\n");
    }

    #[test]
    fn gid_map_stays_within_the_kernels_limits() {
        let groups: Vec<u32> = (0..2000).map(|n| 4_000_000_000 + 2 * n).collect();
        let text = gid_map(7, &groups);
        assert!(text.starts_with("7 7 1\n") && text.ends_with('\n'), "{text}");
        assert!(text.len() <= MAP_BYTES && text.lines().count() <= MAP_LINES);
    }
}
