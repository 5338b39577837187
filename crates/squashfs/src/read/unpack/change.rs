//! What an unpacked tree has otherwise than the image, decided here and counted for the warnings.

use crate::format::InodeType;
use crate::read::{Inode, Xattr};

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) devices: u64,
    /// Attributes that only root may set.
    pub(super) privileged_xattrs: u64,
    /// Attributes that the file system did not take.
    pub(super) refused_xattrs: u64,
    /// Modes that would have shut the owner out.
    pub(super) opened: u64,
}

impl Changes {
    /// The mode that a file or directory gets, unpacked by root or not.
    pub(super) fn mode(&mut self, inode: &Inode, root: bool) -> u32 {
        let mut mode = inode.mode;
        // Owners are not kept: a set-uid program of someone else would become one of root.
        if !(root && inode.uid == 0) {
            mode &= !SET_UID;
        }
        if !(root && inode.gid == 0) {
            mode &= !SET_GID;
        }
        let needed = match inode.kind() {
            InodeType::Directory => 0o700,
            _ => 0o400,
        };
        if mode & needed != needed {
            self.opened += 1;
        }
        u32::from(mode | needed)
    }

    /// The attributes to be set.
    pub(super) fn xattrs(&mut self, xattrs: Vec<Xattr>) -> Vec<Xattr> {
        let all = xattrs.len();
        let kept: Vec<_> = xattrs.into_iter().filter(|xattr| xattr.name.starts_with(b"user.")).collect();
        self.privileged_xattrs += (all - kept.len()) as u64;
        kept
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let lines = [
            (self.devices, "device nodes were left out"),
            (self.privileged_xattrs, "extended attributes of the namespaces security and trusted were left out"),
            (self.refused_xattrs, "extended attributes were left out because the file system does not take them"),
            (self.opened, "files and directories got permissions for their owner, whom their modes shut out"),
        ];
        lines.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}
