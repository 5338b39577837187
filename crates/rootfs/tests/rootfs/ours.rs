//! Entries of our own, and mount points.

use siforge_rootfs::{Ensure, Entry, EntryKind, Kind, Limits, Merge, Meta, Outcome, Visibility};

use crate::builder::layer;
use crate::image::{Recorder, build, layer_error};

fn entry<'a>(path: &'a str, mode: u16, kind: EntryKind<'a>) -> Entry<'a> {
    Entry { path: path.as_bytes(), meta: Meta { mode, mtime: 5, ..Meta::default() }, kind }
}

#[test]
fn entries_are_the_topmost_layer() {
    let entries = [
        entry(".singularity.d/env", 0o755, EntryKind::Directory),
        entry("/.singularity.d/env/90.sh", 0o755, EntryKind::File { data: b"ENV" }),
        entry("environment", 0o777, EntryKind::Symlink { target: b".singularity.d/env/90.sh" }),
        entry("etc/.wh.x", 0o644, EntryKind::File { data: b"literal" }),
    ];
    let image = build(
        &entries,
        &[&layer("d:etc:700 f:etc/x=1 f:.singularity.d/old=1 f:environment=2 f:last=3")],
        &Limits::default(),
    )
    .expect("valid");
    assert_eq!(
        image.text(),
        ".singularity.d/ .singularity.d/env/ .singularity.d/env/90.sh=ENV .singularity.d/old=1 \
         environment>.singularity.d/env/90.sh etc/:700 etc/.wh.x=literal etc/x=1 last=3"
    );
    let shown = |file: &(bool, Vec<u8>)| (file.0, String::from_utf8_lossy(&file.1).into_owned());
    let layers: Vec<Vec<_>> = image.contents.layers.iter().map(|layer| layer.iter().map(shown).collect()).collect();
    let file = |emitted, data: &str| (emitted, data.to_string());
    assert_eq!(layers[0], [file(true, "ENV"), file(true, "literal")]);
    assert_eq!(layers[1], [file(true, "1"), file(true, "1"), file(false, "2"), file(true, "3")]);
}

/// The tree's text after `ensure` on each path; a path that ends with a slash is a directory.
fn ensured(layers: &[&str], paths: &[&str]) -> String {
    let mut contents = Recorder::default();
    let mut merge = Merge::new(Limits::default(), Visibility::default());
    for words in layers.iter().rev() {
        merge.apply_tar(&mut &layer(words)[..], &mut contents).map_err(layer_error).expect("valid");
    }
    for path in paths {
        let kind = if path.ends_with('/') { Ensure::Directory } else { Ensure::File };
        merge.ensure(path.as_bytes(), kind, 77);
    }
    let Ok(Outcome::Done { tree, warnings }) = merge.finish(99) else {
        panic!("not done");
    };
    let image = crate::image::Image { tree, contents, warnings, restarted: false };
    for (_, id) in image.names() {
        let inode = image.tree.inode(id);
        if inode.meta.mtime == 77 {
            let mode = if inode.kind == Kind::Directory { 0o755 } else { 0o644 };
            assert_eq!((inode.meta.mode, inode.meta.uid, inode.meta.gid, inode.links), (mode, 0, 0, 1));
        }
    }
    image.text()
}

#[test]
fn mount_points() {
    let check = |name: &str, layers: &[&str], paths: &[&str], expect: &str| {
        assert_eq!(ensured(layers, paths), expect, "{name}");
    };
    check("missing", &["f:a=1"], &["proc/", "/etc/hosts"], "a=1 etc/ etc/hosts= proc/");
    check("with parents", &[], &["var/tmp/x/", "var/log"], "var/ var/log= var/tmp/ var/tmp/x/");
    check("standing directory", &["d:proc:700"], &["proc/"], "proc/:700");
    check("standing file", &["f:etc/hosts=x"], &["etc/hosts"], "etc/ etc/hosts=x");
    check("file where a directory is asked for", &["f:proc=x"], &["proc/"], "proc=x");
    check("symlink stands", &["s:tmp>var/tmp"], &["tmp/"], "tmp>var/tmp");
    check("parent is a symlink", &["s:var>x"], &["var/tmp/"], "var>x");
    check("parent is a file", &["f:var=1"], &["var/tmp/"], "var=1");
    check("whiteout is nothing", &["f:tmp/x=1", "f:.wh.tmp"], &["tmp/"], "tmp/");
    check("whiteout below", &["f:etc/hosts=1", "f:etc/.wh.hosts"], &["etc/hosts"], "etc/ etc/hosts=");
    check("the root", &[], &["/"], "");
}
