//! Every codec, as both families of tools write it: squashfs-tools (mksquashfs) and squashfs-tools-ng (gensquashfs from a
//! directory, tar2sqfs from a tar).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sample::{Sample, everything};
use crate::seen::{assert_same, at, in_image, on_disk, open, unpacked};

fn run(program: &str, arguments: &[&str], paths: &[&Path]) {
    let output = Command::new(program).args(arguments).args(paths).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[track_caller]
fn comes_back(image: &Path, expected: &crate::seen::Tree) {
    let reader = open(image).unwrap();
    assert_same(&in_image(&reader).unwrap(), expected);
    assert_same(&unpacked(&reader).0, expected);
}

#[test]
fn by_mksquashfs() {
    let sample = everything();
    let expected = on_disk(&sample.tree());
    for arguments in [
        &["-comp", "gzip"][..],
        &["-comp", "gzip", "-Xstrategy", "huffman_only", "-Xwindow-size", "8"],
        &["-comp", "zstd"],
        &["-comp", "lz4"],
        &["-comp", "lz4", "-Xhc", "-b", "1M"],
        &["-comp", "lzo"],
        &["-comp", "lzo", "-Xalgorithm", "lzo1x_1_15", "-b", "64K"],
        &["-comp", "xz"],
        &["-comp", "xz", "-Xbcj", "x86,arm", "-b", "1M", "-Xdict-size", "100%"],
        &["-comp", "lzma"],
        &["-comp", "lzma", "-b", "1M"],
    ] {
        println!("{arguments:?}");
        comes_back(&sample.image(arguments), &expected);
    }
}

const CODECS: [&str; 6] = ["gzip", "zstd", "lz4", "lzo", "xz", "lzma"];

#[test]
fn by_gensquashfs() {
    let sample = everything();
    let image = sample.dir.path().join("image.sqfs");
    let mut expected = on_disk(&sample.tree());
    // It keeps the times of all but the root, and makes files of hard links.
    at(&mut expected, "").mtime = 0;
    expected.values_mut().for_each(|seen| seen.linked = None);
    for codec in CODECS {
        println!("{codec}");
        let options = ["--force", "--quiet", "--keep-time", "--keep-xattr", "--compressor", codec, "--pack-dir"];
        run("gensquashfs", &options, &[&sample.tree(), &image]);
        comes_back(&image, &expected);
    }
}

fn tar(sample: &Sample) -> PathBuf {
    let tar = sample.dir.path().join("tree.tar");
    let options = ["--create", "--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"];
    let paths: [&Path; 5] = ["--file".as_ref(), &tar, "--directory".as_ref(), &sample.tree(), ".".as_ref()];
    run("tar", &options, &paths);
    tar
}

#[test]
fn by_tar2sqfs() {
    let sample = everything();
    let (tar, image) = (tar(&sample), sample.dir.path().join("image.sqfs"));
    let mut expected = on_disk(&sample.tree());
    // tar has no sockets.
    expected.remove(Path::new("socket"));
    for codec in CODECS {
        println!("{codec}");
        let input = File::open(&tar).unwrap();
        let mut command = Command::new("tar2sqfs");
        command.args(["--force", "--quiet", "--exportable", "--compressor", codec]).arg(&image).stdin(input);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{codec}: {output:?}");
        comes_back(&image, &expected);
    }
}
