//! A tree with everything that squashfs can hold.

use crate::layer::{Entry, Kind, directory, entry, file};

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Bytes that compress about as program text does.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    let words = noise(seed, length / 4 + 1);
    let text = words.iter().flat_map(|word| format!("{:03} ", word % 97).into_bytes());
    text.take(length).collect()
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn everything() -> Vec<Entry> {
    [directories(), contents(), attributes(), links(), devices(), names(), deep(), many()].concat()
}

fn directories() -> Vec<Entry> {
    vec![
        directory("./").mode(0o711).mtime(1_234_567_890),
        directory("empty"),
        directory("sticky").mode(0o1777).owned(1, 2),
        directory("marked").xattr("user.on", "a directory").xattr("trusted.too", ""),
    ]
}

/// Sizes around the block's and fragments', repeated contents, and zeros.
fn contents() -> Vec<Entry> {
    let holes = [text(5, 100), vec![0; 3 << 20], text(6, 70_000)].concat();
    vec![
        directory("files"),
        file("files/empty", ""),
        file("files/one", "1"),
        file("files/same-as-one", "1"),
        file("files/suid", "#!").mode(0o4755).owned(0, 4_000_000_000),
        file("files/block-64k", text(1, 64 << 10)),
        file("files/block-64k-1", text(1, (64 << 10) - 1)),
        file("files/block-64k+1", text(1, (64 << 10) + 1)),
        file("files/text", text(2, 2_500_000)),
        file("files/text-again", text(2, 2_500_000)),
        file("files/after-again", text(3, 1_100_000)),
        file("files/noise", noise(4, 1_300_000)),
        file("files/holes", holes),
        file("files/nothing-but-hole", vec![0; 2 << 20]),
        file("files/hole-and-tail", vec![0; (2 << 20) + 5]),
        file("files/small-zeros", vec![0; 5000]),
    ]
}

/// Times at the ends of their range, extended attributes, shared and not.
fn attributes() -> Vec<Entry> {
    vec![
        file("files/old", "old").mtime(0),
        file("files/late", "late").mtime(4_294_967_295),
        file("files/capable", "cap").xattr("security.capability", CAPABILITY),
        file("files/user", "u").xattr("user.a", "1").xattr("user.b", "").xattr("trusted.c", [0, 255]),
        file("files/user-again", "u2").xattr("user.a", "1").xattr("user.b", "").xattr("trusted.c", [0, 255]),
        file("files/long-value", "v").xattr("user.long", noise(7, 900)).xattr("user.next", "x"),
        file("files/long-value-again", "w").xattr("user.long", noise(7, 900)).xattr("user.other", "y"),
    ]
}

fn links() -> Vec<Entry> {
    vec![
        directory("links"),
        entry("links/to-file", Kind::Symlink("../files/one".into())),
        entry("links/long", Kind::Symlink("t/".repeat(2047))),
        entry("links/marked", Kind::Symlink("x".into())).xattr("trusted.link", "on a symlink"),
        entry("links/hard-small", Kind::Hard("files/one".into())),
        entry("links/hard-large", Kind::Hard("files/text".into())),
        entry("links/hard-large-2", Kind::Hard("files/text".into())),
    ]
}

fn devices() -> Vec<Entry> {
    vec![
        directory("dev"),
        entry("dev/null", Kind::Char(1, 3)).mode(0o666),
        entry("dev/big", Kind::Char(4095, 1_048_575)),
        entry("dev/minor-300", Kind::Block(8, 300)),
        entry("dev/marked", Kind::Block(8, 1)).xattr("trusted.dev", "d"),
        entry("dev/fifo", Kind::Fifo).mode(0o600),
        entry("dev/fifo-marked", Kind::Fifo).xattr("trusted.fifo", "f"),
    ]
}

/// Names of all bytes and lengths, whose order in a directory is by bytes.
fn names() -> Vec<Entry> {
    let long = "n".repeat(255);
    vec![
        directory("names"),
        file(format!("names/{long}"), "longest"),
        file(b"names/\xff\xfe not utf-8".as_slice(), "bytes"),
        file("names/Upper", ""),
        file("names/lower", ""),
        file("names/\u{e9}", "e acute"),
        file("names/a", ""),
        file("names/a.b", ""),
        file("names/a-b", ""),
    ]
}

fn deep() -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut deep = String::from("deep");
    for level in 0..60 {
        entries.push(directory(&deep).mtime(level));
        deep.push_str(&format!("/{level}"));
    }
    entries.push(file(&deep, "deepest"));
    entries
}

/// More entries than one directory header counts (256).
fn many() -> Vec<Entry> {
    (0..300u32)
        .map(|number| file(format!("files/many-{number:04}"), text(u64::from(number), number as usize * 37)))
        .collect()
}
