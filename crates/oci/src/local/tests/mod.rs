//! Valid sources, and what one change makes of them.

mod docker;
mod layout;

use super::{Error, Image, Options};
use crate::Platform;
use sha2::{Digest as _, Sha256};
use siforge_reference::{Digest, Selector};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

const AMD64: &str = "linux/amd64";

fn sha(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A ustar header.
fn header(name: &str, kind: u8, link: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(156, &char::from(kind).to_string());
    put(157, link);
    put(257, "ustar\x0000");
    put(148, "        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What an archive or a folder holds; a text that begins with `->` is a symlink in an archive.
type Pieces = BTreeMap<String, Vec<u8>>;

fn tar(pieces: &Pieces) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in pieces {
        match data.strip_prefix(b"->") {
            Some(target) => bytes.extend(header(name, b'2', std::str::from_utf8(target).unwrap(), 0)),
            None => {
                bytes.extend(header(name, b'0', "", data.len()));
                bytes.extend(data);
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| sha(layer)).collect();
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    serde_json::json!({ "os": "linux", "architecture": architecture, "rootfs": rootfs }).to_string().into_bytes()
}

type Open = fn(&Path, Option<&Selector>, &Options<'_>) -> Result<Image, Error>;

/// Opens `bytes` as a file, for `platform`.
fn open_file(open: Open, bytes: &[u8], selector: Option<&Selector>, platform: &str) -> Result<Image, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let tmpdir = std::env::temp_dir();
    let platform: Platform = platform.parse().unwrap();
    open(file.path(), selector, &Options { platform: &platform, tmpdir: &tmpdir, unpacked_bytes: 1 << 20 })
}

/// The bytes of each layer, as a reader of the image meets them.
fn contents(image: &Image) -> Vec<Vec<u8>> {
    let read = |(blob, layer): (&std::sync::Arc<crate::Download>, &crate::Layer)| {
        let mut bytes = Vec::new();
        blob.reader().read_to_end(&mut bytes).unwrap();
        assert_eq!((sha(&bytes), bytes.len() as u64), (layer.digest, layer.size));
        bytes
    };
    image.blobs.iter().zip(&image.layers).map(read).collect()
}

#[track_caller]
fn fails(what: &str, result: Result<Image, Error>, expect: &str) {
    match result {
        Ok(image) => panic!("{what}: no error, but {:?}", image.layers),
        Err(error) => assert!(error.to_string().contains(expect), "{what}: {error}"),
    }
}
