//! The facts about host and user that a plan is made from, and the few calls that gather them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::plan::PathKind;
use crate::{Error, accounts};

/// Longest /etc/passwd or /etc/group of the host that is searched before NSS is asked.
const ACCOUNTS_LIMIT: u64 = 1024 * 1024;

/// A line of a passwd database.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct UserEntry {
    /// Login name.
    pub name: String,
    /// Full name and such.
    pub gecos: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
}

/// Who launches, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The user's passwd entry; `None` where the database has none.
    pub user: Option<UserEntry>,
    /// Names of `gid` and `groups`, as far as they have one.
    pub group_names: Vec<(u32, String)>,
    /// Working directory, without symlinks.
    pub cwd: PathBuf,
}

impl Host {
    /// Asks the kernel and the user database about this process.
    pub fn observe() -> Result<Host, Error> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let groups: Vec<u32> = rustix::process::getgroups()
            .map_err(Error::call("read supplementary groups"))?
            .into_iter()
            .map(|g| g.as_raw())
            .collect();
        // A working directory that was removed is no reason to fail.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Ok(Host { uid, gid, user: user(uid), group_names: group_names(gid, &groups), groups, cwd })
    }
}

/// What lies at a path of the host, symlinks followed. The function to pass to [`crate::plan::make`].
pub fn path_kind(path: &Path) -> Option<PathKind> {
    let kind = fs::metadata(path).ok()?;
    Some(if kind.is_dir() { PathKind::Directory } else { PathKind::File })
}

/// The user's entry: /etc/passwd first, because NSS loads libraries and may ask a server.
fn user(uid: u32) -> Option<UserEntry> {
    if let Some(entry) = read_limited("/etc/passwd").and_then(|text| accounts::find_user(&text, uid)) {
        return Some(entry);
    }
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok()??;
    Some(UserEntry {
        name: user.name,
        gecos: user.gecos.to_string_lossy().into_owned(),
        home: user.dir,
        shell: user.shell.to_string_lossy().into_owned(),
    })
}

fn group_names(gid: u32, groups: &[u32]) -> Vec<(u32, String)> {
    let mut wanted: Vec<u32> = std::iter::once(gid).chain(groups.iter().copied()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let local = read_limited("/etc/group").unwrap_or_default();
    let mut names = accounts::find_groups(&local, &wanted);
    for gid in wanted {
        if !names.iter().any(|(known, _)| *known == gid)
            && let Ok(Some(group)) = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid))
        {
            names.push((gid, group.name));
        }
    }
    names
}

fn read_limited(path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::with_capacity(16 * 1024);
    fs::File::open(path).ok()?.take(ACCOUNTS_LIMIT).read_to_end(&mut text).ok()?;
    Some(text)
}

impl UserEntry {
    /// The entry of a passwd line, if it is the one of `uid`.
    pub(crate) fn from_line(line: &[u8], uid: u32) -> Option<UserEntry> {
        let mut fields = line.split(|b| *b == b':');
        let text = |field: Option<&[u8]>| field.map(|f| String::from_utf8_lossy(f).into_owned());
        let name = text(fields.next())?;
        let entry_uid = fields.nth(1)?;
        if std::str::from_utf8(entry_uid).ok()?.parse() != Ok(uid) {
            return None;
        }
        let gecos = text(fields.nth(1))?;
        let home = PathBuf::from(std::ffi::OsStr::from_bytes(fields.next()?));
        let shell = text(fields.next()).unwrap_or_default();
        Some(UserEntry { name, gecos, home, shell })
    }
}
