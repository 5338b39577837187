//! Owners, times, modes, attributes, device numbers; what is refused.

use siforge_rootfs::{Kind, Warning};

use crate::builder::{Header, Tar, layer};
use crate::image::{IMAGE_TIME, image};

fn error_of(tar: &[u8]) -> String {
    image(&[tar]).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn directories_without_an_entry() {
    let image = image(&[&layer("f:a/b=1")]).expect("valid");
    for id in [image.tree.root(), image.find("a")] {
        let meta = &image.tree.inode(id).meta;
        assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (0o755, 0, 0, IMAGE_TIME));
    }
}

#[test]
fn the_root_s_entry() {
    let image = image(&[&layer("d:./:700"), &layer("f:a=1"), &layer("d:./:711 f:.wh..wh..opq"), &layer("f:b=1")])
        .expect("valid");
    let meta = &image.tree.inode(image.tree.root()).meta;
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (0o711, 1, 2, 1000));
    assert_eq!(image.text(), "b=1");
}

#[test]
fn fields() {
    let mut header = Header::new(b"dev", b'4');
    header.octal(100, 8, 0o167755).octal(108, 8, 1000).octal(116, 8, 100).base256(136, 12, -7);
    header.octal(329, 8, 0xfff).octal(337, 8, 0xfffff);
    let tar = Tar::new().pax(&[("gid", b"4294967294")]).raw(&header, b"").end();
    let image = image(&[&tar]).expect("valid");
    let inode = image.tree.inode(image.find("dev"));
    assert_eq!(inode.kind, Kind::BlockDevice { major: 0xfff, minor: 0xfffff });
    assert_eq!((inode.meta.mode, inode.meta.uid, inode.meta.gid, inode.meta.mtime), (0o7755, 1000, 4294967294, -7));
}

#[test]
fn owners_out_of_range() {
    let owner = |value: i64| {
        let mut header = Header::new(b"a", b'0');
        header.base256(108, 8, value);
        Tar::new().raw(&header, b"").end()
    };
    let image = image(&[&owner(-2)]).expect("nobody");
    assert_eq!(image.tree.inode(image.find("a")).meta.uid, u32::MAX - 1);
    for value in [-1, i64::from(u32::MAX), 1 << 40, -(1 << 40)] {
        assert_eq!(error_of(&owner(value)), format!("a: uid {value} is out of range"));
    }
}

#[test]
fn devices_out_of_range() {
    let mut header = Header::new(b"a", b'3');
    header.octal(329, 8, 0x1000);
    assert_eq!(error_of(&Tar::new().raw(&header, b"").end()), "a: device major 4096 is out of range");
    header.octal(329, 8, 1).octal(337, 8, 0x10_0000);
    assert_eq!(error_of(&Tar::new().raw(&header, b"").end()), "a: device minor 1048576 is out of range");
}

#[test]
fn attributes() {
    let records: [(&str, &[u8]); 8] = [
        ("SCHILY.xattr.user.b", b"\0"),
        ("SCHILY.xattr.user.a", b"2"),
        ("SCHILY.xattr.trusted.x", b"3"),
        ("SCHILY.xattr.security.capability", b"4"),
        ("SCHILY.xattr.security.selinux", b"5"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.system.posix_acl_access", b"6"),
    ];
    let tar = Tar::new().pax(&records).file("a", b"").pax(&records).dir("d").end();
    let image = image(&[&tar]).expect("valid");
    let kept: [(&[u8], &[u8]); 4] =
        [(b"security.capability", b"4"), (b"trusted.x", b"3"), (b"user.a", b"2"), (b"user.b", b"\0")];
    let kept = kept.map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert_eq!(image.tree.inode(image.find("a")).meta.xattrs, kept);
    assert_eq!(image.tree.inode(image.find("d")).meta.xattrs, kept);
    let dropped = |name: &str| Warning::XattrDropped { path: "a".into(), name: name.into() };
    let names = ["security.selinux", "system.posix_acl_access", "trusted.overlay.opaque", "user.overlay.redirect"];
    assert_eq!(image.warnings, names.map(dropped));
}

#[test]
fn a_link_s_own_metadata_counts_for_nothing() {
    let mut link = Header::new(b"b", b'1');
    link.link(b"a").octal(100, 8, 0o777).octal(108, 8, 77).octal(136, 12, 7);
    let image = image(&[&Tar::new().file("a", b"x").raw(&link, b"").end()]).expect("valid");
    let inode = image.tree.inode(image.find("b"));
    assert_eq!((inode.meta.mode, inode.meta.uid, inode.meta.mtime, inode.links), (0o644, 1, 1000, 2));
}

#[test]
fn replaced_symlinks_are_told_once() {
    let image =
        image(&[&layer("s:lib>usr/lib s:d/lib>x"), &layer("s:lib>usr/lib"), &layer("f:lib/x=1 f:lib/y=2 d:d/lib")])
            .expect("valid");
    assert_eq!(image.warnings, [Warning::SymlinkReplaced { path: "lib".into() }]);
    assert_eq!(
        image.warnings[0].to_string(),
        "lib: a directory that an upper layer implies replaces a lower layer's symlink"
    );
}

#[test]
fn names_are_bytes() {
    let header = Header::new(b"\xff\xfe/n\x80me", b'0');
    let image = image(&[&Tar::new().raw(&header, b"").end()]).expect("valid");
    assert_eq!(image.names()[1].0, b"\xff\xfe/n\x80me");
    let link = Header::new(b"\xff\n\\", b'2');
    assert_eq!(error_of(&Tar::new().raw(&link, b"").end()), r"symlink \xff\n\\ has no target");
}

#[test]
fn children_are_sorted_by_unsigned_byte() {
    let names: [&[u8]; 5] = [b"a.b", b"a", b"\xc3\xa4", b"B", b"a/b"];
    let tar = names
        .iter()
        .fold(Tar::new(), |tar, name| tar.raw(&Header::new(name, if *name == b"a" { b'5' } else { b'0' }), b""));
    let image = image(&[&tar.end()]).expect("valid");
    let children: Vec<&[u8]> = image.tree.children(image.tree.root()).iter().map(|(name, _)| &name[..]).collect();
    let expect: [&[u8]; 4] = [b"B", b"a", b"a.b", b"\xc3\xa4"];
    assert_eq!(children, expect);
}

#[test]
fn types_that_are_not_known() {
    let tar = Tar::new().member("label", b'V', "", b"").end();
    assert_eq!(error_of(&tar), "label: tar entry type 'V' is not known");
}
