//! The tar reader: every format by hand, every fault by one change to a valid base.

use std::io::Read;

use siforge_rootfs::tar::{Archive, Error, Header as Member, Type};

use crate::builder::{Header, Tar, pax_record};

fn read_all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Error> {
    let mut archive = Archive::new(bytes, 1 << 30);
    let mut members = Vec::new();
    while let Some(member) = archive.next_member()? {
        let mut data = Vec::new();
        let result = archive.data().read_to_end(&mut data);
        if let Some(failure) = archive.take_failure() {
            return Err(failure);
        }
        result.expect("no failure");
        assert_eq!(data.len() as u64, member.size);
        members.push((member, data));
    }
    archive.drain()?;
    Ok(members)
}

/// Reads an archive of one member, and skipping must come to the same.
fn one(tar: Tar) -> (Member, Vec<u8>) {
    let bytes = tar.file("next", b"n").end();
    let members = read_all(&bytes).expect("valid");
    assert_eq!(members.len(), 2, "{members:?}");
    assert_eq!(members[1].0.path, b"next");
    let mut skipping = Archive::new(&bytes[..], 1 << 30);
    assert_eq!(skipping.next_member().expect("valid").as_ref(), Some(&members[0].0));
    assert_eq!(skipping.next_member().expect("valid").as_ref(), Some(&members[1].0));
    members.into_iter().next().expect("two")
}

fn fails(name: &str, bytes: &[u8], expect: &str) {
    let error = read_all(bytes).map(|members| members.len()).expect_err(name).to_string();
    assert!(error.contains(expect), "{name}: {error}");
}

#[test]
fn ustar_fields() {
    let mut header = Header::new(b"name", b'0');
    header.octal(100, 8, 0o104755).octal(108, 8, 1000).octal(116, 8, 100).octal(136, 12, 1_600_000_000);
    header.size(3).bytes(345, b"some/prefix");
    let (member, data) = one(Tar::new().raw(&header, b"abc"));
    assert_eq!((member.path, data), (b"some/prefix/name".to_vec(), b"abc".to_vec()));
    assert_eq!((member.mode, member.uid, member.gid, member.mtime), (0o104755, 1000, 100, 1_600_000_000));
    assert_eq!((member.kind, member.size), (Type::File, 3));
}

#[test]
fn types() {
    for (flag, path, kind, has_data) in [
        (b'0', "a", Type::File, true),
        (b'0', "a/", Type::File, true),
        (b'7', "a", Type::File, true),
        (0, "a", Type::File, true),
        (0, "a/", Type::Directory, false),
        (b'2', "a", Type::Symlink, false),
        (b'3', "a", Type::CharDevice, false),
        (b'4', "a", Type::BlockDevice, false),
        (b'5', "a", Type::Directory, false),
        (b'6', "a", Type::Fifo, false),
        (b'V', "a", Type::Other(b'V'), true),
    ] {
        let mut header = Header::new(path.as_bytes(), flag);
        header.size(5).octal(329, 8, 8).octal(337, 8, 17);
        let (member, data) = one(Tar::new().raw(&header, if has_data { b"hello" } else { b"" }));
        assert_eq!((member.kind, member.size), (kind, if has_data { 5 } else { 0 }), "type {flag}");
        assert_eq!(data.len() as u64, member.size);
        assert_eq!((member.major, member.minor), (8, 17));
    }
}

#[test]
fn formats_without_a_prefix() {
    let mut gnu = Header::gnu(b"name", b'0');
    gnu.octal(345, 12, 1).octal(357, 12, 2);
    assert_eq!(one(Tar::new().raw(&gnu, b"")).0.path, b"name");
    let mut v7 = Header::new(b"name", 0);
    v7.bytes(257, &[0; 255]);
    assert_eq!(one(Tar::new().raw(&v7, b"")).0.path, b"name");
    let mut star = Header::new(b"name", b'0');
    star.bytes(345, &[b'p'; 131]).octal(476, 12, 1).bytes(508, b"tar\0");
    assert_eq!(one(Tar::new().raw(&star, b"")).0.path, [&[b'p'; 131][..], b"/name"].concat());
    let mut old_go = Header::gnu(b"name", b'0');
    old_go.bytes(345, b"some/long/prefix/by/old/go");
    assert_eq!(one(Tar::new().raw(&old_go, b"")).0.path, b"some/long/prefix/by/old/go/name");
}

