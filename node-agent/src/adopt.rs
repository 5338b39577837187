//! What an earlier agent left under the state directory: which mounts are good and served on, which are stale. Pure.
//!
//! ```text
//! /proc/self/mountinfo (proc_pid_mountinfo(5)):
//!   36 35 7:3 / /run/siforge/mounts/<64 hex> ro,nosuid,nodev,relatime - squashfs /dev/loop3 ro,errors=continue
//!   │  │  │   │ │                            │                       │ │        │
//!   id parent │ root, mount point            options                 end of optional fields, type, source
//!             major:minor of the file system's device: 7 is loop
//! ```
//!
//! A mount is good when its name is a digest, it is a squashfs on a read-only loop device, and that device's backing file is
//! the artifact which the store has under this digest: the same path, which the file has not lost (sysfs says so when it has), and
//! the same inode (the device says so: a name that another node gave to another file still looks the same from here). Its bytes
//! were verified by the agent that mounted them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use siforge_reference::Digest;

use crate::loops::{FileId, Loop};

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u32 = 7;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Device of the file system, major and minor.
    pub device: (u32, u32),
    /// File system type.
    pub filesystem: OsString,
    /// The per-mount options, comma separated.
    pub options: OsString,
}

/// What to do about one mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Serve on.
    Adopt(Digest),
    /// Unmount lazily, so many times, for this reason; who still uses it is not disturbed.
    Clean { path: PathBuf, layers: usize, reason: &'static str },
}

/// Parses mountinfo; lines that do not have its form are passed over, for the kernel may add fields but not take any.
pub fn parse_mountinfo(text: &[u8]) -> Vec<MountPoint> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let options = fields.next()?;
    let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    Some(MountPoint {
        path: PathBuf::from(unescape(path)),
        device: (major.parse().ok()?, minor.parse().ok()?),
        filesystem: OsStr::from_bytes(filesystem).to_owned(),
        options: OsStr::from_bytes(options).to_owned(),
    })
}

