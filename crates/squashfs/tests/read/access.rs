//! Access to parts: blocks of large files, names of large directories, inodes by their number; by many threads at once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use siforge_squashfs::read::{Error, Inode, Reader};

use crate::sample::{everything, mksquashfs, noise, small};
use crate::seen::open;

fn find(reader: &Reader, path: &str) -> Inode {
    path.split('/').fold(reader.root().unwrap(), |inode, name| {
        let entry = reader.lookup(&inode, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("{path}: {name}"));
        reader.entry_inode(&entry).unwrap()
    })
}

/// Blocks of three kinds: some compress, some do not, some are holes.
fn patchwork(blocks: usize) -> Vec<u8> {
    let mut contents = Vec::new();
    for block in 0..blocks {
        match block % 3 {
            0 => contents.extend(noise(block as u64, 4096)),
            1 => contents.extend([block as u8, (block >> 8) as u8].repeat(2048)),
            _ => contents.extend([0; 4096]),
        }
    }
    contents.extend(noise(1, 1234));
    contents
}

#[test]
fn any_place_of_a_large_file() {
    let sample = small();
    // More words than a metadata block holds, and many points of the index.
    let contents = patchwork(5000);
    fs::write(sample.tree().join("patchwork"), &contents).unwrap();
    for arguments in
        [&["-b", "4K", "-comp", "zstd"][..], &["-b", "4K", "-no-fragments"], &["-b", "4K", "-always-use-fragments"]]
    {
        let reader = open(&sample.image(arguments)).unwrap();
        let inode = find(&reader, "patchwork");
        let places = noise(7, 8000);
        let check = |bytes: &[u8]| {
            let place = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
            let offset = place * 2 % (contents.len() + 10_000);
            let length = 1 << (bytes[3] % 16);
            let mut part = vec![1; length];
            let read = reader.read_at(&inode, offset as u64, &mut part).unwrap();
            let end = (offset + length).min(contents.len());
            assert!(part[..read] == contents[offset.min(end)..end], "{arguments:?} {offset} {length}");
        };
        std::thread::scope(|scope| {
            for part in places.chunks(places.len() / 4) {
                scope.spawn(move || part.chunks_exact(4).for_each(check));
            }
        });
    }
}

#[test]
fn names_are_found_in_large_directories() {
    let sample = everything();
    for arguments in [&["-comp", "zstd"][..], &["-comp", "lz4", "-noI"]] {
        let reader = open(&sample.image(arguments)).unwrap();
        let wide = find(&reader, "wide");
        let mut names = 0;
        for entry in reader.read_dir(&wide).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(reader.lookup(&wide, &entry.name).unwrap(), Some(entry.clone()));
            let (longer, shorter) = ([&entry.name, &b"x"[..]].concat(), &entry.name[..entry.name.len() - 1]);
            assert_eq!(reader.lookup(&wide, &longer).unwrap(), None);
            assert_eq!(reader.lookup(&wide, shorter).unwrap(), None);
            names += 1;
        }
        assert_eq!(names, 1001);
        for absent in [&b"\x01"[..], b"0", b"00500", b"zzz", b"\xff"] {
            assert_eq!(reader.lookup(&wide, absent).unwrap(), None);
        }
    }
}

#[test]
fn reading_a_directory_goes_on_where_it_stood() {
    let sample = everything();
    let reader = open(&sample.image(&[])).unwrap();
    let wide = find(&reader, "wide");
    let all: Vec<_> = reader.read_dir(&wide).unwrap().map(Result::unwrap).collect();
    let mut position = reader.read_dir(&wide).unwrap().position();
    for (number, expected) in all.iter().enumerate() {
        let mut rest = reader.read_dir_from(position);
        assert_eq!(rest.next().unwrap().unwrap(), *expected);
        position = rest.position();
        if number % 100 == 0 {
            assert_eq!(rest.map(Result::unwrap).count(), all.len() - number - 1);
        }
    }
    assert!(reader.read_dir_from(position).next().is_none());
}

#[test]
fn inodes_have_numbers() {
    let sample = small();
    let reader = open(&sample.image(&[])).unwrap();
    for path in ["one", "one/two/blocks", "hard", "fifo"] {
        let inode = find(&reader, path);
        assert_eq!(reader.reference(inode.number).unwrap(), Some(inode.reference), "{path}");
    }
    let count = reader.superblock().inodes;
    for number in [0, count + 1, u32::MAX] {
        assert!(matches!(reader.reference(number), Err(Error::Index { what: "inode number", .. })), "{number}");
    }
    let without = open(&sample.image(&["-no-exports"])).unwrap();
    assert_eq!(without.reference(1).unwrap(), None);
}

#[test]
fn holes_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let file = File::create(tree.join("holes")).unwrap();
    file.write_all_at(&[1; 5000], 3 * 4096).unwrap();
    file.set_len(100 * 4096 + 10).unwrap();
    fs::write(tree.join("full"), [1; 5000]).unwrap();
    let image = dir.path().join("image");
    mksquashfs(&tree, &image, &["-b", "4K", "-no-fragments"]);
    let reader = open(&image).unwrap();
    let (data, hole) = (false, true);
    for (name, offset, kind, expected) in [
        ("holes", 0, data, Some(3 * 4096)),
        ("holes", 0, hole, Some(0)),
        ("holes", 3 * 4096 + 1, data, Some(3 * 4096 + 1)),
        ("holes", 3 * 4096 + 1, hole, Some(5 * 4096)),
        ("holes", 90 * 4096 + 1, hole, Some(90 * 4096 + 1)),
        ("holes", 5 * 4096, data, None),
        ("holes", 100 * 4096 + 10, hole, None),
        ("full", 0, hole, Some(5000)),
        ("full", 4999, data, Some(4999)),
        ("full", u64::MAX, data, None),
    ] {
        assert_eq!(reader.seek(&find(&reader, name), offset, kind).unwrap(), expected, "{name} {offset} {kind}");
    }
}

/// A file that claims to be larger than all memory and all disks: only what is read of it costs.
#[test]
fn huge_files_cost_nothing() {
    let sample = small();
    let path = sample.image(&["-noI", "-no-fragments"]);
    let mut image = fs::read(&path).unwrap();
    let inode = find(&open(&path).unwrap(), "one/two/three/sparse");
    let table = u64::from_le_bytes(image[64..72].try_into().unwrap());
    // An extended file, as it has holes: u64 start, u64 size behind 16 bytes.
    let size = (table + 2 + u64::from(inode.reference.offset()) + 24) as usize;
    assert_eq!(inode.reference.block(), 0);
    image[size..size + 8].copy_from_slice(&(u64::MAX >> 1).to_le_bytes());
    fs::write(&path, image).unwrap();
    let reader = open(&path).unwrap();
    let inode = find(&reader, "one/two/three/sparse");
    let mut part = [0; 100];
    reader.read_at(&inode, 70_000, &mut part).unwrap();
    assert!(part.starts_with(b"middle"));
    for offset in [1 << 30, 1 << 40, 1 << 62] {
        assert!(reader.read_at(&inode, offset, &mut part).is_err(), "{offset}");
        assert!(reader.seek(&inode, offset, false).is_err(), "{offset}");
    }
    assert!(reader.read_file(&inode, &mut io::sink()).is_err());
}