#[test]
fn numbers() {
    let sized = |change: &dyn for<'a> Fn(&'a mut Header) -> &'a mut Header| {
        let mut header = Header::new(b"a", b'0');
        change(&mut header);
        read_all(&Tar::new().raw(&header, b"").end()).map(|members| members[0].0.clone())
    };
    assert_eq!(sized(&|h| h.base256(136, 12, -5)).expect("negative time").mtime, -5);
    assert_eq!(sized(&|h| h.base256(108, 8, 1 << 40)).expect("large uid").uid, 1 << 40);
    assert_eq!(sized(&|h| h.bytes(108, b"  17 \0\0\0")).expect("spaces").uid, 0o17);
    assert_eq!(sized(&|h| h.bytes(108, &[0; 8])).expect("nothing").uid, 0);
    assert_eq!(sized(&|h| h.bytes(108, b"77777777")).expect("no NUL").uid, 0o77777777);
    for (name, at, bytes) in [
        ("uid", 108, &b"12a\0"[..]),
        ("mode", 100, b"8"),
        ("size", 124, b"-1\0"),
        ("mtime", 136, &[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]),
        ("device major", 329, b"x"),
    ] {
        let error = sized(&|h| h.bytes(at, bytes)).expect_err(name).to_string();
        assert_eq!(error, format!("tar header at byte 0: {name} is not a number in range"));
    }
    let error = sized(&|h| h.base256(124, 12, -1)).expect_err("negative size").to_string();
    assert!(error.contains("size is not a number in range"), "{error}");
}

#[test]
fn checksums() {
    let mut header = Header::new(b"n\xe4me", b'0');
    header.size(0);
    for block in [header.sealed(), header.sealed_by(|byte| i64::from(byte as i8))] {
        let mut bytes = block.to_vec();
        bytes.resize(512 * 3, 0);
        assert_eq!(read_all(&bytes).expect("signed or unsigned")[0].0.path, b"n\xe4me");
    }
    let mut bytes = Tar::new().file("a", b"").end();
    bytes[0] = b'b';
    fails("changed name", &bytes, "tar header at byte 0 has a wrong checksum");
    fails("no tar at all", &[b'x'; 2048], "tar header at byte 0 has a wrong checksum");
}

#[test]
fn long_names() {
    let name = "n".repeat(300);
    let target = "t".repeat(300);
    let tar = |last: Tar| one(last.member("short", b'2', "short", b"")).0;
    let gnu = tar(Tar::new().extension(b'L', format!("{name}\0").as_bytes()).extension(b'K', target.as_bytes()));
    assert_eq!((gnu.path, gnu.link), (name.clone().into_bytes(), target.clone().into_bytes()));
    let pax = tar(Tar::new().pax(&[("path", name.as_bytes()), ("linkpath", target.as_bytes())]));
    assert_eq!((pax.path, pax.link), (name.clone().into_bytes(), target.into_bytes()));
    let both = tar(Tar::new().extension(b'L', b"gnu").pax(&[("path", b"pax")]));
    assert_eq!(both.path, b"gnu");
    let none = tar(Tar::new().extension(b'L', b"\0").pax(&[("path", b"")]));
    assert_eq!(none.path, b"short");
    let global = tar(Tar::new().extension(b'g', &pax_record(b"path", b"global")));
    assert_eq!(global.path, b"short");
    let twice = tar(Tar::new().pax(&[("path", b"one"), ("uid", b"7")]).pax(&[("path", b"two")]));
    assert_eq!((&twice.path[..], twice.uid), (&b"two"[..], 1));
}

#[test]
fn pax_records() {
    let with = |records: &[(&str, &[u8])]| one(Tar::new().pax(records).file("a", b"data")).0;
    let all =
        with(&[("uid", b"4000000000"), ("gid", b"5"), ("mtime", b"12.75"), ("size", b"4"), ("comment", b"x\ny=z")]);
    assert_eq!((all.uid, all.gid, all.mtime, all.size), (4_000_000_000, 5, 12, 4));
    for (text, seconds) in [
        ("0", 0),
        ("-1", -1),
        ("-1.5", -2),
        ("-0.25", -1),
        ("-3.000", -3),
        ("1.999999999999", 1),
        ("-1.0000000009", -1),
        ("7.", 7),
    ] {
        assert_eq!(with(&[("mtime", text.as_bytes())]).mtime, seconds, "{text}");
    }
    let xattrs = with(&[
        ("SCHILY.xattr.user.b", b"\0\xff\n"),
        ("SCHILY.xattr.user.empty", b""),
        ("LIBARCHIVE.xattr.user.b", b"bm8"),
        ("LIBARCHIVE.xattr.user.%c3%a4%3d", b"aGk="),
    ]);
    let expect: [(&[u8], &[u8]); 3] = [(b"user.b", b"\0\xff\n"), (b"user.empty", b""), ("user.ä=".as_bytes(), b"hi")];
    assert_eq!(xattrs.xattrs, expect.map(|(name, value)| (name.to_vec(), value.to_vec())));
}

