//! All that can be seen of a directory tree, entry by entry: what two ways of showing one image must agree on.
//!
//! Link counts are left out: overlayfs and squashfs disagree about those of directories, and what matters of the others
//! is which names are one file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;

use crate::image::sha256;

/// Longest list of names and longest value of Linux, XATTR_LIST_MAX and XATTR_SIZE_MAX.
const XATTR_MAX: usize = 65536;

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `ls -l`'s letter and the permission bits.
    pub mode: String,
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub mtime: i64,
    /// Device number of a device, else 0.
    pub device: (u32, u32),
    /// Length and digest of a file, target of a symlink.
    pub contents: String,
    pub xattrs: BTreeMap<OsString, String>,
    /// All names of the same inode in this tree, of anything but a directory.
    pub links: Vec<String>,
}

/// Paths below the root (the root itself is ""), printed with escapes, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing(pub BTreeMap<String, Entry>);

impl Listing {
    /// Looks at everything below `root`.
    pub fn of(root: &Path) -> Self {
        let mut seen = BTreeMap::new();
        let mut inodes: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
        let mut pending = vec![root.to_path_buf()];
        while let Some(path) = pending.pop() {
            // A name that leads to nothing is overlayfs's way to show a whiteout in a directory of one layer.
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            let name = printable(path.strip_prefix(root).unwrap_or(&path));
            if metadata.is_dir() {
                let children =
                    fs::read_dir(&path).unwrap_or_else(|e| panic!("read the folder {}: {e}", path.display()));
                pending.extend(
                    children.map(|child| {
                        child.unwrap_or_else(|e| panic!("read the folder {}: {e}", path.display())).path()
                    }),
                );
            } else {
                let id = (metadata.dev(), metadata.ino());
                inodes.entry(id).or_default().push(name.clone());
            }
            seen.insert(name, entry(&path, &metadata));
        }
        for mut names in inodes.into_values() {
            names.sort();
            for name in &names {
                if let Some(entry) = seen.get_mut(name) {
                    entry.links = names.clone();
                }
            }
        }
        Self(seen)
    }

    /// Without the paths that `hidden` picks and all below them.
    pub fn without(mut self, hidden: impl Fn(&str) -> bool) -> Self {
        let below = |name: &str| {
            let ends = name.match_indices('/').map(|(at, _)| &name[..at]);
            ends.chain([name]).any(&hidden)
        };
        self.0.retain(|name, _| !below(name));
        self
    }

    /// As squashfs can hold it: whole seconds of 1970–2106 (its superblock and inodes have 32 bits).
    pub fn clamped(mut self) -> Self {
        for entry in self.0.values_mut() {
            entry.mtime = entry.mtime.clamp(0, i64::from(u32::MAX));
        }
        self
    }

    /// Every difference, one a line; empty when both are the same.
    pub fn differences(&self, other: &Self) -> String {
        let mut lines = String::new();
        for name in self.0.keys().chain(other.0.keys()) {
            let (here, there) = (self.0.get(name), other.0.get(name));
            let twice = there.is_some() && here.is_some() && lines.contains(&format!("\n{name}: "));
            if here != there && !twice {
                lines += &format!("\n{name}: {here:?}\n{name}| {there:?}");
            }
        }
        lines
    }
}

fn entry(path: &Path, metadata: &fs::Metadata) -> Entry {
    let kind = metadata.file_type();
    let is_device = kind.is_char_device() || kind.is_block_device();
    let contents = if kind.is_file() {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        format!("{} {}", bytes.len(), sha256(&bytes))
    } else if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        printable(&target)
    } else {
        String::new()
    };
    let letter = match metadata.mode() & 0o170_000 {
        0o010_000 => 'p',
        0o020_000 => 'c',
        0o040_000 => 'd',
        0o060_000 => 'b',
        0o100_000 => '-',
        0o120_000 => 'l',
        0o140_000 => 's',
        _ => '?',
    };
    Entry {
        mode: format!("{letter}{:04o}", metadata.mode() & 0o7777),
        owner: (metadata.uid(), metadata.gid()),
        mtime: metadata.mtime(),
        device: if is_device { (major(metadata.rdev()), minor(metadata.rdev())) } else { (0, 0) },
        contents,
        xattrs: xattrs(path),
        links: Vec::new(),
    }
}

/// All that images keep: POSIX ACLs and labels are the host's.
fn xattrs(path: &Path) -> BTreeMap<OsString, String> {
    let mut list = vec![0; XATTR_MAX];
    let length = match llistxattr(path, &mut list[..]) {
        // A squashfs without any attribute has no table of them.
        Err(Errno::NOTSUP) => 0,
        length => length.unwrap_or_else(|e| panic!("list the attributes of {}: {e}", path.display())),
    };
    let names =
        list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(b"system."));
    let value = |name: &[u8]| {
        let mut value = vec![0; XATTR_MAX];
        let name = OsString::from_vec(name.to_vec());
        let length = lgetxattr(path, &*name, &mut value[..])
            .unwrap_or_else(|e| panic!("attribute {name:?} of {}: {e}", path.display()));
        value.truncate(length);
        (name, value.escape_ascii().to_string())
    };
    names.map(value).collect()
}

fn printable(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}
