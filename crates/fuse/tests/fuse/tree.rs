//! What the kernel shows of an image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::SeekFrom;
use siforge_fuse::Owners;

use crate::mounted::Mounted;
use crate::sample::{DEVICES, everything, noise, small};
use crate::seen::{assert_same, on_disk};

#[test]
fn trees_are_shown_as_they_were() {
    let sample = everything();
    let expected = on_disk(&sample.tree());
    for arguments in [
        &["-comp", "zstd"][..],
        &["-comp", "gzip", "-b", "4K"],
        &["-comp", "lz4", "-b", "1M", "-no-fragments"],
        &["-comp", "xz", "-always-use-fragments"],
    ] {
        println!("{arguments:?}");
        let mounted = Mounted::new(&sample.image(arguments), Owners::Image);
        // The second time out of what the kernel keeps.
        assert_same(&on_disk(&mounted.root()), &expected);
        assert_same(&on_disk(&mounted.root()), &expected);
        mounted.end();
    }
}

#[test]
fn owners_and_numbers() {
    let sample = small();
    std::os::unix::fs::chown(sample.tree().join("marked"), Some(1234), Some(70_000)).unwrap();
    let image = sample.image(&DEVICES);
    for (owners, marked, one) in
        [(Owners::Image, (1234, 70_000), (0, 0)), (Owners::All { uid: 4321, gid: 1 }, (4321, 1), (4321, 1))]
    {
        let mounted = Mounted::new(&image, owners);
        let of = |name| fs::symlink_metadata(mounted.root().join(name)).unwrap();
        for (name, owner) in [("marked", marked), ("one", one), ("", one), ("fifo", one)] {
            assert_eq!((of(name).uid(), of(name).gid()), owner, "{name} {owners:?}");
        }
        assert_eq!(of("null").rdev(), rustix::fs::makedev(1, 3));
        assert_eq!(of("disk").rdev(), rustix::fs::makedev(259, 70_000));
        assert_eq!(of("hard").nlink(), 2);
        assert_eq!(of("hard").ino(), of("one/two/blocks").ino());
        assert_eq!(fs::read_dir(mounted.root()).unwrap().count(), fs::read_dir(sample.tree()).unwrap().count() + 2);
        mounted.end();
    }
}

/// One entry of a listing: name, number, type.
fn listing(dir: &mut rustix::fs::Dir) -> BTreeMap<Vec<u8>, (u64, rustix::fs::FileType)> {
    let entries = dir.by_ref().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().to_bytes().to_vec(), (entry.ino(), entry.file_type()))).collect()
}

#[test]
fn large_directories_are_listed_whole_and_from_the_middle() {
    let sample = everything();
    let mounted = Mounted::new(&sample.image(&[]), Owners::Image);
    let wide = mounted.root().join("wide");
    let mut dir = rustix::fs::Dir::new(File::open(&wide).unwrap()).unwrap();
    let all = listing(&mut dir);
    assert_eq!(all.len(), 1003);
    let some = all.iter().filter(|(name, _)| !name.starts_with(b".")).step_by(97);
    for (name, (number, kind)) in some {
        let meta = fs::symlink_metadata(wide.join(std::str::from_utf8(name).unwrap())).unwrap();
        assert_eq!((meta.ino(), kind.is_file()), (*number, meta.is_file()));
    }
    dir.rewind();
    assert_eq!(listing(&mut dir), all);
    // From the middle, by a descriptor that has read nothing before.
    dir.rewind();
    let read = dir.by_ref().take(500).map(Result::unwrap).last().unwrap();
    let mut other = rustix::fs::Dir::new(File::open(&wide).unwrap()).unwrap();
    other.seek(read.offset()).unwrap();
    assert_eq!(listing(&mut other), listing(&mut dir));
    for name in ["absent", "wide/00001", "text/below", "\u{1}"] {
        assert!(fs::symlink_metadata(mounted.root().join(name)).is_err(), "{name}");
    }
    drop((dir, other));
    mounted.end();
}

#[test]
fn holes_space_and_refusals() {
    let sample = everything();
    let mounted = Mounted::new(&sample.image(&[]), Owners::Image);
    let holes = File::open(mounted.root().join("holes")).unwrap();
    for (from, to) in [
        (SeekFrom::Data(0), Ok(0)),
        (SeekFrom::Hole(0), Ok(128 << 10)),
        (SeekFrom::Data(1 << 20), Ok(5 << 20)),
        (SeekFrom::Data(29 << 20), Err(rustix::io::Errno::NXIO)),
        (SeekFrom::Hole(29 << 20), Ok(29 << 20)),
    ] {
        assert_eq!(rustix::fs::seek(&holes, from), to, "{from:?}");
    }
    assert!(holes.metadata().unwrap().blocks() * 512 < 1 << 20);
    let space = rustix::fs::statvfs(mounted.root()).unwrap();
    assert_eq!((space.f_bfree, space.f_bavail, space.f_namemax), (0, 0, 255));
    assert!(space.f_files > 1000 && space.f_blocks > 10);
    let refused = fs::write(mounted.root().join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    drop(holes);
    mounted.end();
}

#[test]
fn many_threads_read_anywhere() {
    let sample = everything();
    for arguments in [&["-comp", "zstd"][..], &["-comp", "lz4", "-b", "1M"]] {
        let mounted = Mounted::new(&sample.image(arguments), Owners::Image);
        std::thread::scope(|scope| {
            for seed in 0..6 {
                let name = ["text", "noise", "holes"][seed % 3];
                let (root, expected) = (mounted.root(), fs::read(sample.tree().join(name)).unwrap());
                scope.spawn(move || {
                    let file = File::open(root.join(name)).unwrap();
                    for bytes in noise(seed as u64, 1200).chunks_exact(4) {
                        let place = u32::from_le_bytes(bytes.try_into().unwrap()) as usize % expected.len();
                        let mut part = vec![0; 1 << (bytes[0] % 19)];
                        let read = file.read_at(&mut part, place as u64).unwrap();
                        assert!(read > 0 && part[..read] == expected[place..place + read], "{name} {place}");
                    }
                });
            }
        });
        mounted.end();
    }
}