#[test]
fn faults_in_pax_records() {
    let raw = |data: &[u8]| Tar::new().extension(b'x', data).file("a", b"").end();
    for (name, data, expect) in [
        ("no length", &b"path=x\n"[..], "record has no length"),
        ("length is no number", b"1x path=x\n", "record's length is not a number"),
        ("length too large", b"99 path=x\n", "record's length is out of range"),
        ("length too small", b"3 a=b\n", "record's length is out of range"),
        ("length negative", b"-9 a=b\n", "record's length is not a number"),
        ("no newline", b"6 a=bc", "record does not end with a newline"),
        ("no value", b"7 abcd\n", "record has no value"),
        ("no key", b"6 =ab\n", "record's key or value is invalid"),
        ("NUL in a path", b"10 path=\0\n", "record's key or value is invalid"),
        ("NUL in a key", b"7 a\0=b\n", "record's key or value is invalid"),
        ("uid", b"8 uid=x\n", "uid is not a number"),
        ("size", b"11 size=1x\n", "size is not a number"),
        ("mtime", b"13 mtime=1.x\n", "mtime is not a time"),
        ("negative size", b"11 size=-1\n", "size is not a number in range"),
        ("sparse out of order", b"23 GNU.sparse.offset=1\n23 GNU.sparse.offset=1\n", "out of order"),
        ("base64", b"26 LIBARCHIVE.xattr.a=a?b\n", "not well encoded"),
    ] {
        fails(name, &raw(data), expect);
    }
}

#[test]
fn hard_links_with_a_size() {
    let mut link = Header::new(b"b", b'1');
    link.link(b"a").size(700);
    // Go, GNU: the size means nothing.
    assert_eq!(one(Tar::new().raw(&link, b"")).0.size, 0);
    // POSIX: the data follows.
    assert_eq!(one(Tar::new().raw(&link, &[b'x'; 700])).0.size, 0);
    link.size(512);
    assert_eq!(one(Tar::new().raw(&link, &[b'x'; 512])).0.size, 0);
    link.size(3);
    assert_eq!(one(Tar::new().raw(&link, b"xyz")).0.size, 0);
    let two = Tar::new().raw(&link, b"xyz").0;
    assert_eq!(read_all(&two).expect("ends behind the data").len(), 1);
    let garbage = Tar::new().raw(&link, b"xyz").data(b"garbage").end();
    fails("garbage behind the data", &garbage, "wrong checksum");
}

#[test]
fn ends() {
    let tar = Tar::new().file("a", &[b'x'; 600]);
    let whole = tar.clone().end();
    let count = |bytes: &[u8]| read_all(bytes).map(|members| members.len());
    let body = tar.0.len();
    assert_eq!(count(&whole).expect("two blocks"), 1);
    assert_eq!(count(&whole[..body + 512]).expect("one block"), 1);
    assert_eq!(count(&whole[..body]).expect("none"), 1);
    assert_eq!(count(&whole[..512 + 600]).expect("no padding"), 1);
    assert_eq!(count(&whole[..512 + 700]).expect("half the padding"), 1);
    assert_eq!(count(&[whole.as_slice(), &[b'?'; 9999]].concat()).expect("things behind the end"), 1);
    assert_eq!(count(b"").expect("nothing"), 0);
    fails("in the header", &whole[..100], "tar ends at byte 100 in the middle of a header");
    fails("in the data", &whole[..512 + 599], "tar ends at byte 1111 in the middle of a member's data");
    fails("in the end", &whole[..body + 100], "in the middle of a header");
    fails("in the second block of the end", &whole[..body + 612], "in the middle of a header");
    let extension = Tar::new().pax(&[("path", &[b'n'; 600])]).file("a", b"").end();
    fails("in an extension", &extension[..800], "in the middle of an extension header");
    let lone = [&tar.0[..], &[0; 512], &tar.0].concat();
    fails("lone block of zeros", &lone, "has a block of zeros and then more data at byte 2048");
    let mut long = Header::new(b"l", b'L');
    long.size((1 << 20) + 1);
    fails("long extension", &Tar::new().raw(&long, b"").end(), "is longer than 1048576 bytes");
    let mut archive = Archive::new(&whole[..], 1000);
    archive.next_member().expect("within the limit");
    let error = archive.next_member().expect_err("beyond the limit").to_string();
    assert_eq!(error, "tar is longer than 1000 bytes");
}

const SPARSE: &[u8] = b"\0\0\0abc\0\0\0\0de\0\0\0";

#[test]
fn old_gnu_sparse() {
    let mut header = Header::gnu(b"a", b'S');
    header.octal(386, 12, 3).octal(398, 12, 3).octal(410, 12, 10).octal(422, 12, 2);
    header.octal(483, 12, SPARSE.len() as u64).size(5);
    assert_eq!(one(Tar::new().raw(&header, b"abcde")).1, SPARSE);
    header.octal(410, 12, 5);
    fails("overlap", &Tar::new().raw(&header, b"abcde").end(), "pieces overlap or are out of order");
    header.octal(410, 12, 14);
    fails("beyond the end", &Tar::new().raw(&header, b"abcde").end(), "piece lies beyond the file's end");
    header.octal(410, 12, 10).size(6);
    fails("size", &Tar::new().raw(&header, b"abcdef").end(), "pieces do not add up to the data's size");
    header.size(5).bytes(257, b"ustar\x0000");
    fails("not GNU", &Tar::new().raw(&header, b"abcde").end(), "type S in an archive that is not GNU's");
}

