//! What the kernel and unsquashfs see in an image.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use siforge_squashfs::Codec;

use crate::image::{GZIP, LZ4, LZ4HC, XZ, ZSTD, build, build_tar, options, run, try_build};
use crate::layer::{Entry, Kind, directory, entry, file};
use crate::sample::{everything, noise, text};

#[derive(Clone, Copy, PartialEq)]
enum By {
    Kernel,
    Unsquashfs,
}

/// Compares the tree at `root` with the entries it was made from: all of them, and nothing else.
fn check(root: &Path, entries: &[Entry], by: By) {
    let mut groups: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for entry in entries {
        let first = match &entry.kind {
            Kind::Hard(target) => target.as_bytes(),
            _ => &entry.path,
        };
        groups.entry(first).or_default().push(&entry.path);
    }
    for entry in entries {
        let path = root.join(OsStr::from_bytes(&entry.path));
        let what = format!("{}", entry.path.escape_ascii());
        let stat = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        if let Kind::Hard(target) = &entry.kind {
            let first = fs::symlink_metadata(root.join(target)).unwrap();
            assert_eq!(stat.ino(), first.ino(), "{what}: one inode");
            continue;
        }
        assert_eq!(stat.mode() & 0o7777, entry.mode, "{what}: mode");
        assert_eq!((stat.uid(), stat.gid()), (entry.uid, entry.gid), "{what}: owner");
        assert_eq!(stat.mtime(), entry.mtime, "{what}: mtime");
        check_kind(&path, &stat, entry, by, &what);
        if !matches!(entry.kind, Kind::Directory) {
            assert_eq!(stat.nlink(), groups[&entry.path[..]].len() as u64, "{what}: links");
        }
        let mut xattrs: Vec<(String, Vec<u8>)> = xattrs(&path);
        xattrs.sort();
        let mut expect = entry.xattrs.clone();
        expect.sort();
        assert_eq!(xattrs, expect, "{what}: attributes");
    }
    let root_itself = entries.iter().filter(|entry| entry.path == b"./").count();
    assert_eq!(count(root), entries.len() - root_itself, "names");
}

fn check_kind(path: &Path, stat: &Metadata, entry: &Entry, by: By, what: &str) {
    let kind = stat.file_type();
    let device = |major: u32, minor: u32| {
        assert_eq!(stat.rdev(), rustix::fs::makedev(major, minor), "{what}: device");
    };
    match &entry.kind {
        Kind::Directory => {
            assert!(kind.is_dir(), "{what}");
            let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_type().unwrap());
            let below = names.filter(|kind| kind.is_dir()).count() as u64;
            assert!(by == By::Unsquashfs || stat.nlink() == below + 2, "{what}: links of a directory");
        }
        Kind::File(data) => {
            assert!(kind.is_file(), "{what}");
            let found = fs::read(path).unwrap();
            assert!(found == *data, "{what}: contents ({} and {} bytes)", found.len(), data.len());
            // The kernel counts the attributes as well.
            let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + 1 + value.len()).sum();
            let most = (data.len().div_ceil(512) + attributes.div_ceil(512)) as u64;
            assert!(by == By::Unsquashfs || stat.blocks() <= most, "{what}: {} blocks", stat.blocks());
        }
        Kind::Symlink(target) => assert_eq!(fs::read_link(path).unwrap().as_os_str(), OsStr::new(target), "{what}"),
        Kind::Char(major, minor) => {
            assert!(kind.is_char_device(), "{what}");
            device(*major, *minor);
        }
        Kind::Block(major, minor) => {
            assert!(kind.is_block_device(), "{what}");
            device(*major, *minor);
        }
        Kind::Fifo => assert!(kind.is_fifo(), "{what}"),
        Kind::Hard(_) => {}
    }
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
        value.truncate(length);
        (name, value)
    };
    names.map(value).collect()
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let below = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => 1 + count(&entry.path()),
        false => 1,
    });
    below.sum()
}

#[test]
fn everything_is_there() {
    for (codec, block_kib, offset) in [
        (ZSTD, 64, 0),
        (ZSTD, 256, 12_288),
        (GZIP, 128, 4096),
        (GZIP, 1024, 0),
        (ZSTD, 1024, 0),
        (LZ4, 64, 0),
        (LZ4HC, 1024, 0),
        (XZ, 128, 4096),
        (XZ, 1024, 0),
        (Codec::None, 256, 0),
    ] {
        let entries = everything();
        let image = try_build(std::slice::from_ref(&entries), &options(codec, block_kib, 2), offset).unwrap();
        assert_eq!(image.finished.warnings, Vec::<String>::new());
        check(image.mount().path(), &entries, By::Kernel);
        check(&image.extract(), &entries, By::Unsquashfs);
    }
}

