//! Images that someone made to do harm: a good image of plain tables, and one change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use siforge_squashfs::read::{Error, Limits, Unpacked, unpack};

use crate::sample::{Sample, mksquashfs, small};
use crate::seen::{open, open_limited};

/// `into/` is unpacked to and `outside` must stay as it is.
struct Attack {
    sample: Sample,
    image: Vec<u8>,
}

impl Attack {
    /// A tree with names to be replaced: files `QQ` and `RR`, a symlink `SS` to the outside, a directory `TT/UU`.
    fn new() -> Self {
        let sample = small();
        let tree = sample.tree();
        fs::write(tree.join("QQ"), "attack").unwrap();
        fs::write(tree.join("RR"), "attack").unwrap();
        symlink("../outside", tree.join("SS")).unwrap();
        fs::create_dir_all(tree.join("TT/UU")).unwrap();
        fs::write(tree.join("TT/UU/victim"), "attack").unwrap();
        let image = fs::read(sample.image(&["-noI", "-noX", "-noId"])).unwrap();
        Self { sample, image }
    }

    fn table(&self, at: usize) -> usize {
        u64::from_le_bytes(self.image[at..at + 8].try_into().unwrap()) as usize
    }

    /// Where the listings have this name; it occurs once. Behind them lies the fragment table.
    fn entry(&self, name: &str) -> usize {
        let (start, end) = (self.table(72), self.table(80));
        let windows = self.image[start..end].windows(name.len()).enumerate();
        let mut places = windows.filter(|(_, window)| *window == name.as_bytes());
        let (place, _) = places.next().unwrap();
        assert_eq!(places.next(), None, "{name}");
        start + place
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn rename(&mut self, from: &str, to: &[u8]) {
        let at = self.entry(from);
        self.put(at, to);
    }

    /// Lets an entry name another's inode.
    fn point(&mut self, from: &str, to: usize) {
        let at = self.entry(from) - 8;
        self.put(at, &(to as u16).to_le_bytes());
    }

    /// Where an entry's inode lies in its metadata block, the only one.
    fn target(&self, name: &str) -> usize {
        let at = self.entry(name) - 8;
        usize::from(u16::from_le_bytes([self.image[at], self.image[at + 1]]))
    }

    /// The place of an entry's inode in the image, behind its block's header.
    fn inode(&self, name: &str) -> usize {
        self.table(64) + 2 + self.target(name)
    }

    fn run(&self, limits: Limits) -> Result<Unpacked, Error> {
        let dir = self.sample.dir.path();
        let path = dir.join("attack.sqfs");
        fs::write(&path, &self.image).unwrap();
        let outside = dir.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
        let into = dir.join("into");
        fs::create_dir(&into).unwrap();
        let result = open_limited(&path, limits).and_then(|reader| unpack(&reader, &into));
        let victim = outside.join("victim");
        assert_eq!(fs::read_to_string(victim).unwrap(), "untouched");
        assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
        assert!(!dir.join("attack").exists());
        result
    }
}

/// The error's text, its path included.
#[track_caller]
fn check(name: &str, change: impl FnOnce(&mut Attack), expected: &str) {
    check_limited(name, Limits::default(), change, expected);
}

#[track_caller]
fn check_limited(name: &str, limits: Limits, change: impl FnOnce(&mut Attack), expected: &str) {
    let mut attack = Attack::new();
    change(&mut attack);
    match attack.run(limits) {
        Ok(done) => panic!("{name}: {done:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(expected), "{name}: {text}");
        }
    }
}

#[test]
fn the_base_is_good() {
    Attack::new().run(Limits::default()).unwrap();
}

#[test]
fn names() {
    for (name, to) in [("parent", &b".."[..]), ("slash", b"/Q"), ("slash behind", b"Q/"), ("nul", b"Q\0")] {
        check(name, |image| image.rename("QQ", to), "which is empty, `.`, `..` or has a slash");
    }
    let dot = |image: &mut Attack| {
        // A name of one byte: the rest of the listing shifts, which is found later.
        let at = image.entry("QQ");
        image.put(at - 2, &[0]);
        image.put(at, b".");
    };
    check("dot", dot, "lists the name \".\"");
    let long = |image: &mut Attack| {
        let at = image.entry("QQ");
        image.put(at - 2, &[255, 0]);
    };
    check("long", long, "a name of 256 bytes");
}

#[test]
fn names_that_occur_twice() {
    let exists = "File exists";
    check("file", |image| image.rename("RR", b"QQ"), exists);
    check("file behind a symlink", |image| image.rename("TT", b"SS"), exists);
    check("symlink", |image| image.rename("SS", b"RR"), exists);
}

#[test]
fn directories_within_themselves() {
    let twice = "listed in two places or contains itself";
    let within = |image: &mut Attack| image.point("UU", image.target("TT"));
    check("itself", within, twice);
    let root = |image: &mut Attack| {
        let root = usize::from(u16::from_le_bytes([image.image[32], image.image[33]]));
        image.point("UU", root);
    };
    check("the root", root, twice);
    let elsewhere = |image: &mut Attack| image.point("three", image.target("TT"));
    check("elsewhere", elsewhere, twice);
}

#[test]
fn inodes() {
    let kind = |image: &mut Attack| image.point("QQ", image.target("SS"));
    check("type", kind, "/QQ: the entry \"QQ\" is listed with type 2, its inode has type 3");
    let unknown = |image: &mut Attack| image.put(image.inode("QQ"), &[15]);
    check("unknown", unknown, "/QQ: the inode at");
    let owner = |image: &mut Attack| image.put(image.inode("QQ") + 4, &[200]);
    check("owner", owner, "owner or group 200 does not exist");
    let target = |image: &mut Attack| image.put(image.inode("SS") + 20, &[0, 16]);
    check("symlink", target, "/SS: a symlink's target has 4096 bytes");
    let none = |image: &mut Attack| image.put(image.inode("SS") + 20, &[0]);
    check("empty symlink", none, "a symlink's target has 0 bytes");
    let nul = |image: &mut Attack| image.put(image.inode("SS") + 26, &[0]);
    check("symlink with nul", nul, "a NUL in it");
    let place = |image: &mut Attack| {
        let at = image.entry("QQ") - 8;
        image.put(at, &[0xff, 0xff]);
    };
    check("place", place, "a reference to byte 65535");
}

#[test]
fn contents() {
    // Basic files: u32 start, u32 fragment, u32 offset, u32 size behind 16 bytes.
    let fragment = |image: &mut Attack| image.put(image.inode("QQ") + 20, &[77, 0, 0, 0]);
    check("fragment", fragment, "/QQ: fragment 77 does not exist");
    let offset = |image: &mut Attack| image.put(image.inode("QQ") + 24, &[0xff, 0xff, 1]);
    check("offset", offset, "/QQ: the tail of a file lies in bytes 131071 to 131077");
    let size = |image: &mut Attack| image.put(image.inode("QQ") + 28, &[0, 0, 1]);
    check("size", size, "/QQ: the tail of a file");
    let huge = |image: &mut Attack| image.put(image.inode("QQ") + 28, &[0xff; 4]);
    check("huge", huge, "/QQ: ");
}

#[test]
fn superblocks() {
    for (name, at, bytes, expected) in [
        ("magic", 0, &b"x"[..], "not a squashfs image"),
        ("version", 28, &[3], "squashfs version 3.0"),
        ("block size", 12, &[1], "block size"),
        ("block log", 22, &[21], "block size"),
        ("codec", 20, &[9], "unknown codec 9"),
        ("bytes used", 42, &[99], "it was cut off"),
        ("few bytes used", 40, &[95, 0, 0], "it was cut off"),
        ("root", 34, &[0xff; 3], "leaves its part of the image"),
        ("inode table", 64, &[0xff; 8], "inode table"),
        ("directory table", 72, &[0xff; 8], "inode table"),
        ("directory table first", 72, &[96, 0, 0, 0], "inode table"),
        ("fragment table", 80, &[0xff; 7], "fragment"),
        ("fragments", 16, &[0xff; 4], "fragment"),
        ("id table", 48, &[0xff; 8], "owner or group"),
        ("no ids", 26, &[0, 0], "owner or group"),
        ("xattr table", 56, &[0xff; 7], "extended attribute table"),
    ] {
        check(name, |image| image.put(at, bytes), expected);
    }
}

#[test]
fn limits() {
    let base = Limits::default();
    for (name, limits, expected) in [
        ("depth", Limits { depth: 3, ..base }, "/one/two/three: directories are nested more than 3 deep"),
        ("entries", Limits { entries: 4, ..base }, "more than 4 directory entries"),
        ("links", Limits { links: 0, ..base }, "more than 0 files with further names"),
        ("blocks", Limits { blocks: 1, ..base }, "more than 1 blocks"),
        ("attributes", Limits { xattr_bytes: 100, ..base }, "more than 100 bytes of extended attributes"),
    ] {
        check_limited(name, limits, |_| {}, expected);
    }
}

#[test]
fn bombs() {
    let sample = small();
    let tree = sample.dir.path().join("bomb");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("bomb"), vec![1; 100 << 20]).unwrap();
    let image = sample.dir.path().join("bomb.sqfs");
    mksquashfs(&tree, &image, &["-comp", "zstd", "-b", "1M"]);
    let limits = Limits { bytes: 0, ..Limits::default() };
    let into = sample.dir.path().join("into");
    fs::create_dir(&into).unwrap();
    let error = unpack(&open_limited(&image, limits).unwrap(), &into).unwrap_err();
    assert!(error.to_string().starts_with("/bomb: the files of the image have more than"), "{error}");
    unpack(&open(&image).unwrap(), Path::new("/nonexistent/directory")).unwrap_err();
}