/// Undoes the kernel's mangle(): space, tab, newline, backslash (and #) stand as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |b: &u8| (b'0'..=b'7').contains(b);
        match (byte, tail) {
            (b'\\', [a, b, c, after @ ..]) if [a, b, c].into_iter().all(octal) && *a <= b'3' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

/// Whether something is mounted exactly on `path`.
pub fn is_mount_point(mounts: &[MountPoint], path: &Path) -> bool {
    mounts.iter().any(|mount| mount.path == path)
}

/// The digest that a mount point or a state directory entry is named by: 64 lower-case hex digits.
pub fn digest_of_name(name: &OsStr) -> Option<Digest> {
    let hex = name.to_str()?;
    if hex.len() != 64 { None } else { format!("sha256:{hex}").parse().ok() }
}

/// Judges everything mounted directly under `directory`. `device` tells about a loop device and its file by its minor number,
/// `artifact` gives path (without symbolic links) and identity of the artifact that the store has under a digest now.
pub fn judge(
    mounts: &[MountPoint],
    directory: &Path,
    device: &dyn Fn(u32) -> Option<(Loop, FileId)>,
    artifact: &dyn Fn(&Digest) -> Option<(PathBuf, FileId)>,
) -> Vec<Verdict> {
    let mut by_path: BTreeMap<&Path, Vec<&MountPoint>> = BTreeMap::new();
    for mount in mounts {
        if mount.path.parent() == Some(directory) {
            by_path.entry(&mount.path).or_default().push(mount);
        }
    }
    by_path
        .into_iter()
        .map(|(path, stack)| match judge_one(path, &stack, device, artifact) {
            Ok(digest) => Verdict::Adopt(digest),
            Err(reason) => Verdict::Clean { path: path.to_owned(), layers: stack.len(), reason },
        })
        .collect()
}

fn judge_one(
    path: &Path,
    stack: &[&MountPoint],
    device: &dyn Fn(u32) -> Option<(Loop, FileId)>,
    artifact: &dyn Fn(&Digest) -> Option<(PathBuf, FileId)>,
) -> Result<Digest, &'static str> {
    let digest = path.file_name().and_then(digest_of_name).ok_or("its name is not a digest")?;
    let [mount] = stack else {
        return Err("it is mounted over itself");
    };
    if mount.filesystem != "squashfs" {
        return Err("it is not a squashfs");
    }
    let options: Vec<&[u8]> = mount.options.as_bytes().split(|byte| *byte == b',').collect();
    if !["ro", "nosuid", "nodev"].iter().all(|wanted| options.contains(&wanted.as_bytes())) {
        return Err("it is not mounted ro,nosuid,nodev");
    }
    let (LOOP_MAJOR, minor) = mount.device else {
        return Err("it is not on a loop device");
    };
    let (device, behind) = device(minor).ok_or("no file is bound to its loop device")?;
    if !device.read_only {
        return Err("its loop device is writable");
    }
    let (artifact, id) = artifact(&digest).ok_or("the store no longer has this artifact")?;
    if device.file != artifact || device.deleted || behind != id {
        return Err("its backing file is not the store's artifact");
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn line(device: &str, path: &str, options: &str, filesystem: &str) -> String {
        format!("36 35 {device} / {path} {options} shared:7 master:2 - {filesystem} /dev/loop3 ro,errors=continue\n")
    }

    #[test]
    fn mountinfo_is_read_field_by_field() {
        let text = format!("{}short line\n\n", line("7:3", "/run/a\\040b\\134c", "ro,nosuid", "squashfs"));
        let expected = MountPoint {
            path: "/run/a b\\c".into(),
            device: (7, 3),
            filesystem: "squashfs".into(),
            options: "ro,nosuid".into(),
        };
        assert_eq!(parse_mountinfo(text.as_bytes()), [expected]);
        // The running kernel's own text: something is mounted on /proc.
        let own = parse_mountinfo(&std::fs::read("/proc/self/mountinfo").unwrap());
        assert!(is_mount_point(&own, Path::new("/proc")));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (input, expected) in [("a\\04", "a\\04"), ("\\", "\\"), ("\\777", "\\777"), ("\\1018", "A8")] {
            assert_eq!(unescape(input.as_bytes()), OsString::from(expected), "{input}");
        }
    }

    struct Found {
        mountinfo: String,
        device: Option<(Loop, FileId)>,
        artifact: Option<(PathBuf, FileId)>,
    }

    const ID: FileId = FileId { device: 1, inode: 2 };

    fn good() -> Found {
        let device = Loop { number: 3, file: "/store/a.sif".into(), deleted: false, offset: 0, read_only: true };
        Found {
            mountinfo: line("7:3", &format!("/state/mounts/{HEX}"), "ro,nosuid,nodev,relatime", "squashfs"),
            device: Some((device, ID)),
            artifact: Some(("/store/a.sif".into(), ID)),
        }
    }

    fn check(name: &str, found: Found, expected: Result<(), &str>) {
        let mounts = parse_mountinfo(found.mountinfo.as_bytes());
        let verdicts = judge(
            &mounts,
            Path::new("/state/mounts"),
            &|minor| {
                if minor == 3 { found.device.clone() } else { None }
            },
            &|_| found.artifact.clone(),
        );
        match (expected, verdicts.as_slice()) {
            (Ok(()), [Verdict::Adopt(digest)]) => assert_eq!(digest.hex(), HEX, "{name}"),
            (Err(expected), [Verdict::Clean { reason, layers, .. }]) => {
                assert_eq!((*reason, *layers), (expected, mounts.len()), "{name}");
            }
            (_, verdicts) => panic!("{name}: {verdicts:?}"),
        }
    }

    #[test]
    fn only_a_mount_as_the_agent_makes_it_is_adopted() {
        let path = format!("/state/mounts/{HEX}");
        let check_line = |name: &str, mountinfo: String, expected| {
            let found = Found { mountinfo, ..good() };
            check(name, found, expected);
        };
        let good_line = || good().mountinfo;
        check_line("good", good_line(), Ok(()));
        check_line(
            "name",
            line("7:3", "/state/mounts/x", "ro,nosuid,nodev", "squashfs"),
            Err("its name is not a digest"),
        );
        check_line("stacked", good_line().repeat(2), Err("it is mounted over itself"));
        check_line("type", line("0:40", &path, "ro,nosuid,nodev", "tmpfs"), Err("it is not a squashfs"));
        for options in ["ro,nodev", "ro,nosuid", "rw,nosuid,nodev"] {
            check_line(options, line("7:3", &path, options, "squashfs"), Err("it is not mounted ro,nosuid,nodev"));
        }
        check_line("disk", line("8:1", &path, "ro,nosuid,nodev", "squashfs"), Err("it is not on a loop device"));
    }

    #[test]
    fn only_the_stores_own_artifact_is_adopted() {
        let check_device = |name: &str, change: &dyn Fn(&mut (Loop, FileId)), expected| {
            let mut found = good();
            change(found.device.as_mut().unwrap());
            check(name, found, Err(expected));
        };
        let another = "its backing file is not the store's artifact";
        check_device("writable", &|(device, _)| device.read_only = false, "its loop device is writable");
        check_device("unlinked", &|(device, _)| device.deleted = true, another);
        check_device("path", &|(device, _)| device.file = "/trash/a.sif".into(), another);
        check_device("inode", &|(_, id)| id.inode += 1, another);
        check_device("file system", &|(_, id)| id.device += 1, another);
        check("no loop", Found { device: None, ..good() }, Err("no file is bound to its loop device"));
        check("no artifact", Found { artifact: None, ..good() }, Err("the store no longer has this artifact"));
    }

    #[test]
    fn mounts_elsewhere_are_nobodys_business() {
        let text = line("7:3", &format!("/other/{HEX}"), "ro", "squashfs");
        let mounts = parse_mountinfo(text.as_bytes());
        assert!(judge(&mounts, Path::new("/state/mounts"), &|_| None, &|_| None).is_empty());
    }
}
