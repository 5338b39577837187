//! A root file system of busybox, as a directory and as a squashfs, and the example binary run in it by anybody.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// An ordinary user that no passwd file knows.
pub(crate) const USER: u32 = 12345;

/// The user nobody, whose home does not exist.
pub(crate) const NOBODY: u32 = 65534;

const APPLETS: [&str; 20] = [
    "cat", "chgrp", "chown", "echo", "env", "false", "grep", "hostname", "id", "kill", "ls", "mkdir", "ps", "pwd",
    "readlink", "sh", "sleep", "stat", "touch", "true",
];

/// Mount points of the defaults; `Image::bare` lacks them.
const MOUNT_POINTS: [&str; 6] = ["proc", "sys", "dev", "tmp", "var/tmp", "root"];
const MOUNT_FILES: [&str; 3] = ["etc/hosts", "etc/localtime", "etc/resolv.conf"];

pub(crate) struct Image {
    pub(crate) scratch: TempDir,
    pub(crate) directory: PathBuf,
    launcher: PathBuf,
}

impl Image {
    /// With every default mount point.
    pub(crate) fn complete() -> Image {
        let image = Image::bare();
        for path in MOUNT_POINTS {
            fs::create_dir_all(image.directory.join(path)).unwrap();
        }
        for path in MOUNT_FILES {
            fs::write(image.directory.join(path), "").unwrap();
        }
        image
    }

    /// With nothing but the programs and accounts.
    pub(crate) fn bare() -> Image {
        let scratch = TempDir::new().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scratch.path(), open.clone()).unwrap();
        let directory = scratch.path().join("image");
        for path in ["bin", "etc"] {
            fs::create_dir_all(directory.join(path)).unwrap();
        }
        fs::copy("/bin/busybox", directory.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", directory.join("bin").join(applet)).unwrap();
        }
        fs::write(directory.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(directory.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(directory.join("etc/shadow"), "secret\n").unwrap();
        fs::set_permissions(directory.join("etc/shadow"), fs::Permissions::from_mode(0o600)).unwrap();
        let launcher = scratch.path().join("launch");
        fs::copy(example(), &launcher).unwrap();
        Image { scratch, directory, launcher }
    }

    pub(crate) fn squashfs(&self) -> PathBuf {
        let file = self.scratch.path().join("image.sqfs");
        if !file.exists() {
            let made =
                Command::new("mksquashfs").arg(&self.directory).arg(&file).args(["-quiet", "-no-progress"]).status();
            assert!(made.unwrap().success());
        }
        file
    }

    /// The launcher as `uid`, gid the same, in `/tmp`, with a small environment.
    pub(crate) fn launcher(&self, uid: u32) -> Command {
        self.launcher_with(uid, &[], &[])
    }

    /// The same with supplementary groups and with capabilities raised (setpriv's words).
    pub(crate) fn launcher_with(&self, uid: u32, groups: &[u32], capabilities: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
        if groups.is_empty() {
            command.arg("--clear-groups");
        } else {
            let list: Vec<String> = groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", list.join(",")));
        }
        if !capabilities.is_empty() {
            let list = capabilities.join(",");
            command.arg(format!("--inh-caps={list}")).arg(format!("--ambient-caps={list}"));
        }
        command
            .arg(&self.launcher)
            .current_dir("/tmp")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("GREETING", "hello");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `words` (options, root, command) and expects success; the standard output.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, uid: u32, words: &[S]) -> String {
        let output = self.output(uid, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {text}{errors}", output.status);
        text
    }

    pub(crate) fn output<S: AsRef<OsStr>>(&self, uid: u32, words: &[S]) -> Output {
        self.launcher(uid).args(words).output().unwrap()
    }

    pub(crate) fn root(&self) -> &str {
        self.directory.to_str().unwrap()
    }
}

/// The example of this crate, which `cargo test` builds next to the tests.
fn example() -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let path = path.parent().and_then(Path::parent).unwrap().join("examples/launch");
    assert!(path.exists(), "{} is missing: build it with cargo build -p siforge-launch --examples", path.display());
    path
}

/// A line of mountinfo: mount point, options of the mount, type.
#[derive(Debug)]
pub(crate) struct MountLine {
    pub(crate) target: String,
    pub(crate) options: Vec<String>,
    pub(crate) kind: String,
}

/// The mounts of `/proc/self/mountinfo` text, in order.
pub(crate) fn mount_lines(text: &str) -> Vec<MountLine> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let dash = words.iter().position(|w| *w == "-").unwrap();
        MountLine {
            target: words[4].to_owned(),
            options: words[5].split(',').map(str::to_owned).collect(),
            kind: words[dash + 1].to_owned(),
        }
    };
    text.lines().map(line).collect()
}

/// The last mount at a place.
pub(crate) fn mount_at<'a>(lines: &'a [MountLine], target: &str) -> &'a MountLine {
    lines.iter().rfind(|l| l.target == target).unwrap_or_else(|| panic!("nothing mounted on {target}: {lines:#?}"))
}