#[test]
fn old_gnu_sparse_with_extension_blocks() {
    // 4 + 21 + 2 pieces of one byte at 10, 20, …
    let piece = |n: u64| [format!("{:011o}\0", n * 10), format!("{:011o}\0", 1)].concat().into_bytes();
    let mut header = Header::gnu(b"a", b'S');
    let table: Vec<u8> = (1..=4).flat_map(piece).collect();
    header.bytes(386, &table).bytes(482, &[1]).octal(483, 12, 300).size(27);
    let mut first: Vec<u8> = (5..=25).flat_map(piece).collect();
    first.push(1);
    first.resize(512, 0);
    let mut second: Vec<u8> = (26..=27).flat_map(piece).collect();
    second.resize(512, 0);
    let data = [&first[..], &second, &[b'x'; 27]].concat();
    let (member, got) = one(Tar::new().raw(&header, &data));
    let expect: Vec<u8> = (0..300).map(|i| if i % 10 == 0 && (10..=270).contains(&i) { b'x' } else { 0 }).collect();
    assert_eq!((member.size, got), (300, expect));
    fails("cut", &Tar::new().raw(&header, &first).0, "in the middle of a sparse map");
}

const V01: [(&str, &[u8]); 4] = [
    ("GNU.sparse.name", b"real"),
    ("GNU.sparse.size", b"15"),
    ("GNU.sparse.numblocks", b"2"),
    ("GNU.sparse.map", b"3,3,10,2"),
];

const V10: [(&str, &[u8]); 4] = [
    ("GNU.sparse.major", b"1"),
    ("GNU.sparse.minor", b"0"),
    ("GNU.sparse.name", b"real"),
    ("GNU.sparse.realsize", b"15"),
];

#[test]
fn pax_sparse_0() {
    let v00 = [
        pax_record(b"GNU.sparse.size", b"15"),
        pax_record(b"GNU.sparse.numblocks", b"2"),
        pax_record(b"GNU.sparse.offset", b"3"),
        pax_record(b"GNU.sparse.numbytes", b"3"),
        pax_record(b"GNU.sparse.offset", b"10"),
        pax_record(b"GNU.sparse.numbytes", b"2"),
    ];
    assert_eq!(one(Tar::new().extension(b'x', &v00.concat()).file("a", b"abcde")).1, SPARSE);
    let (member, data) = one(Tar::new().pax(&V01).file("a", b"abcde"));
    assert_eq!((&member.path[..], &data[..]), (&b"real"[..], SPARSE));
}

#[test]
fn pax_sparse_1() {
    let mut map = b"2\n3\n3\n10\n2\n".to_vec();
    map.resize(512, 0);
    let (member, data) = one(Tar::new().pax(&V10).file("GNUSparseFile.1/a", &[&map[..], b"abcde"].concat()));
    assert_eq!((&member.path[..], &data[..]), (&b"real"[..], SPARSE));
    // A file of nothing but a hole, and one without any.
    let empty = [b"0\n".to_vec(), vec![0; 510]].concat();
    assert_eq!(one(Tar::new().pax(&V10).file("a", &empty)).1, [0; 15]);
    let mut dense = b"1\n0\n15\n".to_vec();
    dense.resize(512, 0);
    assert_eq!(one(Tar::new().pax(&V10).file("a", &[&dense[..], &[b'z'; 15]].concat())).1, [b'z'; 15]);
}

#[test]
fn faults_in_pax_sparse_maps() {
    let bad = |map: &[u8]| {
        let mut map = map.to_vec();
        map.resize(512, 0);
        Tar::new().pax(&V10).file("a", &[&map[..], b"abcde"].concat()).end()
    };
    fails("no number", &bad(b"x\n"), "number of pieces is not a number in range");
    fails("huge number", &bad(b"9999999999999999999\n"), "number of pieces is not a number in range");
    fails("too many pieces", &bad(b"9999\n1\n"), "map is longer than the data");
    fails("negative piece", &bad(b"1\n-3\n5\n"), "piece is not a number in range");
    fails(
        "count",
        &Tar::new().pax(&[V01[1], ("GNU.sparse.numblocks", b"3"), V01[3]]).file("a", b"abcde").end(),
        "number of pieces is wrong",
    );
    fails("a directory", &Tar::new().pax(&V01).dir("a").end(), "member is not a file");
}
