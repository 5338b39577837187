//! User namespaces: the caller's own, the one in which it is root, and the helper by which a mount is id-mapped.
//!
//! ```text
//!  create             uid → uid                    a launch: the caller stays who it is
//!  create_as_root     0 → uid                      a build: the caller is root, and there is nobody else
//!                     0 → uid, 1… → subordinate    or all ids are there: newuidmap(1), newgidmap(1) of the host write the maps
//! ```

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::syscall::Forked;
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

/// The new user namespace that this process is in.
#[derive(Debug)]
pub struct UserNamespace {
    /// Of the caller, inside.
    uid: u32,
    gid: u32,
    /// Whether this process has written the gid_map: it can do so once.
    mapped: Cell<bool>,
    /// Whether there are ids besides the caller's.
    others: bool,
}

impl UserNamespace {
    /// Moves this process into a new user namespace. It must have one thread, and be dumpable.
    pub fn create() -> Result<UserNamespace, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        unshare()?;
        write("/proc/self/uid_map", &format!("{uid} {uid} 1\n"))?;
        Ok(UserNamespace { uid, gid, mapped: Cell::new(false), others: false })
    }

    /// Moves this process into a new user namespace in which the caller is root. It must have one thread, and be dumpable.
    /// The other ids are `subordinate`'s; when they cannot be had, or there are none, root is alone.
    pub fn create_as_root(subordinate: Option<&Subordinate>) -> Result<UserNamespace, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let others = match subordinate {
            Some(subordinate) => subordinate.map_into_new(uid, gid)?,
            None => {
                unshare()?;
                false
            }
        };
        // What a helper of the host has written stays.
        if !others && !is_mapped("/proc/self/uid_map") {
            write("/proc/self/uid_map", &format!("0 {uid} 1\n"))?;
        }
        if !others && !is_mapped("/proc/self/gid_map") {
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/gid_map", &format!("0 {gid} 1\n"))?;
        }
        Ok(UserNamespace { uid: 0, gid: 0, mapped: Cell::new(true), others })
    }

    /// Whether the caller is root in it, and there is nobody else.
    pub fn is_root_alone(&self) -> bool {
        self.uid == 0 && !self.others
    }

    /// Whether files can belong to others than the caller.
    pub fn has_other_ids(&self) -> bool {
        self.others
    }

    /// A descriptor of it, for the agent to map groups.
    pub fn handle(&self) -> Result<OwnedFd, Error> {
        let path = Path::new("/proc/self/ns/user");
        File::open(path).map(OwnedFd::from).map_err(Error::path("open", path))
    }

    /// The user and group whose namespace it is, as they are called inside.
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

fn unshare() -> Result<(), Error> {
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
    })
}

fn is_mapped(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty())
}

/// Whether files that this process makes can belong to others than itself: the first ids of its user namespace are many.
pub fn has_other_ids() -> bool {
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    // inside outside count
    text.lines().count() > 1 || text.split_whitespace().nth(2).is_none_or(|count| count != "1")
}

/// Ids that the administrator has given a user besides his own, and the programs that map them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subordinate {
    uids: Range,
    gids: Range,
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

/// First and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// Fewer do not hold the users and groups of a distribution: nobody is 65534.
const RANGE_MIN: u32 = 65_535;

impl Subordinate {
    /// The ids that /etc/subuid and /etc/subgid give the user; the error says what is missing.
    pub fn find(uid: u32, name: Option<&str>) -> Result<Self, String> {
        let range = |file: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            range(&text, uid, name).ok_or_else(|| format!("{file} gives this user no {RANGE_MIN} ids"))
        };
        let program = |name: &str| {
            let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
            found
                .into_iter()
                .find(|path| path.exists())
                .ok_or_else(|| format!("the host has no {name} (package uidmap)"))
        };
        Ok(Self {
            uids: range("/etc/subuid")?,
            gids: range("/etc/subgid")?,
            newuidmap: program("newuidmap")?,
            newgidmap: program("newgidmap")?,
        })
    }

    /// Moves this process into a new user namespace; a child that stays outside runs the programs, which are privileged there
    /// alone. False: they did not map all.
    fn map_into_new(&self, uid: u32, gid: u32) -> Result<bool, Error> {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Error::call("make a pipe"))?;
        let pid = std::process::id().to_string();
        let child = match syscall::fork().map_err(Error::call("start the mapping of ids"))? {
            Forked::Parent(child) => child,
            Forked::Child => {
                drop(writer);
                let mut byte = [0];
                let go = File::from(reader).read(&mut byte).is_ok_and(|count| count == 1);
                let done = go
                    && mapped(&self.newuidmap, &pid, uid, self.uids)
                    && mapped(&self.newgidmap, &pid, gid, self.gids);
                syscall::exit_now(if done { 0 } else { 1 })
            }
        };
        drop(reader);
        unshare()?;
        let _ = File::from(writer).write_all(b"!");
        loop {
            match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None) {
                Err(nix::Error::EINTR) => {}
                ended => return Ok(matches!(ended, Ok(nix::sys::wait::WaitStatus::Exited(_, 0)))),
            }
        }
    }
}

/// Runs newuidmap(1) or newgidmap(1); it says itself what is wrong.
fn mapped(program: &Path, pid: &str, own: u32, range: Range) -> bool {
    let numbers = [0, own, 1, 1, range.start, range.count];
    let mut command = std::process::Command::new(program);
    command.arg(pid).args(numbers.map(|number| number.to_string()));
    command.status().is_ok_and(|status| status.success())
}

/// The largest range of subuid(5) or subgid(5) for the user, who is named by name or number: `user:start:count`.
fn range(text: &str, uid: u32, name: Option<&str>) -> Option<Range> {
    let number = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(user) == name || user == number).then_some(Range { start, count })
    });
    let whole = |range: &Range| range.count >= RANGE_MIN && range.start.checked_add(range.count).is_some();
    ranges.filter(whole).max_by_key(|range| range.count)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges() {
        let check = |text: &str, expect: Option<(u32, u32)>| {
            let found = range(text, 1000, Some("ada")).map(|range| (range.start, range.count));
            assert_eq!(found, expect, "{text}");
        };
        check("ada:100000:65536\n", Some((100_000, 65_536)));
        check("bob:100000:65536\n1000:200000:65536", Some((200_000, 65_536)));
        check("ada:100000:65536\nada:300000:131072\n", Some((300_000, 131_072)));
        check("# ada:1:1\nada:100000:1000\n", None);
        check("ada:4294967295:65536\n", None);
        check("ada:x:65536\nada:1\n\n:::", None);
        check("", None);
    }
}