#[test]
fn holes_take_no_blocks() {
    let image = build(
        &[vec![
            directory("./"),
            file("half", [noise(1, 1 << 20), vec![0; 1 << 20]].concat()),
            file("hole", vec![0; 1 << 20]),
            file("full", noise(2, 1 << 20)),
        ]],
        &options(ZSTD, 256, 1),
    );
    let mount = image.mount();
    for (name, blocks) in [("half", 2048), ("full", 2048), ("hole", 1)] {
        assert_eq!(fs::metadata(mount.path().join(name)).unwrap().blocks(), blocks, "{name}");
    }
}

/// The directory has an index, its listing takes hundreds of metadata blocks, and inode numbers run out of an i16.
#[test]
fn a_directory_of_100_000_names() {
    let mut entries = vec![directory("./"), directory("large"), directory("last")];
    entries.extend((0..100_000).map(|number| file(format!("large/name-of-a-file-{number}"), number.to_string())));
    // A hard link to each end: inodes far from their listing's others.
    entries.push(entry("last/first", Kind::Hard("large/name-of-a-file-0".into())));
    entries.push(entry("last/second", Kind::Hard("large/name-of-a-file-99999".into())));
    entries.push(file("last/third", "near"));
    let image = build(&[entries], &options(ZSTD, 256, 2));
    let mount = image.mount();
    let large = mount.path().join("large");
    let names: Vec<_> = fs::read_dir(&large).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 100_000);
    assert!(names.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
    for number in (0..100_000).step_by(97).chain([99_999]) {
        let path = large.join(format!("name-of-a-file-{number}"));
        assert_eq!(fs::read_to_string(path).unwrap(), number.to_string());
    }
    for name in ["a", "name-of-a-file-", "name-of-a-file-100000", "name-of-a-file-5x", "z"] {
        assert!(!large.join(name).exists(), "{name}");
    }
    for (name, contents) in [("first", "0"), ("second", "99999"), ("third", "near")] {
        assert_eq!(fs::read_to_string(mount.path().join("last").join(name)).unwrap(), contents);
    }
}

#[test]
fn a_file_beyond_4_gib() {
    let directory = tempfile::tempdir().unwrap();
    let size = (4 << 30) + 70_000;
    let tail = text(9, 1000);
    let source = fs::File::create(directory.path().join("large")).unwrap();
    source.set_len(size).unwrap();
    source.write_all_at(&tail, size - 1000).unwrap();
    // GNU tar writes the holes as holes; the merge expands them.
    let tar = directory.path().join("tar");
    run(Command::new("tar").args(["--format=pax", "-S", "-C"]).arg(directory.path()).arg("-cf").arg(&tar).arg("large"));
    let image = build_tar(&fs::read(&tar).unwrap(), &options(ZSTD, 1024, 2));
    let mount = image.mount();
    let large = fs::File::open(mount.path().join("large")).unwrap();
    assert_eq!(large.metadata().unwrap().len(), size);
    assert!(large.metadata().unwrap().blocks() < 3000);
    let mut end = vec![1; 2000];
    large.read_exact_at(&mut end, size - 2000).unwrap();
    assert!(end == [vec![0; 1000], tail].concat());
}

#[test]
fn squashfs_tools_read_the_superblock() {
    for (codec, lines) in [
        (ZSTD, &["Compression zstd", "compression-level 3"][..]),
        (GZIP, &["Compression gzip", "compression-level 6"][..]),
        (Codec::Gzip { level: 12 }, &["Compression gzip"][..]),
        (LZ4, &["Compression lz4"][..]),
        (LZ4HC, &["Compression lz4", "High Compression option specified (-Xhc)"][..]),
        (XZ, &["Compression xz"][..]),
        (Codec::None, &["Compression gzip", "Data is uncompressed", "Inodes are uncompressed"][..]),
    ] {
        let image = build(&[everything()], &options(codec, 128, 1));
        let said = run(Command::new("unsquashfs").arg("-stat").arg(&image.path));
        let always = ["Block size 131072", "Filesystem is exportable via NFS", "Duplicates are removed"];
        for line in lines.iter().chain(&always) {
            assert!(said.contains(line), "{line} in {said}");
        }
        let listed = run(Command::new("unsquashfs").arg("-lls").arg(&image.path));
        assert!(listed.contains("crw-rw-rw- root/root"), "{listed}");
    }
}
