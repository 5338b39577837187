//! GNU tar writes, we read.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use crate::image::image;

fn make(dir: &Path) {
    fs::create_dir_all(dir.join("d/empty")).expect("mkdir");
    fs::write(dir.join("d/file"), "contents\n").expect("write");
    fs::hard_link(dir.join("d/file"), dir.join("linked")).expect("link");
    std::os::unix::fs::symlink("d/file", dir.join("symlink")).expect("symlink");
    let mut sparse = fs::File::create(dir.join("sparse")).expect("create");
    // More pieces than a header holds, and than one extension block does.
    for i in 0..40u64 {
        sparse.seek(SeekFrom::Start((i + 1) << 20)).expect("seek");
        write!(sparse, "piece {i}").expect("write");
    }
    sparse.set_len(50 << 20).expect("truncate");
}

fn check(options: &[&str], long_names: bool) {
    let scratch = tempfile::tempdir().expect("tempdir");
    let dir = scratch.path().join("tree");
    fs::create_dir(&dir).expect("mkdir");
    make(&dir);
    if long_names {
        let deep = dir.join("n".repeat(120)).join("m".repeat(200));
        fs::create_dir_all(&deep).expect("mkdir");
        fs::write(deep.join("o".repeat(250)), "deep").expect("write");
    }
    let output = Command::new("tar")
        .args(options)
        .args(["--sort=name", "--mtime=@1234567890.5", "--owner=7", "--group=8", "-cf", "-", "-C"])
        .arg(&dir)
        .arg(".")
        .output()
        .expect("run tar");
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    let image = image(&[&output.stdout]).unwrap_or_else(|error| panic!("{options:?}: {error}"));

    let contents = |path: &str| &image.contents.files[&image.find(path)];
    assert_eq!(contents("d/file"), b"contents\n");
    assert_eq!(image.find("d/file"), image.find("linked"));
    assert_eq!(*contents("sparse"), fs::read(dir.join("sparse")).expect("read"), "{options:?}");
    let meta = &image.tree.inode(image.find("d/empty")).meta;
    assert_eq!((meta.uid, meta.gid, meta.mtime), (7, 8, 1_234_567_890));
    if long_names {
        let path = format!("{}/{}/{}", "n".repeat(120), "m".repeat(200), "o".repeat(250));
        assert_eq!(contents(&path), b"deep");
    }
}

#[test]
fn all_formats() {
    check(&["--format=v7"], false);
    check(&["--format=ustar"], false);
    check(&["--format=oldgnu"], true);
    check(&["--format=gnu"], true);
    check(&["--format=posix"], true);
}

#[test]
fn all_sparse_formats() {
    check(&["--format=gnu", "--sparse"], true);
    check(&["--format=posix", "--sparse", "--sparse-version=0.0"], true);
    check(&["--format=posix", "--sparse", "--sparse-version=0.1"], true);
    check(&["--format=posix", "--sparse", "--sparse-version=1.0"], true);
}
