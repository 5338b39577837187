//! The /dev of `--contain`: a tmpfs with a handful of the host's devices (a user namespace cannot make any).

use std::path::Path;

use super::{Mount, PathKind, SESSION_SIZE_MIB, Source};

/// Devices that every program may expect (the reference's list).
const DEVICES: [&str; 6] = ["null", "zero", "random", "urandom", "full", "tty"];

pub(super) fn mounts(mounts: &mut Vec<Mount>, new_ipc: bool, pts: bool, kind: &dyn Fn(&Path) -> Option<PathKind>) {
    let mut links = vec![
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    let mut directories = vec!["shm"];
    if pts {
        links.push(("ptmx", "pts/ptmx"));
        directories.push("pts");
    }
    if new_ipc {
        directories.push("mqueue");
    }
    let files = DEVICES.to_vec();
    mounts.push(Mount::made(Source::Dev { links, files, directories }, "/dev", PathKind::Directory));
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        if kind(&path).is_some() {
            mounts.push(Mount { nodev: false, ..Mount::bind(&path, &path, PathKind::File) });
        }
    }
    let shm = Source::Tmpfs { size_mib: SESSION_SIZE_MIB, mode: 0o1777 };
    mounts.push(Mount::made(shm, "/dev/shm", PathKind::Directory));
    if pts {
        mounts.push(Mount { nodev: false, ..Mount::made(Source::Devpts, "/dev/pts", PathKind::Directory) });
    }
    if new_ipc {
        // Nice to have only: some kernels are built without POSIX queues.
        mounts.push(Mount { required: false, ..Mount::made(Source::Mqueue, "/dev/mqueue", PathKind::Directory) });
    }
}
