//! What does not fit ustar's fields comes through all the same; judged by the reader that layers go through, and by GNU tar.

use super::*;
use siforge_rootfs::tar::{Archive, Type};
use std::collections::VecDeque;
use std::process::{Command, Stdio};

struct Fixed(VecDeque<Item>);

impl Walk for Fixed {
    fn next(&mut self) -> io::Result<Option<Item>> {
        Ok(self.0.pop_front())
    }
}

fn item(path: &[u8], kind: Kind) -> Item {
    Item { path: path.to_vec(), kind, mode: 0o640, uid: 1, gid: 2, mtime: 3, xattrs: Vec::new(), inode: None }
}

fn file(size: u64, bytes: &'static [u8]) -> Kind {
    Kind::File { size, contents: Box::new(bytes) }
}

fn tar(items: Vec<Item>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    TarStream::new(Box::new(Fixed(items.into()))).read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn every_field_comes_through() {
    let long = [b"\xff/".as_slice(), &[b'n'; 250]].concat();
    let mut first = item(&long, file(5, b"hello"));
    (first.uid, first.gid, first.mtime, first.mode) = (u32::MAX - 1, 3_000_000, -5, 0o4711);
    first.xattrs = vec![(b"user.a".to_vec(), b"1\0\n2".to_vec()), (b"user.b".to_vec(), vec![b'='; 70_000])];
    first.xattrs.push((b"user.c=1%\n\xff=".to_vec(), b"=\0\n".to_vec()));
    let xattrs = first.xattrs.clone();
    first.inode = Some((1, 2));
    let second = Item { inode: Some((1, 2)), ..item(b"again", file(5, b"hello")) };
    let link = item(b"link", Kind::Symlink { target: vec![b't'; 300] });
    let device = item(b"null", Kind::Device { block: false, major: 4095, minor: 1_048_575 });
    let late = Item { mtime: 1 << 40, ..item(b"late", file(0, b"")) };
    let bytes = tar(vec![item(b"", Kind::Directory { opaque: false }), first, second, link, device, late]).unwrap();

    let mut archive = Archive::new(&bytes[..], u64::MAX);
    let mut next = || archive.next_member().unwrap().unwrap();
    assert_eq!((next().path.as_slice(), 0), (&b"./"[..], 0));
    let header = next();
    assert_eq!((&header.path, header.size, header.mode & 0o7777), (&long, 5, 0o4711));
    assert_eq!((header.uid, header.gid, header.mtime), (i64::from(u32::MAX) - 1, 3_000_000, -5));
    assert_eq!(header.xattrs, xattrs);
    let header = next();
    assert_eq!((header.kind, &header.link, &header.path[..]), (Type::HardLink, &long, &b"again"[..]));
    assert_eq!(next().link, [b't'; 300]);
    let header = next();
    assert_eq!((header.kind, header.major, header.minor), (Type::CharDevice, 4095, 1_048_575));
    assert_eq!(next().mtime, 1 << 40);

    let mut list = Command::new("tar");
    let mut list = list.args(["-tvf", "-", "--numeric-owner"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    list = list.env("LC_ALL", "C");
    let mut child = list.spawn().unwrap();
    io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let listed = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && text.lines().count() == 6, "{text}");
    assert!(text.contains("4294967294/3000000") && text.contains("link to"), "{text}");
}

#[test]
fn a_tree_that_changes_or_cannot_be_a_layer_is_refused() {
    let check = |what: Item, expect: &str| {
        let told = tar(vec![what]).unwrap_err().to_string();
        assert!(told.contains(expect), "{told}");
    };
    check(item(b"a/short", file(6, b"hello")), "/a/short: it became shorter");
    check(item(b"a/.wh.b", file(0, b"")), "/a/.wh.b: a name that begins with .wh.");
    // One that grew is read to the length that it had.
    assert_eq!(tar(vec![item(b"long", file(2, b"hello"))]).unwrap().len(), 512 * 4);
}
