//! What an unpacked tree has otherwise than the image, decided here and collected for the warnings.

use super::{Options, Owners};
use crate::format::InodeType;
use crate::read::{Inode, Xattr};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
/// Names in one warning. A reader looks at some of them; the count tells the rest.
const NAMES: usize = 5;

/// Attribute that holds owner, group and mode of a file whose owner cannot be kept: `uid:gid:mode`, the mode octal. The name and
/// the form are those of fuse-overlayfs and containers/storage, which show the tree with these.
pub const OWNER_XATTR: &str = "user.containers.override_stat";

/// Some files, by their number and the first names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    count: u64,
    first: Vec<String>,
}

impl Named {
    pub(super) fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMES {
            self.first.push(name());
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(NAMES);
    }

    fn warning(&self, what: &str) -> Option<String> {
        let more = match self.count - self.first.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (self.count > 0).then(|| format!("{} {what}: {}{more}", self.count, self.first.join(", ")))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) devices: Named,
    /// Attributes that only root may set.
    pub(super) privileged_xattrs: Named,
    /// Attributes that the file system did not take.
    pub(super) refused_xattrs: Named,
    /// Modes that would have shut the owner out.
    pub(super) opened: Named,
    /// Modes that shut the owner out.
    pub(super) shut: Named,
    pub(super) set_ids: Named,
    /// Owners that nothing can hold: of symlinks, fifos and sockets.
    pub(super) owners: Named,
}

impl Changes {
    /// The mode that a file or directory gets.
    pub(super) fn mode(&mut self, inode: &Inode, options: &Options<'_>, root: bool, name: impl Fn() -> String) -> u32 {
        let mut mode = inode.mode;
        if options.owners == Owners::True {
            return mode.into();
        }
        // Owners are not kept: a set-uid program of someone else would become one of root.
        if !(root && inode.uid == 0) {
            mode &= !SET_UID;
        }
        if !(root && inode.gid == 0) {
            mode &= !SET_GID;
        }
        if mode != inode.mode && inode.kind() == InodeType::File {
            self.set_ids.add(&name);
        }
        let needed = match inode.kind() {
            InodeType::Directory => 0o700,
            _ => 0o400,
        };
        if mode & needed != needed {
            match options.open {
                true => self.opened.add(name),
                // Root is shut out of nothing.
                false if root => {}
                false => self.shut.add(name),
            }
        }
        u32::from(if options.open { mode | needed } else { mode })
    }

    /// The attributes to be set by whoever may not set all.
    pub(super) fn xattrs(&mut self, xattrs: Vec<Xattr>, name: impl Fn() -> String) -> Vec<Xattr> {
        let (kept, others): (Vec<_>, Vec<_>) = xattrs.into_iter().partition(|xattr| xattr.name.starts_with(b"user."));
        for other in others {
            self.privileged_xattrs.add(|| format!("{} ({})", name(), String::from_utf8_lossy(&other.name)));
        }
        kept
    }

    /// One line of each kind.
    pub(super) fn warnings(&self) -> Vec<String> {
        let lines = [
            (&self.devices, "device nodes were left out"),
            (&self.privileged_xattrs, "extended attributes of the namespaces security and trusted were left out"),
            (&self.refused_xattrs, "extended attributes were left out because the file system does not take them"),
            (&self.opened, "files and directories got permissions for their owner, whom their modes shut out"),
            (&self.shut, "files and directories have modes that shut their owner out"),
            (&self.set_ids, "programs lost their set-uid or set-gid bit, as their owner changed"),
            (&self.owners, "owners were not kept"),
        ];
        lines.into_iter().filter_map(|(named, what)| named.warning(what)).collect()
    }
}

/// The attribute that keeps what `inode` has.
pub(super) fn owner_xattr(inode: &Inode) -> Xattr {
    Xattr {
        name: OWNER_XATTR.as_bytes().into(),
        value: format!("{}:{}:{:o}", inode.uid, inode.gid, inode.mode).into_bytes(),
    }
}
