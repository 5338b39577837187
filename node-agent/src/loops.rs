//! What the kernel says about loop devices, from sysfs (drivers/block/loop.c):
//!
//! ```text
//! /sys/block/loop3/ro                  1
//! /sys/block/loop3/loop/backing_file   /store/sif/sha256/ab/<hex>.sif        (+ " (deleted)" when it was unlinked)
//! /sys/block/loop3/loop/offset         36864
//! ```
//!
//! The `loop` directory is there only while a file is bound.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where block devices are.
pub const SYSFS: &str = "/sys/block";
/// How the kernel marks the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// A loop device with a file bound to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// `3` of /dev/loop3.
    pub number: u32,
    /// The backing file's path as the kernel knows it.
    pub file: PathBuf,
    /// The backing file has lost its name.
    pub deleted: bool,
    /// Bytes of the file before the device's first byte.
    pub offset: u64,
    /// The device refuses writes.
    pub read_only: bool,
}

/// Which file it is, whatever its name. On a network a name can pass to another file without this kernel knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Of its file system.
    pub device: u64,
    /// In that file system.
    pub inode: u64,
}

impl FileId {
    /// Of a file that was looked at.
    pub fn of(metadata: &Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl From<(u64, u64)> for FileId {
    fn from((device, inode): (u64, u64)) -> Self {
        FileId { device, inode }
    }
}

/// All loop devices with a file. One that goes away meanwhile is left out.
pub fn list(sysfs: &Path) -> io::Result<Vec<Loop>> {
    let mut loops = Vec::new();
    for entry in std::fs::read_dir(sysfs)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        loops.extend(number.and_then(|number| read(sysfs, number)));
    }
    loops.sort_unstable_by_key(|device| device.number);
    Ok(loops)
}

/// One loop device; None when no file is bound to it.
pub fn read(sysfs: &Path, number: u32) -> Option<Loop> {
    let device = sysfs.join(format!("loop{number}"));
    let (file, deleted) = parse_backing(std::fs::read(device.join("loop/backing_file")).ok()?);
    let attribute = |name: &str| std::fs::read_to_string(device.join(name)).ok();
    Some(Loop {
        number,
        file,
        deleted,
        offset: attribute("loop/offset")?.trim().parse().ok()?,
        read_only: attribute("ro")?.trim() == "1",
    })
}

fn parse_backing(mut text: Vec<u8>) -> (PathBuf, bool) {
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    let deleted = text.ends_with(DELETED);
    if deleted {
        text.truncate(text.len() - DELETED.len());
    }
    (PathBuf::from(std::ffi::OsString::from_vec(text)), deleted)
}

/// The hex digest that an artifact's file name begins with, wherever in the store `file` lies (garbage collection moves
/// artifacts aside before it unlinks them). `root` is the store's root without symbolic links.
pub fn artifact_hex<'a>(file: &'a Path, root: &Path) -> Option<&'a str> {
    if !file.starts_with(root) {
        return None;
    }
    let name: &OsStr = file.file_name()?;
    let hex = name.as_bytes().get(..64)?;
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !hex.iter().all(is_hex) { None } else { std::str::from_utf8(hex).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(sysfs: &Path, name: &str, files: &[(&str, &str)]) {
        for (file, content) in files {
            let path = sysfs.join(name).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn bound_devices_are_listed() {
        let sysfs = tempfile::tempdir().unwrap();
        let bound = [("ro", "1\n"), ("loop/backing_file", "/s/a b.sif\n"), ("loop/offset", "4096\n")];
        device(sysfs.path(), "loop11", &bound);
        device(
            sysfs.path(),
            "loop2",
            &[("ro", "0\n"), ("loop/backing_file", "/x (deleted)\n"), ("loop/offset", "0\n")],
        );
        device(sysfs.path(), "loop3", &[("ro", "0\n")]);
        device(sysfs.path(), "vda", &[("ro", "0\n")]);
        let loops = list(sysfs.path()).unwrap();
        let expected = [
            Loop { number: 2, file: "/x".into(), deleted: true, offset: 0, read_only: false },
            Loop { number: 11, file: "/s/a b.sif".into(), deleted: false, offset: 4096, read_only: true },
        ];
        assert_eq!(loops, expected);
        list(Path::new(SYSFS)).unwrap();
    }

    #[test]
    fn artifacts_are_told_by_place_and_name() {
        let hex = "0123456789abcdef".repeat(4);
        let root = Path::new("/store");
        let cases = [
            (format!("/store/sif/sha256/01/{hex}.sif"), true),
            (format!("/store/trash/{hex}.sif.17"), true),
            (format!("/elsewhere/{hex}.sif"), false),
            (format!("/store2/{hex}.sif"), false),
            ("/store/short.sif".to_owned(), false),
            (format!("/store/{}.sif", hex.to_uppercase()), false),
        ];
        for (path, expected) in cases {
            let found = artifact_hex(Path::new(&path), root);
            assert_eq!(found, expected.then_some(hex.as_str()), "{path}");
        }
    }
}
