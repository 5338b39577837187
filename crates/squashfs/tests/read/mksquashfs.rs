//! Images by mksquashfs: the unpacked tree is the tree that went in.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use siforge_squashfs::read::Error;

use crate::sample::{DEVICES, everything, small};
use crate::seen::{assert_same, at, in_image, on_disk, open, unpacked};

#[test]
fn trees_come_back() {
    let sample = everything();
    let expected = on_disk(&sample.tree());
    for arguments in [
        &["-comp", "gzip"][..],
        &["-comp", "zstd"],
        &["-comp", "zstd", "-Xcompression-level", "22", "-b", "1M"],
        &["-comp", "gzip", "-b", "4K"],
        &["-comp", "zstd", "-no-fragments"],
        &["-comp", "gzip", "-always-use-fragments"],
        &["-comp", "zstd", "-noI", "-noD", "-noF", "-noX"],
        &["-comp", "gzip", "-no-duplicates", "-no-exports", "-no-sparse", "-nopad"],
        &["-comp", "zstd", "-no-exports", "-b", "64K", "-sort", "/dev/null"],
    ] {
        println!("{arguments:?}");
        let reader = open(&sample.image(arguments)).unwrap();
        assert_same(&in_image(&reader).unwrap(), &expected);
        let (tree, warnings) = unpacked(&reader);
        assert_same(&tree, &expected);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        let expected = "1 extended attributes of the namespaces security and trusted were left out: /";
        assert!(warning.starts_with(expected), "{warning}");
    }
}

#[test]
fn unsquashfs_agrees() {
    let sample = everything();
    let image = sample.image(&["-comp", "zstd"]);
    let theirs = sample.dir.path().join("theirs");
    let output =
        Command::new("unsquashfs").args(["-quiet", "-no-progress", "-dest"]).args([&theirs, &image]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_same(&unpacked(&open(&image).unwrap()).0, &on_disk(&theirs));
}

#[test]
fn attributes_can_be_absent() {
    let sample = small();
    let mut expected = on_disk(&sample.tree());
    expected.values_mut().for_each(|seen| seen.xattrs.clear());
    let (tree, warnings) = unpacked(&open(&sample.image(&["-no-xattrs"])).unwrap());
    assert_same(&tree, &expected);
    assert!(warnings.is_empty());
}

#[test]
fn devices_are_counted_and_left_out() {
    let sample = small();
    let mut expected = on_disk(&sample.tree());
    let reader = open(&sample.image(&DEVICES)).unwrap();
    let (mut tree, warnings) = unpacked(&reader);
    // Their names change the root's time.
    at(&mut tree, "").mtime = at(&mut expected, "").mtime;
    assert_same(&tree, &expected);
    assert!(warnings[0].starts_with("2 device nodes were left out: /"), "{}", warnings[0]);
    let seen = in_image(&reader).unwrap();
    let devices = seen.values().filter(|seen| seen.kind == "device");
    assert_eq!(devices.count(), 2);
}

#[test]
fn holes_stay_holes() {
    let sample = everything();
    let into = tempfile::tempdir().unwrap();
    let reader = open(&sample.image(&["-comp", "zstd"])).unwrap();
    siforge_squashfs::read::unpack(&reader, into.path()).unwrap();
    for (name, size, most) in
        [("holes", 30 << 20, 1 << 20), ("one/two/three/sparse", 150_000, 140_000), ("zeros", 400_000, 140_000)]
    {
        let meta = fs::metadata(into.path().join(name)).unwrap();
        assert_eq!(meta.len(), size, "{name}");
        assert!(meta.blocks() * 512 <= most, "{name}: {} blocks", meta.blocks());
    }
}

#[test]
fn parts_of_files_are_read() {
    let sample = everything();
    let reader = open(&sample.image(&["-comp", "zstd", "-b", "64K"])).unwrap();
    let root = reader.root().unwrap();
    for name in ["text", "holes", "block+1", "zeros"] {
        let entry = reader.lookup(&root, name.as_bytes()).unwrap().unwrap();
        let inode = reader.entry_inode(&entry).unwrap();
        let whole = fs::read(sample.tree().join(name)).unwrap();
        for (offset, length) in [
            (0, 1),
            (65_535, 2),
            (65_536, 65_536),
            (1000, 300_000),
            (131_072, 100),
            (5 << 20, 70_000),
            (whole.len() - 1, 10),
            (whole.len(), 10),
            (usize::MAX, 10),
        ] {
            let start = offset.min(whole.len());
            let end = offset.saturating_add(length).min(whole.len());
            let mut part = vec![7; length];
            let read = reader.read_at(&inode, offset as u64, &mut part).unwrap();
            assert!(part[..read] == whole[start..end], "{name} {offset} {length}");
        }
    }
    assert_eq!(reader.lookup(&root, b"absent").unwrap(), None);
}

#[test]
fn modes_that_shut_the_owner_out_are_opened() {
    let sample = small();
    let shut = [("one", 0o000, 0o700), ("marked", 0o040, 0o440), ("hard", 0o200, 0o600)];
    for (name, mode, _) in shut {
        let path = sample.tree().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let (mut tree, warnings) = unpacked(&open(&sample.image(&[])).unwrap());
    for (name, _, mode) in shut {
        assert_eq!(at(&mut tree, name).mode, mode, "{name}");
    }
    let expected = "3 files and directories got permissions for their owner, whom their modes shut out: /";
    assert!(warnings[1].starts_with(expected), "{}", warnings[1]);
}

#[test]
fn images_lie_anywhere_in_a_file() {
    let sample = small();
    let image = fs::read(sample.image(&[])).unwrap();
    let shifted = sample.dir.path().join("shifted");
    fs::write(&shifted, [&[7; 12_345][..], &image, &[9; 100]].concat()).unwrap();
    let file = std::sync::Arc::new(fs::File::open(&shifted).unwrap());
    let open = |offset, size| siforge_squashfs::read::Reader::open(file.clone(), offset, size);
    let reader = open(12_345, image.len() as u64).unwrap();
    assert_same(&in_image(&reader).unwrap(), &on_disk(&sample.tree()));
    assert!(matches!(open(12_345, 1000), Err(Error::CutOff { .. })));
    assert!(matches!(open(12_345, 10), Err(Error::CutOff { .. })));
    assert!(matches!(open(0, 100_000), Err(Error::Magic { found: 0x0707_0707 })));
    assert!(matches!(open(u64::MAX, 1), Err(Error::Place { .. })));
    assert!(matches!(open(1 << 40, 1000), Err(Error::Read { .. })));
}
