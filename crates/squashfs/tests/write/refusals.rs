//! What the writer refuses, warns of and survives.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use siforge_rootfs::Contents;
use siforge_squashfs::Codec;
use siforge_squashfs::write::{Error, Options, Writer};

use crate::image::{ZSTD, build, options, try_build};
use crate::layer::{Entry, directory, file};
use crate::sample::noise;

fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn refusal(options: Options) -> String {
    Writer::new(scratch(), 0, options).err().map_or_else(|| "none".into(), |error| error.to_string())
}

#[test]
fn options_are_checked() {
    let base = Options::default;
    let few = Options { memory: 1 << 20, ..base() };
    for (options, expect) in [
        (base(), "none"),
        (Options { threads: 0, ..base() }, "none"),
        (Options { block_size: 1 << 20, codec: Codec::Zstd { level: 22 }, ..base() }, "none"),
        (Options { block_size: 32 << 10, ..base() }, "block size 32768 is not"),
        (Options { block_size: 2 << 20, ..base() }, "block size 2097152 is not"),
        (Options { block_size: 100_000, ..base() }, "block size 100000 is not"),
        (Options { codec: Codec::Zstd { level: 23 }, ..base() }, "zstd has no level 23"),
        (Options { codec: Codec::Gzip { level: 0 }, ..base() }, "gzip has no level 0"),
        (few, "1048576 bytes of memory do not suffice"),
    ] {
        let said = refusal(options.clone());
        assert!(said.starts_with(expect), "{options:?}: {said}");
    }
}

/// Ids are counted over owners and groups, each value once.
#[test]
fn more_than_65535_ids_are_refused() {
    // The root has id 0, and each file an owner and a group of its own.
    let owned = |files: u32| -> Vec<Entry> {
        let ids = (1..=files).map(|id| file(format!("f{id}"), "").owned(id, 1_000_000 + id));
        [directory("./")].into_iter().chain(ids).collect()
    };
    let image = build(&[owned(32_767)], &options(ZSTD, 256, 1));
    let mount = image.mount();
    let stat = std::fs::metadata(mount.path().join("f32767")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (32_767, 1_032_767));
    match try_build(&[owned(32_768)], &options(ZSTD, 256, 1), 0) {
        Err(Error::Ids { path, count: 65_536 }) => assert!(path.starts_with("/f"), "{path}"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn times_beyond_squashfs_are_clamped_with_one_warning() {
    let entries =
        vec![directory("./"), file("early", "").mtime(-5), file("late", "").mtime(1 << 32), file("good", "").mtime(7)];
    let image = build(&[entries], &options(ZSTD, 256, 1));
    let [warning] = &image.finished.warnings[..] else { panic!("{:?}", image.finished.warnings) };
    assert!(warning.starts_with("2 modification times") && warning.ends_with("(first: /early)"), "{warning}");
    let mount = image.mount();
    for (name, expect) in [("early", 0), ("late", 4_294_967_295), ("good", 7)] {
        let stat = std::fs::metadata(mount.path().join(name)).unwrap();
        assert_eq!(stat.mtime(), expect, "{name}");
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the wire was cut"))
    }
}

#[test]
fn a_failed_read_stops_the_writer() {
    for size in [100, 10 << 20] {
        let mut writer = Writer::new(scratch(), 0, options(ZSTD, 256, 2)).unwrap();
        writer.begin_layer().unwrap();
        writer.file(Some(0), 300_000, &mut &noise(1, 300_000)[..]).unwrap();
        let error = writer.file(Some(1), size, &mut Broken).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
        assert!(matches!(writer.file(Some(2), 1, &mut &b"x"[..]), Err(Error::Stopped)));
        assert!(matches!(writer.end_layer(), Err(Error::Stopped)));
    }
}

#[test]
fn short_contents_are_an_error() {
    let mut writer = Writer::new(scratch(), 0, options(ZSTD, 256, 2)).unwrap();
    writer.begin_layer().unwrap();
    let error = writer.file(Some(1), 10, &mut &b"short"[..]).unwrap_err();
    assert!(matches!(error, Error::Read { size: 10, .. }), "{error}");
}

#[test]
fn a_failed_write_comes_out_of_a_later_call() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    File::create(&path).unwrap();
    // Opened for reading only: every write fails.
    let mut writer = Writer::new(File::open(&path).unwrap(), 0, options(ZSTD, 64, 2)).unwrap();
    writer.begin_layer().unwrap();
    let data = noise(1, 1 << 20);
    let failure = (0..1000).find_map(|inode| writer.file(Some(inode), data.len() as u64, &mut &data[..]).err());
    assert!(matches!(failure, Some(Error::Write { offset: 102, .. })), "{failure:?}");
    assert!(matches!(writer.end_layer(), Err(Error::Stopped)));
}

#[test]
fn calls_out_of_order_are_refused() {
    let new = || Writer::new(scratch(), 0, options(ZSTD, 64, 1)).unwrap();
    let mut writer = new();
    assert!(matches!(writer.file(None, 1, &mut &b"x"[..]), Err(Error::Layer { call: "file", .. })));
    let mut writer = new();
    assert!(matches!(writer.end_layer(), Err(Error::Layer { call: "end_layer", .. })));
    let mut writer = new();
    writer.begin_layer().unwrap();
    assert!(matches!(writer.begin_layer(), Err(Error::Layer { call: "begin_layer", .. })));
}

/// Large files that no one sees are not even read.
#[test]
fn hidden_large_files_are_not_read() {
    let mut writer = Writer::new(scratch(), 0, options(ZSTD, 64, 1)).unwrap();
    writer.begin_layer().unwrap();
    writer.file(None, 64 << 10, &mut Broken).unwrap();
    writer.end_layer().unwrap();
}
