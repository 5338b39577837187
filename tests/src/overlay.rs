//! What the kernel makes of an image's layers: each extracted by GNU tar into a folder of its own, whiteouts turned into
//! overlayfs's form, all mounted as one overlay.
//!
//! ```text
//!   layers/0/ … layers/N/     lowest first; `.wh.NAME` → a character device 0:0, `.wh..wh..opq` → trusted.overlay.opaque
//!   layers/empty/             overlayfs wants two lower folders
//!   merged/                   lowerdir=N:…:0:empty
//! ```
//! OCI image-spec, layer.md "Whiteouts"; Linux, Documentation/filesystems/overlayfs.rst "whiteouts and opaque
//! directories".

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::AtFlags;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat};

use crate::run::run;

/// Mounts of this thread are seen by it and its children alone, and go when it ends.
pub fn private_mounts() {
    crate::need::root();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap_or_else(|e| panic!("make a mount namespace: {e}"));
    run(Command::new("mount").args(["--make-rprivate", "/"])).ok();
}

/// Mounts the layers (plain tars, lowest first) below `dir`; gives the merged folder. Call [`private_mounts`] first.
pub fn mount(dir: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let mut lower: Vec<PathBuf> = Vec::new();
    for (number, tar) in layers.iter().enumerate() {
        let layer = dir.join("layers").join(number.to_string());
        extract(&layer, tar);
        if fs::read_dir(&layer).is_ok_and(|mut children| children.next().is_none()) {
            // Its root would be seen, dated by the clock.
            continue;
        }
        convert_whiteouts(&layer, &layer, &lower);
        lower.push(layer);
    }
    lower.insert(0, make_dir(&dir.join("layers/empty")));
    let merged = make_dir(&dir.join("merged"));
    let list: Vec<String> = lower.iter().rev().map(|path| path.display().to_string()).collect();
    let options = format!("ro,index=off,metacopy=off,redirect_dir=off,lowerdir={}", list.join(":"));
    run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged)).ok();
    merged
}

fn make_dir(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
    path.to_path_buf()
}

fn extract(dir: &Path, tar: &[u8]) {
    make_dir(dir);
    let file = dir.with_extension("tar");
    fs::write(&file, tar).unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
    let mut command = Command::new("tar");
    // Dated at the end: else a member that comes back to a folder dates it anew.
    command.args([
        "-x",
        "-p",
        "--delay-directory-restore",
        "--numeric-owner",
        "--same-owner",
        "--xattrs",
        "--xattrs-include=*",
    ]);
    run(command.arg("-C").arg(dir).arg("-f").arg(&file)).ok();
}

/// Turns the markers of `dir`, a folder of `layer`, and of all below it; `lower` are the layers below, done already.
fn convert_whiteouts(dir: &Path, layer: &Path, lower: &[PathBuf]) {
    let metadata = dir.metadata().unwrap_or_else(|e| panic!("stat {}: {e}", dir.display()));
    let children: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("read the folder {}: {e}", dir.display()))
        .map(|child| child.unwrap_or_else(|e| panic!("read the folder {}: {e}", dir.display())).path())
        .collect();
    for child in &children {
        if child.is_dir() && !child.is_symlink() {
            convert_whiteouts(child, layer, lower);
        }
    }
    for child in children {
        let name = child.file_name().unwrap_or_default().as_bytes();
        let Some(hidden) = name.strip_prefix(b".wh.") else {
            continue;
        };
        fs::remove_file(&child).unwrap_or_else(|e| panic!("remove {}: {e}", child.display()));
        if hidden == b".wh..opq" {
            set_opaque(dir);
            continue;
        }
        let place = dir.join(OsStr::from_bytes(hidden));
        let inside = place.strip_prefix(layer).unwrap_or(&place);
        if place.is_dir() && !place.is_symlink() {
            set_opaque(&place);
        } else if place.symlink_metadata().is_err()
            && lower.iter().any(|below| below.join(inside).symlink_metadata().is_ok())
        {
            mknodat(CWD, &place, FileType::CharacterDevice, Mode::empty(), 0)
                .unwrap_or_else(|e| panic!("make the whiteout {}: {e}", place.display()));
        }
    }
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, dir, &times, AtFlags::empty()).unwrap_or_else(|e| panic!("date {}: {e}", dir.display()));
}

fn set_opaque(dir: &Path) {
    rustix::fs::setxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .unwrap_or_else(|e| panic!("mark {} opaque: {e}", dir.display()));
}
