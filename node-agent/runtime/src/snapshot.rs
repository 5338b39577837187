//! The overlay that a container engine mounted for a container: its writable layers, as the kernel lists them. Pure.
//!
//! ```text
//! /proc/self/mountinfo (proc_pid_mountinfo(5)), fields by number:
//!   5 mount point   6 options   …   -   type   source   super options: rw,lowerdir=…,upperdir=…,workdir=…
//! ```
//! The kernel writes space, tab, newline and backslash as `\` and three octal digits; overlayfs before that a comma or colon of a
//! path as `\,` and `\:`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use siforge_launch::Layers;

/// Why a container's root cannot be remounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("nothing is mounted on {path}: the container engine has no snapshotter", path = path.display())]
    NotMounted { path: PathBuf },
    #[error(
        "{path} is a file system of type {found}, not an overlay: images of siforge need the overlayfs snapshotter",
        path = path.display()
    )]
    NotOverlay { path: PathBuf, found: String },
    #[error("the overlay on {path} has no {option} with a whole path", path = path.display())]
    Option { path: PathBuf, option: &'static str },
}

/// The writable layers of what is mounted on `root`, a canonical path.
pub(crate) fn layers(mountinfo: &[u8], root: &Path, context: Option<String>) -> Result<Layers, Error> {
    let on_root = |line: &&[u8]| {
        line.split(|byte| *byte == b' ').nth(4).is_some_and(|path| unmangle(path) == root.as_os_str().as_bytes())
    };
    // The last one is on top.
    let line = mountinfo.split(|byte| *byte == b'\n').rfind(on_root);
    let line = line.ok_or_else(|| Error::NotMounted { path: root.to_owned() })?;
    let mut fields = line.split(|byte| *byte == b' ');
    let options = fields.nth(5).unwrap_or_default();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next().unwrap_or_default();
    if kind != b"overlay" {
        let found = String::from_utf8_lossy(kind).into_owned();
        return Err(Error::NotOverlay { path: root.to_owned(), found });
    }
    let super_options = split_options(&unmangle(fields.nth(1).unwrap_or_default()));
    let directory = |option: &'static str| {
        let found = super_options.iter().find_map(|(name, value)| (name == option.as_bytes()).then_some(value));
        let path =
            found.map(|value| PathBuf::from(OsString::from_vec(value.clone()))).filter(|path| path.is_absolute());
        path.ok_or_else(|| Error::Option { path: root.to_owned(), option })
    };
    let nosuid = options.split(|byte| *byte == b',').any(|option| option == b"nosuid");
    Ok(Layers { upper: directory("upperdir")?, work: directory("workdir")?, context, nosuid })
}

/// Undoes the kernel's mangle().
fn unmangle(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digit: &u8| (b'0'..=b'7').contains(digit);
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
    out
}

/// `a=1,b` as names and values; a backslash takes a comma's meaning away, and an `=` only the first has.
fn split_options(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut options = Vec::new();
    let (mut name, mut value, mut in_value, mut escaped) = (Vec::new(), Vec::new(), false, false);
    for &byte in text {
        match byte {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            b',' if !escaped => {
                options.push((std::mem::take(&mut name), std::mem::take(&mut value)));
                in_value = false;
                continue;
            }
            b'=' if !in_value => in_value = true,
            _ if in_value => value.push(byte),
            _ => name.push(byte),
        }
        escaped = false;
    }
    options.push((name, value));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw\n";

    fn check(line: &str, expected: Result<(&str, &str, bool), &str>) {
        let text = format!("{HOST}{line}\n");
        match (layers(text.as_bytes(), Path::new("/b/root fs"), None), expected) {
            (Ok(found), Ok((upper, work, nosuid))) => {
                let expected = Layers { upper: upper.into(), work: work.into(), context: None, nosuid };
                assert_eq!(found, expected, "{line}");
            }
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{line}: {error}"),
            (found, expected) => panic!("{line}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn lines_of_mountinfo() {
        let line = |options: &str, tail: &str| format!(r"90 22 0:50 / /b/root\040fs {options} shared:3 - {tail}");
        let overlay = r"overlay overlay rw,lowerdir=/s/1/fs:/s/2/fs,upperdir=/s/3/fs,workdir=/s/3/work,uuid=on";
        check(&line("rw,relatime", overlay), Ok(("/s/3/fs", "/s/3/work", false)));
        check(&line("rw,nosuid,relatime", overlay), Ok(("/s/3/fs", "/s/3/work", true)));
        let odd = r"overlay overlay rw,lowerdir=/l,upperdir=/a\134,b\040c=d,workdir=/w";
        check(&line("rw", odd), Ok(("/a,b c=d", "/w", false)));
        check("", Err("nothing is mounted on"));
        check(&line("rw", "zfs pool rw"), Err("type zfs, not an overlay"));
        check(&line("rw", "overlay overlay ro,lowerdir=/a:/b"), Err("no upperdir"));
        check(&line("rw", "overlay overlay rw,upperdir=/u,workdir=w"), Err("no workdir with a whole path"));
        // On top counts.
        let below = line("rw", "zfs pool rw");
        check(&format!("{below}\n{}", line("rw", overlay)), Ok(("/s/3/fs", "/s/3/work", false)));
    }
}
