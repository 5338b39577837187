//! What decides an image's bytes, and what must not be among them.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use siforge_squashfs::Codec;

use crate::image::{GZIP, Image, ZSTD, build, options, try_build};
use crate::layer::{Entry, directory, file};
use crate::sample::{everything, noise, text};

#[test]
fn threads_memory_and_offset_change_no_byte() {
    let base = everything();
    let top = vec![directory("./"), file("files/one", "changed"), file("files/many-0100", text(1, 4000))];
    for codec in [ZSTD, GZIP] {
        let layers = [top.clone(), base.clone()];
        let first = build(&layers, &options(codec, 64, 1)).bytes();
        for (threads, memory, offset) in [(2, 192 << 20, 0), (7, 192 << 20, 32_768), (7, 4 << 20, 0)] {
            let mut options = options(codec, 64, threads);
            options.memory = memory;
            let image = try_build(&layers, &options, offset).unwrap();
            assert!(image.bytes() == first, "{codec:?} with {threads} threads and {memory} bytes");
        }
    }
}

/// A failure here means that images built from now on differ from those already published: the engine format number (in
/// the recipe of an image digest) must be raised together with these values.
#[test]
fn bytes_are_pinned() {
    for (codec, block_kib, expect) in [
        (ZSTD, 256, "3f9aaf07cef9610a17fa018c9a246f3db79b3c84f67cd7a4d2d33bcf4fa10851"),
        (GZIP, 128, "6d3d16fd8dc9fa469d4d9093b5ebbb900065b32693e4dc81bb6493a024a0fc00"),
    ] {
        let hash = Sha256::digest(build(&[everything()], &options(codec, block_kib, 2)).bytes());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, expect, "{codec:?}");
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn unpack(codec: Codec, packed: &[u8], room: usize) -> Vec<u8> {
    match codec {
        Codec::Zstd { .. } => zstd::bulk::decompress(packed, room).unwrap(),
        Codec::Gzip { .. } => {
            let mut out = vec![0; room];
            let length = libdeflater::Decompressor::new().zlib_decompress(packed, &mut out).unwrap();
            out.truncate(length);
            out
        }
        other => panic!("{other:?} is for others to read"),
    }
}

/// At least `bytes` of what the metadata blocks from `start` on hold.
fn metadata(image: &[u8], codec: Codec, start: u64, bytes: usize) -> Vec<u8> {
    let (mut content, mut at) = (Vec::new(), start as usize);
    while content.len() < bytes {
        let head = u16::from_le_bytes(image[at..at + 2].try_into().unwrap());
        let body = &image[at + 2..][..usize::from(head & 0x7fff)];
        at += 2 + body.len();
        content.extend(if head & 0x8000 != 0 { body.to_vec() } else { unpack(codec, body, 8192) });
    }
    content
}

/// The kernel looks into the export table only for NFS; this looks at each of its entries.
#[test]
fn the_export_table_tells_where_each_inode_is() {
    for codec in [ZSTD, GZIP] {
        let image = build(&[everything()], &options(codec, 128, 2)).bytes();
        let count = word(&image, 4) as usize;
        let export = metadata(&image, codec, long(&image, long(&image, 88) as usize), count * 8);
        assert_eq!(export.len(), count * 8);
        let mut at = long(&image, 64);
        let (mut inodes, mut begins) = (Vec::new(), HashMap::new());
        while at < long(&image, 72) {
            let head = u16::from_le_bytes(image[at as usize..][..2].try_into().unwrap());
            begins.insert(at - long(&image, 64), inodes.len());
            inodes.extend(metadata(&image, codec, at, 1));
            at += 2 + u64::from(head & 0x7fff);
        }
        for (number, reference) in (1..).zip(export.chunks(8)) {
            let reference = long(reference, 0);
            let inode = begins[&(reference >> 16)] + (reference & 0xffff) as usize;
            assert_eq!(word(&inodes, inode + 12), number, "the inode at {reference:#x}");
        }
    }
}

/// All fragment blocks of an image of small files, unpacked. They must cover its whole data area.
fn fragments(image: &Image, codec: Codec) -> Vec<Vec<u8>> {
    let bytes = image.bytes();
    let count = word(&bytes, 16) as usize;
    let table = metadata(&bytes, codec, long(&bytes, long(&bytes, 80) as usize), count * 16);
    let options = if matches!(codec, Codec::Zstd { .. }) { 6 } else { 10 };
    let mut covered = 96 + options;
    let mut blocks = Vec::new();
    for entry in table.chunks(16) {
        let (start, size) = (long(entry, 0) as usize, word(entry, 8));
        let packed = &bytes[start..][..(size & 0xff_ffff) as usize];
        blocks.push(if size & 1 << 24 != 0 { packed.to_vec() } else { unpack(codec, packed, 1 << 20) });
        covered += packed.len();
    }
    assert_eq!(covered as u64, long(&bytes, 64), "data area");
    blocks
}

fn holds(blocks: &[Vec<u8>], marker: &[u8]) -> usize {
    blocks.iter().map(|block| block.windows(marker.len()).filter(|window| *window == marker).count()).sum()
}

#[test]
fn hidden_contents_are_not_in_the_image() {
    let marked = |name: &str, hidden: bool| {
        let marker = if hidden { "SECRET" } else { "PUBLIC" };
        [marker.as_bytes(), name.as_bytes(), &text(name.len() as u64, 9000)].concat()
    };
    // Every third file of the lower layer is replaced, in some places so many that a whole group is hidden.
    let hidden = |number: usize| number.is_multiple_of(3) || (20..60).contains(&number);
    let name = |number: usize| format!("f{number:03}");
    let base: Vec<Entry> = (0..120).map(|number| file(name(number), marked(&name(number), hidden(number)))).collect();
    let top = (0..120).filter(|number| hidden(*number)).map(|number| file(name(number), format!("new {number}")));
    let layers = [top.collect(), base];
    for codec in [ZSTD, GZIP] {
        let image = build(&layers, &options(codec, 64, 2));
        let blocks = fragments(&image, codec);
        assert_eq!(holds(&blocks, b"SECRET"), 0);
        for number in (0..120).filter(|number| !hidden(*number)) {
            assert_eq!(holds(&blocks, format!("PUBLIC{}", name(number)).as_bytes()), 1, "{number}");
        }
        let mount = image.mount();
        for number in 0..120 {
            let found = std::fs::read(mount.path().join(name(number))).unwrap();
            let expect =
                if hidden(number) { format!("new {number}").into_bytes() } else { marked(&name(number), false) };
            assert!(found == expect, "{number}");
        }
    }
}

#[test]
fn equal_files_are_stored_once() {
    let large = noise(1, 700_000);
    let small = noise(2, 5_000);
    let once = build(&[vec![file("l", large.clone()), file("s", small.clone())]], &options(ZSTD, 128, 2));
    let again = [
        vec![file("l2", large.clone()), file("l3", large.clone())],
        vec![file("l", large.clone()), file("s", small.clone()), file("s2", small.clone()), file("z", "z")],
    ];
    let twice = build(&again, &options(ZSTD, 128, 2));
    assert_eq!(once.finished.bytes, twice.finished.bytes);
    let mount = twice.mount();
    for (name, contents) in [("l", &large), ("l2", &large), ("l3", &large), ("s", &small), ("s2", &small)] {
        assert!(std::fs::read(mount.path().join(name)).unwrap() == *contents, "{name}");
    }
}

/// What was taken back at the very end does not stay behind the image: the file ends with it.
#[test]
fn a_duplicate_at_the_end_leaves_nothing() {
    let large = noise(3, 3_000_000);
    let image = build(&[vec![file("a", large.clone()), file("b", large)]], &options(ZSTD, 256, 1));
    assert!(image.bytes().len() < 3_100_000);
}
