//! Layers with everything that goes wrong in conversions. Two are what GNU tar writes of a folder (its own long names,
//! sparse files, base-256 numbers, pax records), the others are made entry by entry.
//!
//! Every folder that a layer has something in has an entry there, the root too: for implied folders, overlayfs shows the
//! upper layer's made-up one (see `implied_folders_keep_the_lower_metadata`).

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};
use siforge_tests::tar::Kind;
use siforge_tests::{Tar, run};

/// The default block of our squashfs.
const BLOCK: usize = 256 * 1024;

/// All layers, lowest first.
pub(super) fn nasty() -> Vec<Vec<u8>> {
    vec![base(), changes(), long_names(), again(), empty()]
}

/// Bytes that do not compress and are the same in every run.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// The mount points that siforge would add; then the comparison needs no exceptions for them.
fn mount_points(dir: &Path) {
    for name in ["dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "var/tmp"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    mode(&dir.join("tmp"), 0o1777);
    write(dir, "etc/hosts", b"127.0.0.1 localhost\n");
    write(dir, "etc/resolv.conf", b"");
}

fn base() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    mode(at, 0o755);
    mount_points(at);
    for folder in [
        "sizes",
        "same",
        "many",
        "links",
        "nodes",
        "owners",
        "attributes",
        "sparse",
        "times",
        "opaque",
        "opaque/deep",
        "types",
        "types/folder",
        "modes",
        "symlinks",
    ] {
        fs::create_dir(at.join(folder)).unwrap();
    }
    let sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 777];
    for size in sizes {
        write(at, &format!("sizes/{size}"), &noise(size as u64, size));
    }
    for (name, size) in [("small", 900), ("large", BLOCK + 5), ("exact", 2 * BLOCK)] {
        for copy in ["a", "b"] {
            write(at, &format!("same/{name}-{copy}"), &noise(7, size));
        }
    }
    for number in 0..700 {
        write(at, &format!("many/{number:04}"), format!("{number}\n").repeat(number % 90).as_bytes());
    }
    for name in ["opaque/gone", "opaque/deep/gone", "types/file", "types/folder/inside", "types/again"] {
        write(at, name, name.as_bytes());
    }
    symlink("folder", at.join("types/symlink")).unwrap();
    links_and_nodes(at);
    owners_and_modes(at);
    attributes(at);
    sparse_files(at);
    times(at);
    gnu_tar(at, "posix")
}

fn links_and_nodes(at: &Path) {
    write(at, "links/a", b"one file, four names");
    for name in ["links/b", "links/c", "d-elsewhere"] {
        fs::hard_link(at.join("links/a"), at.join(name)).unwrap();
    }
    symlink("a", at.join("links/symlink")).unwrap();
    fs::hard_link(at.join("links/symlink"), at.join("links/symlink-2")).unwrap();
    let long = "t/".repeat(2040);
    for (name, target) in
        [("up", "../../../.."), ("root", "/"), ("dangling", "nowhere"), ("self", "self"), ("long", &long[..4079])]
    {
        symlink(target, at.join("symlinks").join(name)).unwrap();
    }
    symlink(OsStr::from_bytes(b"\xff\xfe"), at.join("symlinks/bytes")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, at.join("nodes").join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("null", FileType::CharacterDevice, makedev(1, 3));
    node("disk", FileType::BlockDevice, makedev(259, 300_000));
    node("fifo", FileType::Fifo, 0);
    fs::hard_link(at.join("nodes/fifo"), at.join("nodes/fifo-2")).unwrap();
    fs::hard_link(at.join("nodes/null"), at.join("nodes/null-2")).unwrap();
}

fn owners_and_modes(at: &Path) {
    for (name, uid, gid) in [
        ("user", 1000, 1000),
        ("nobody", 65534, 65534),
        ("high", 4_000_000_000, 70_000),
        ("above-tar", 2_097_152, 2_097_152),
    ] {
        write(at, &format!("owners/{name}"), b"");
        chown(at.join("owners").join(name), Some(uid), Some(gid)).unwrap();
    }
    symlink("user", at.join("owners/symlink")).unwrap();
    lchown(at.join("owners/symlink"), Some(5), Some(6)).unwrap();
    for (name, bits) in [("setuid", 0o4755), ("setgid", 0o2755), ("sticky", 0o1644), ("none", 0), ("all", 0o7777)] {
        write(at, &format!("modes/{name}"), b"x");
        mode(&at.join("modes").join(name), bits);
    }
    mode(&at.join("modes"), 0o2775);
}

fn attributes(at: &Path) {
    // VFS_CAP_REVISION_2 | effective, cap_net_raw permitted.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let large = noise(9, 1500);
    let rows: [(&str, &str, &[u8]); 8] = [
        ("ping", "security.capability", &capability),
        ("ping-2", "security.capability", &capability),
        ("ping-2", "user.note", b"both"),
        ("empty", "user.empty", b""),
        ("binary", "user.binary", b"a\0\n=\xff"),
        ("large", "user.large", &large),
        ("trusted", "trusted.secret", b"root alone"),
        ("trusted", "user.é", b"a name that is not ASCII"),
    ];
    for (name, attribute, value) in rows {
        let path = at.join("attributes").join(name);
        if !path.exists() {
            write(at, &format!("attributes/{name}"), name.as_bytes());
        }
        lsetxattr(&path, attribute, value, XattrFlags::empty()).unwrap();
    }
    lsetxattr(at.join("attributes"), "user.folder", b"too", XattrFlags::empty()).unwrap();
    symlink("x", at.join("attributes/symlink")).unwrap();
    lsetxattr(at.join("attributes/symlink"), "trusted.symlink", b"too", XattrFlags::empty()).unwrap();
}

fn sparse_files(at: &Path) {
    let make = |name: &str, length: u64, data: &[u64]| {
        let file = File::create(at.join("sparse").join(name)).unwrap();
        for offset in data {
            file.write_all_at(&noise(*offset, 5000), *offset).unwrap();
        }
        file.set_len(length).unwrap();
    };
    make("hole-only", 5 << 20, &[]);
    make("ends-in-a-hole", (3 << 20) + 17, &[0, 1 << 20]);
    make("begins-with-a-hole", (2 << 20) + 5000, &[2 << 20]);
    // More pieces than fit one header of any of GNU tar's sparse formats.
    make("many-holes", 40 << 16, &(0..40).map(|n| n << 16).collect::<Vec<_>>());
}

fn times(at: &Path) {
    let rows = [
        ("1938", -1_000_000_000, 0),
        ("just-before", -1, 500_000_000),
        ("epoch", 0, 0),
        ("fraction", 1_600_000_000, 999_999_999),
        ("after-2038", 3_000_000_000, 0),
        ("after-2106", 5_000_000_000, 0),
    ];
    for (name, seconds, nanoseconds) in rows {
        write(at, &format!("times/{name}"), b"");
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, at.join("times").join(name), &times, AtFlags::empty()).unwrap();
    }
}

