//! User namespaces: the caller's own, and the helper by which a mount is id-mapped.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;

use crate::{Error, syscall};

/// The hint when a user namespace, or what it should allow, is refused.
pub(crate) const DENIED: &str = "user namespaces are denied to this program: look at sysctl kernel.unprivileged_userns_clone, \
     user.max_user_namespaces and, on Ubuntu, kernel.apparmor_restrict_unprivileged_userns \
     (an AppArmor profile with `userns,` allows them)";

/// Who writes the gid_map of a [`UserNamespace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Nobody has: the caller's own gid alone is mapped.
    OwnOnly,
    /// The agent has, before it replied: gid and supplementary groups.
    MappedByAgent,
}

/// The new user namespace that this process is in, its uid mapped to itself.
#[derive(Debug)]
pub struct UserNamespace {
    uid: u32,
    gid: u32,
    /// Whether this process has written the gid_map: it can do so once.
    mapped: Cell<bool>,
}

impl UserNamespace {
    /// Moves this process into a new user namespace. It must have one thread, and be dumpable.
    pub fn create() -> Result<UserNamespace, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| Error::Call {
            operation: "make a user namespace",
            source: errno.into(),
            hint: match errno {
                nix::Error::EPERM | nix::Error::EACCES => Some(DENIED),
                nix::Error::ENOSPC => Some("sysctl user.max_user_namespaces is reached, or 0"),
                nix::Error::EUSERS => Some("user namespaces are nested too deeply"),
                nix::Error::EINVAL => Some("the process has threads, or the kernel has no user namespaces"),
                _ => None,
            },
        })?;
        write("/proc/self/uid_map", &format!("{uid} {uid} 1\n"))?;
        Ok(UserNamespace { uid, gid, mapped: Cell::new(false) })
    }

    /// A descriptor of it, for the agent to map groups.
    pub fn handle(&self) -> Result<OwnedFd, Error> {
        let path = Path::new("/proc/self/ns/user");
        File::open(path).map(OwnedFd::from).map_err(Error::path("open", path))
    }

    /// The user and group whose namespace it is, outside and inside.
    pub fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Completes the id maps.
    pub(crate) fn map_groups(&self, groups: Groups) -> Result<(), Error> {
        match groups {
            Groups::MappedByAgent => Ok(()),
            Groups::OwnOnly if self.mapped.get() => Ok(()),
            Groups::OwnOnly => {
                write("/proc/self/setgroups", "deny")?;
                write("/proc/self/gid_map", &format!("{} {} 1\n", self.gid, self.gid))?;
                self.mapped.set(true);
                Ok(())
            }
        }
    }
}

fn write(path: &str, text: &str) -> Result<(), Error> {
    let path = Path::new(path);
    OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| {
        let hint = (source.kind() == io::ErrorKind::PermissionDenied).then_some(DENIED);
        Error::Path { operation: "write", path: path.to_path_buf(), source, hint }
    })
}

/// A user namespace for [`crate::clone_detached`]: what 0:0 owns on disk is shown as owned by `uid:gid`; other owners
/// are shown as the overflow id. Needs root. Keep the descriptor per (uid, gid): making one forks.
pub fn idmap_namespace(uid: u32, gid: u32) -> Result<OwnedFd, Error> {
    let holder =
        syscall::Bystander::with_user_namespace().map_err(Error::call("make a user namespace for an id map"))?;
    let directory = format!("/proc/{}", holder.pid());
    write(&format!("{directory}/uid_map"), &format!("0 {uid} 1\n"))?;
    write(&format!("{directory}/gid_map"), &format!("0 {gid} 1\n"))?;
    let path = Path::new(&directory).join("ns/user");
    File::open(&path).map(OwnedFd::from).map_err(Error::path("open", &path))
}
