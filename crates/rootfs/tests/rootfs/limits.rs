//! Each limit, met and passed.

use siforge_rootfs::Limits;

use crate::builder::{Header, Tar, layer};
use crate::image::build;

fn check(name: &str, limits: &Limits, tar: &[u8], expect: &str) {
    let got = build(&[], &[tar], limits).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(got, expect, "{name}");
}

#[test]
fn entries_and_bytes() {
    let base = Limits::default();
    let three = layer("d:a f:a/b=1234 f:a/c=56");
    check("entries met", &Limits { entries: 3, ..base.clone() }, &three, "");
    check("entries", &Limits { entries: 2, ..base.clone() }, &three, "layers hold more than 2 entries");
    check(
        "implied entries",
        &Limits { entries: 3, ..base.clone() },
        &layer("f:a/b/c/d"),
        "layers hold more than 3 entries",
    );
    check("bytes met", &Limits { apparent_bytes: 6, ..base.clone() }, &three, "");
    check(
        "bytes",
        &Limits { apparent_bytes: 5, ..base.clone() },
        &three,
        "files of the layers sum up to more than 5 bytes (at a/c)",
    );
}

#[test]
fn the_tar_and_what_is_kept_of_it() {
    let base = Limits::default();
    let three = layer("d:a f:a/b=1234 f:a/c=56");
    check("tar met", &Limits { tar_bytes: three.len() as u64, ..base.clone() }, &three, "");
    check("tar", &Limits { tar_bytes: 2000, ..base.clone() }, &three, "tar is longer than 2000 bytes");
    let trailing = [&three[..], &[0; 9999]].concat();
    check(
        "behind the tar",
        &Limits { tar_bytes: three.len() as u64, ..base.clone() },
        &trailing,
        &format!("tar is longer than {} bytes", three.len()),
    );
    check(
        "metadata",
        &Limits { metadata_bytes: 10, ..base.clone() },
        &layer("s:abcde>fghijk"),
        "names, link targets and extended attributes of the layers need more than 10 bytes",
    );
}

#[test]
fn paths_and_attributes() {
    let base = Limits::default();
    let three = layer("d:a f:a/b=1234 f:a/c=56");
    check("path met", &Limits { path_len: 3, ..base.clone() }, &three, "");
    check("path", &Limits { path_len: 2, ..base.clone() }, &three, "path a/b is longer than 2 bytes");
    check("depth met", &Limits { path_depth: 2, ..base.clone() }, &three, "");
    check(
        "depth",
        &Limits { path_depth: 2, ..base.clone() },
        &layer("f:a/b/c"),
        "path a/b/c is deeper than 2 directories",
    );
    check(
        "depth by symlinks",
        &Limits { path_depth: 3, ..base.clone() },
        &layer("d:a/b s:s>a/b f:s/c f:s/c d:s/d f:s/d/e"),
        "path s/d/e is deeper than 3 directories",
    );
    let xattr = Tar::new().pax(&[("SCHILY.xattr.user.a", b"12345")]).file("a", b"").end();
    check("attributes met", &Limits { xattr_bytes: 11, ..base.clone() }, &xattr, "");
    check(
        "attributes",
        &Limits { xattr_bytes: 10, ..base.clone() },
        &xattr,
        "extended attributes of a are larger than 10 bytes",
    );
}

#[test]
fn names_and_targets() {
    let base = Limits::default();
    let name = "n".repeat(256);
    let named = |path: &str| Tar::new().pax(&[("path", path.as_bytes())]).file("a", b"").end();
    check("name met", &base, &named(&name[1..]), "");
    check("name", &base, &named(&name), &format!("a name in path {name} is longer than 255 bytes"));
    check(
        "parent's name",
        &base,
        &named(&format!("{name}/a")),
        &format!("a name in path {name}/a is longer than 255 bytes"),
    );
    let target = "t".repeat(4096);
    let symlink = |target: &str| Tar::new().pax(&[("linkpath", target.as_bytes())]).member("a", b'2', "", b"").end();
    check("target met", &base, &symlink(&target[1..]), "");
    check("target", &base, &symlink(&target), "symlink a has a target longer than 4095 bytes");
    let attribute = format!("SCHILY.xattr.user.{}", "x".repeat(251));
    let xattr = Tar::new().pax(&[(&attribute, b"")]).file("a", b"").end();
    check("attribute's name", &base, &xattr, "name of an extended attribute of a is empty or longer than 255 bytes");
}

#[test]
fn a_sparse_file_counts_as_it_reads() {
    let mut header = Header::gnu(b"a", b'S');
    header.base256(483, 12, 1 << 50);
    check(
        "1 PiB of nothing",
        &Limits::default(),
        &Tar::new().raw(&header, b"").end(),
        &format!("files of the layers sum up to more than {} bytes (at a)", 256u64 << 30),
    );
}

#[test]
fn depth_costs_no_stack() {
    // 2048 directories, each a level deeper, then all of them again and a whiteout of the first.
    let path = vec!["d"; 2047].join("/");
    let tar = Tar::new().pax(&[("path", format!("{path}/f").as_bytes())]).file("a", b"x").end();
    let image = build(&[], &[&tar, &layer("f:.wh.e"), &tar], &Limits::default()).expect("within the limits");
    assert_eq!(image.names().len(), 2048);
    let gone = build(&[], &[&tar, &layer("f:.wh.d")], &Limits::default()).expect("within the limits");
    assert_eq!(gone.names().len(), 0);
}
