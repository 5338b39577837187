//! Trees on disk and images of them, made by mksquashfs.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use tempfile::TempDir;

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn text(seed: u64, length: usize) -> Vec<u8> {
    let words = noise(seed, length / 4 + 1);
    let text = words.iter().flat_map(|word| format!("{:03} ", word % 97).into_bytes());
    text.take(length).collect()
}

/// Deletes its directories also when the tree is read by nobody.
pub(crate) struct Sample {
    pub(crate) dir: TempDir,
}

impl Sample {
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// The tree's image by mksquashfs with these arguments.
    pub(crate) fn image(&self, arguments: &[&str]) -> PathBuf {
        let image = self.dir.path().join("image.sqfs");
        mksquashfs(&self.tree(), &image, arguments);
        image
    }
}

#[track_caller]
pub(crate) fn mksquashfs(tree: &Path, image: &Path, arguments: &[&str]) {
    let output = Command::new("mksquashfs")
        .args([tree, image])
        .args(["-noappend", "-no-progress", "-quiet"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn empty() -> Sample {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    Sample { dir }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn set_mtime(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// A few of each thing, small enough to be broken at every byte.
pub(crate) fn small() -> Sample {
    let sample = empty();
    let tree = sample.tree();
    fs::create_dir_all(tree.join("one/two/three")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("one/small"), "small").unwrap();
    fs::write(tree.join("one/none"), "").unwrap();
    fs::write(tree.join("one/two/blocks"), text(1, 20_000)).unwrap();
    fs::hard_link(tree.join("one/two/blocks"), tree.join("hard")).unwrap();
    fs::write(tree.join("marked"), "marked").unwrap();
    set_xattr(&tree.join("marked"), "user.a", b"value");
    set_xattr(&tree.join("marked"), "trusted.b", b"");
    set_xattr(&tree.join("one"), "user.a", b"value");
    set_xattr(&tree.join("one"), "user.long", &noise(3, 700));
    set_xattr(&tree.join("empty"), "user.long", &noise(3, 700));
    let sparse = File::create(tree.join("one/two/three/sparse")).unwrap();
    sparse.write_all_at(b"middle", 70_000).unwrap();
    sparse.set_len(150_000).unwrap();
    symlink("../hard", tree.join("one/link")).unwrap();
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(CWD, tree.join(name), kind, Mode::from_raw_mode(0o640), 0).unwrap();
    }
    sample
}

/// Device nodes without the right to make any: mksquashfs adds them to the image.
pub(crate) const DEVICES: [&str; 4] = ["-p", "null c 666 0 0 1 3", "-p", "disk b 600 0 0 259 70000"];

/// All that matters to an unpacker, in sizes that cross the borders of blocks and tables.
pub(crate) fn everything() -> Sample {
    let sample = small();
    let tree = sample.tree();
    let wide = tree.join("wide");
    fs::create_dir(&wide).unwrap();
    for number in 0..1000 {
        let name = format!("{number:05}-{}", "n".repeat(number % 200));
        fs::write(wide.join(name), text(number as u64, number % 97)).unwrap();
    }
    let deep = tree.join("deep/".to_owned() + &"d/".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "bottom").unwrap();
    for (name, contents) in [
        ("text", text(2, 3_000_001)),
        ("noise", noise(2, 1_300_000)),
        ("block", text(3, 128 << 10)),
        ("block-1", text(4, (128 << 10) - 1)),
        ("block+1", text(5, (128 << 10) + 1)),
        ("zeros", vec![0; 400_000]),
        ("\u{fc}n\\i\"c\node", vec![1]),
    ] {
        fs::write(tree.join(name), contents).unwrap();
    }
    symlink("t/".repeat(2047), tree.join("long-link")).unwrap();
    let holes = File::create(tree.join("holes")).unwrap();
    holes.write_all_at(b"start", 0).unwrap();
    holes.write_all_at(&text(6, 300_000), 5 << 20).unwrap();
    holes.set_len(30 << 20).unwrap();
    for (name, mode) in [("text", 0o4755), ("noise", 0o2711), ("block", 0o444), ("empty", 0o1777)] {
        set_mode(&tree.join(name), mode);
    }
    set_mtime(&tree.join("text"), 1_234_567_890);
    set_mtime(&tree.join("noise"), 0);
    set_mtime(&tree.join("block"), u32::MAX.into());
    set_mtime(&tree.join("wide"), 1);
    fs::hard_link(tree.join("text"), wide.join("text")).unwrap();
    fs::hard_link(tree.join("text"), tree.join("text-2")).unwrap();
    sample
}
