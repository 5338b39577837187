//! What decides an image's bytes, and what must not be among them.

use sha2::{Digest, Sha256};
use siforge_squashfs::Codec;

use crate::image::{GZIP, Image, ZSTD, build, options, try_build};
use crate::layer::{Entry, directory, file};
use crate::sample::{everything, noise, text};

#[test]
fn threads_memory_and_offset_change_no_byte() {
    let base = everything();
    let top = vec![
        directory("./"),
        file("files/one", "changed"),
        file("files/many-0100", text(1, 4000)),
    ];
    for codec in [ZSTD, GZIP] {
        let layers = [top.clone(), base.clone()];
        let first = build(&layers, &options(codec, 64, 1)).bytes();
        for (threads, memory, offset) in
            [(2, 192 << 20, 0), (7, 192 << 20, 32_768), (7, 4 << 20, 0)]
        {
            let mut options = options(codec, 64, threads);
            options.memory = memory;
            let image = try_build(&layers, &options, offset).unwrap();
            assert!(
                image.bytes() == first,
                "{codec:?} with {threads} threads and {memory} bytes"
            );
        }
    }
}

/// A failure here means that images built from now on differ from those already published: the engine format number (in
/// the recipe of an image digest) must be raised together with these values.
#[test]
fn bytes_are_pinned() {
    for (codec, block_kib, expect) in [(ZSTD, 256, "GOLDEN-ZSTD"), (GZIP, 128, "GOLDEN-GZIP")] {
        let hash = Sha256::digest(build(&[everything()], &options(codec, block_kib, 2)).bytes());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, expect, "{codec:?}");
    }
}

/// All fragment blocks of an image of small files, unpacked. They must cover its whole data area.
fn unpacked(image: &Image, codec: Codec) -> Vec<Vec<u8>> {
    let bytes = image.bytes();
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let unpack = |packed: &[u8], room: usize| match codec {
        Codec::Zstd { .. } => zstd::bulk::decompress(packed, room).unwrap(),
        Codec::Gzip { .. } => {
            let mut out = vec![0; room];
            let length = libdeflater::Decompressor::new()
                .zlib_decompress(packed, &mut out)
                .unwrap();
            out.truncate(length);
            out
        }
    };
    let count = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    let mut table = Vec::new();
    for index in 0..(count * 16).div_ceil(8192) {
        let at = word(&bytes, word(&bytes, 80) as usize + 8 * index) as usize;
        let head = u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let body = &bytes[at + 2..][..usize::from(head & 0x7fff)];
        table.extend(if head & 0x8000 != 0 {
            body.to_vec()
        } else {
            unpack(body, 8192)
        });
    }
    let options = if matches!(codec, Codec::Zstd { .. }) {
        6
    } else {
        10
    };
    let mut covered = 96 + options;
    let mut blocks = Vec::new();
    for entry in table.chunks(16) {
        let (start, size) = (
            word(entry, 0) as usize,
            (word(entry, 8) & 0xff_ffff) as usize,
        );
        let packed = &bytes[start..][..size];
        blocks.push(if word(entry, 8) & 1 << 24 != 0 {
            packed.to_vec()
        } else {
            unpack(packed, 1 << 20)
        });
        covered += size;
    }
    assert_eq!(covered as u64, word(&bytes, 64), "data area");
    blocks
}

fn holds(blocks: &[Vec<u8>], marker: &[u8]) -> usize {
    blocks
        .iter()
        .map(|block| {
            block
                .windows(marker.len())
                .filter(|window| *window == marker)
                .count()
        })
        .sum()
}

#[test]
fn hidden_contents_are_not_in_the_image() {
    let marked = |name: &str, hidden: bool| {
        let marker = if hidden { "SECRET" } else { "PUBLIC" };
        [
            marker.as_bytes(),
            name.as_bytes(),
            &text(name.len() as u64, 9000),
        ]
        .concat()
    };
    // Every third file of the lower layer is replaced, in some places so many that a whole group is hidden.
    let hidden = |number: usize| number % 3 == 0 || (20..60).contains(&number);
    let name = |number: usize| format!("f{number:03}");
    let base: Vec<Entry> = (0..120)
        .map(|number| file(name(number), marked(&name(number), hidden(number))))
        .collect();
    let top = (0..120)
        .filter(|number| hidden(*number))
        .map(|number| file(name(number), format!("new {number}")));
    let layers = [top.collect(), base];
    for codec in [ZSTD, GZIP] {
        let image = build(&layers, &options(codec, 64, 2));
        let blocks = unpacked(&image, codec);
        assert_eq!(holds(&blocks, b"SECRET"), 0);
        for number in (0..120).filter(|number| !hidden(*number)) {
            assert_eq!(
                holds(&blocks, format!("PUBLIC{}", name(number)).as_bytes()),
                1,
                "{number}"
            );
        }
        let mount = image.mount();
        for number in 0..120 {
            let found = std::fs::read(mount.path().join(name(number))).unwrap();
            let expect = if hidden(number) {
                format!("new {number}").into_bytes()
            } else {
                marked(&name(number), false)
            };
            assert!(found == expect, "{number}");
        }
    }
}

#[test]
fn equal_files_are_stored_once() {
    let large = noise(1, 700_000);
    let small = noise(2, 5_000);
    let once = build(
        &[vec![file("l", large.clone()), file("s", small.clone())]],
        &options(ZSTD, 128, 2),
    );
    let again = [
        vec![file("l2", large.clone()), file("l3", large.clone())],
        vec![
            file("l", large.clone()),
            file("s", small.clone()),
            file("s2", small.clone()),
            file("z", "z"),
        ],
    ];
    let twice = build(&again, &options(ZSTD, 128, 2));
    assert_eq!(once.finished.bytes, twice.finished.bytes);
    let mount = twice.mount();
    for (name, contents) in [
        ("l", &large),
        ("l2", &large),
        ("l3", &large),
        ("s", &small),
        ("s2", &small),
    ] {
        assert!(
            std::fs::read(mount.path().join(name)).unwrap() == *contents,
            "{name}"
        );
    }
}

/// What was taken back at the very end does not stay behind the image: the file ends with it.
#[test]
fn a_duplicate_at_the_end_leaves_nothing() {
    let large = noise(3, 3_000_000);
    let image = build(
        &[vec![file("a", large.clone()), file("b", large)]],
        &options(ZSTD, 256, 1),
    );
    assert!(image.bytes().len() < 3_100_000);
}