/// Whiteouts, opaque folders, changed types, the same path twice.
fn changes() -> Vec<u8> {
    let mut tar = Tar::new().mtime(1_700_000_000).dir("./", 0o755);
    tar = tar
        .dir("links", 0o711)
        .whiteout("links/a")
        .file("links/made", 0o600, "made")
        .hard_link("links/new", "links/made");
    tar = tar.dir("sizes", 0o755).dir("many", 0o755).whiteout("many/0000");
    for number in (100..400).step_by(3) {
        tar = tar.whiteout(&format!("many/{number:04}"));
    }
    // The marker behind an entry of its folder hides the lower layers only.
    tar = tar.dir("opaque", 0o750).file("opaque/new", 0o600, "new").opaque("opaque").dir("opaque/deep", 0o700);
    tar = tar.dir("types", 0o755).dir("types/file", 0o755).file("types/file/now-a-folder", 0o644, "x");
    tar = tar.file("types/folder", 0o644, "now a file").file("types/symlink", 0o644, "was a symlink");
    // Whiteout and new entry of one name, in both orders.
    tar = tar.whiteout("types/again").file("types/again", 0o640, "again");
    tar = tar.symlink("sizes/4096", "4095").whiteout("sizes/4096");
    tar = tar.dir("twice", 0o700).file("twice/file", 0o600, "first").file("twice/other", 0o600, "stays");
    tar = tar.hard_link("twice/link-to-first", "twice/file").file("twice/file", 0o644, "second, longer");
    tar = tar.symlink("twice/symlink", "first").symlink("twice/symlink", "second");
    tar = tar.dir("twice", 0o751).owner(3, 4).dir("root", 0o700).whiteout("nodes").whiteout("never-was");
    tar.finish()
}

/// Names that GNU tar's own format writes as long-name members, and markers as its plain files.
fn long_names() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    mode(at, 0o755);
    fs::create_dir(at.join("names")).unwrap();
    let odd: [&[u8]; 6] = [&[b'n'; 255], &[0xc3; 255], b"\xff\x01\x7f", b"new\nline", b" ", b"back\\slash"];
    for name in odd {
        fs::write(at.join("names").join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mut deep = at.join("names");
    for level in 0..12 {
        deep.push(format!("{level}-{}", "d".repeat(60)));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "at the end of 800 bytes").unwrap();
    fs::hard_link(deep.join("leaf"), at.join("names/short")).unwrap();
    symlink("y".repeat(300), at.join("names/symlink")).unwrap();
    write(at, "names/old", b"of 1901");
    run(Command::new("touch").args(["-d", "1901-12-13"]).arg(at.join("names/old"))).ok();
    fs::create_dir(at.join("times")).unwrap();
    write(at, "times/.wh.epoch", b"");
    fs::create_dir(at.join("sparse")).unwrap();
    let sparse = File::create(at.join("sparse/gnu")).unwrap();
    for piece in 0..30 {
        sparse.write_all_at(b"data", piece * 70_000).unwrap();
    }
    gnu_tar(at, "gnu")
}

/// Contents and names of the layers below once more.
fn again() -> Vec<u8> {
    let mut tar = Tar::new().dir("./", 0o755).dir("same", 0o755);
    tar = tar.file("same/large-c", 0o644, noise(7, BLOCK + 5)).file("same/small-c", 0o644, noise(7, 900));
    tar = tar.dir("nodes", 0o755).fifo("nodes/fifo", 0o600);
    tar = tar.dir("links", 0o755).file("links/a", 0o644, "another file");
    tar = tar.entry(Kind::File, b"same/\xfe\xed", 0o644, b"", b"not UTF-8", (0, 0));
    tar.dir("opaque", 0o755).file("opaque/gone", 0o644, "is back").finish()
}

/// A layer without any entry, as `ENV` lines of old Docker versions made.
fn empty() -> Vec<u8> {
    Tar::new().finish()
}

/// The folder as GNU tar stores it.
fn gnu_tar(dir: &Path, format: &str) -> Vec<u8> {
    let file = dir.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["-c", "--sparse", "--numeric-owner", "--sort=name", "--format", format]);
    if format == "posix" {
        tar.args(["--xattrs", "--xattrs-include=*"]);
    }
    run(tar.arg("-C").arg(dir).arg("-f").arg(&file).arg(".")).ok();
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    bytes
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
    mode(&dir.join(name), 0o644);
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
}
