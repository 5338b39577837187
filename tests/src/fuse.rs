//! /dev/fuse as a test wants it: hosts differ in who may open it.

use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::run::run;

/// Puts a device of this mode in place of /dev/fuse, for this thread and its children. `dir` is on a file system that
/// can hold devices, or becomes one. Call [`crate::overlay::private_mounts`] first.
pub fn device(dir: &Path, mode: u32) {
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "tmpfs"]).arg(dir)).ok();
    let node = dir.join("fuse");
    let mode = Mode::from_raw_mode(mode);
    // misc.c and fuse.h of Linux: the minor is reserved for it.
    mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(10, 229)).unwrap_or_else(|e| panic!("mknod: {e}"));
    rustix::fs::chmod(&node, mode).unwrap_or_else(|e| panic!("chmod: {e}"));
    run(Command::new("mount").arg("--bind").arg(&node).arg("/dev/fuse")).ok();
}

/// Servers that have a file below `dir` open.
pub fn servers(dir: &Path) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap_or_else(|e| panic!("/proc: {e}"));
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let process = Path::new("/proc").join(u32::to_string(pid));
        let server = std::fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm == "siforge-fuse\n");
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        server && files.filter_map(|fd| fd.path().read_link().ok()).any(|file| file.starts_with(dir))
    })
    .collect()
}
