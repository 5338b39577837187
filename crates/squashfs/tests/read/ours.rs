//! Images by our own writer, out of what tar took from the sample.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use siforge_rootfs::{Limits, Merge, Outcome, Visibility};
use siforge_squashfs::write::{Codec, Options, Writer};

use crate::sample::everything;
use crate::seen::{assert_same, in_image, on_disk, open, unpacked};

fn convert(tar: &Path, image: &Path, options: &Options) {
    let mut known = Visibility::default();
    loop {
        let mut writer = Writer::new(File::create(image).unwrap(), 0, options.clone()).unwrap();
        let mut merge = Merge::new(Limits::default(), known);
        merge.apply_tar(&mut File::open(tar).unwrap(), &mut writer).unwrap();
        match merge.finish(0).unwrap() {
            Outcome::Done { tree, .. } => {
                writer.finish(&tree).unwrap();
                return;
            }
            Outcome::Restart(map) => known = map,
        }
    }
}

#[test]
fn our_images_come_back() {
    let sample = everything();
    let mut expected = on_disk(&sample.tree());
    // tar has no sockets.
    expected.remove(Path::new("socket"));
    let tar = sample.dir.path().join("layer.tar");
    let output = Command::new("tar")
        .args(["--create", "--format=pax", "--numeric-owner", "--xattrs", "--xattrs-include=*"])
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .args([&sample.tree(), Path::new(".")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let image = sample.dir.path().join("ours.sqfs");
    for (codec, block_size) in [
        (Codec::Zstd { level: 3 }, 256 << 10),
        (Codec::Gzip { level: 6 }, 64 << 10),
        (Codec::Zstd { level: 1 }, 1 << 20),
        (Codec::Lz4 { level: 0 }, 64 << 10),
        (Codec::Lz4 { level: 9 }, 256 << 10),
        (Codec::Xz { level: 1 }, 128 << 10),
        (Codec::None, 256 << 10),
    ] {
        println!("{codec:?} {block_size}");
        let options = Options { codec, block_size, threads: 2, ..Options::default() };
        convert(&tar, &image, &options);
        let reader = open(&image).unwrap();
        assert_same(&in_image(&reader).unwrap(), &expected);
        assert_same(&unpacked(&reader).0, &expected);
    }
}
