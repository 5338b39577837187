//! Whatever comes in, no panic, no hang, and an error has a text.

use std::convert::Infallible;
use std::io::{self, Read};

use proptest::prelude::*;
use siforge_rootfs::{ApplyError, Contents, InodeId, Limits, Merge, Visibility};

use crate::builder::{Header, Tar, layer};
use crate::image::image;

/// Reads a part of each file only.
struct Lazy;

impl Contents for Lazy {
    type Error = Infallible;

    fn begin_layer(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn file(&mut self, _: Option<InodeId>, size: u64, data: &mut dyn Read) -> Result<(), Infallible> {
        let mut part = vec![0; (size / 2).min(1000) as usize];
        // Its error is the merge's to report.
        let _ = data.read_exact(&mut part);
        Ok(())
    }

    fn end_layer(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn lazily(tar: &mut dyn Read) -> Result<(), String> {
    let limits = Limits { apparent_bytes: 1 << 24, ..Limits::default() };
    let mut merge = Merge::new(limits, Visibility::default());
    merge.apply_tar(tar, &mut Lazy).map_err(|error| error.to_string())?;
    merge.finish(0).map(|_| ()).map_err(|error| error.to_string())
}

/// One of everything.
fn rich() -> Vec<u8> {
    let mut sparse = Header::gnu(b"sparse", b'S');
    sparse.octal(386, 12, 3).octal(398, 12, 3).octal(483, 12, 2000).size(3);
    let map = [&b"1\n700\n5\n"[..], &[0; 504]].concat();
    Tar::new()
        .dir("d")
        .file("d/f", &[b'x'; 1500])
        .extension(b'L', b"long/name\0")
        .extension(b'K', b"d/f")
        .member("h", b'1', "", b"")
        .pax(&[("path", b"p"), ("size", b"3"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", b"abc")
        .raw(&sparse, b"abc")
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"900")])
        .file("sparse2", &[&map[..], b"12345"].concat())
        .member("s", b'2', "d", b"")
        .file("s/.wh.q", b"")
        .end()
}

#[test]
fn every_truncation() {
    let whole = rich();
    image(&[&whole]).expect("valid");
    for length in 0..whole.len() {
        let eager = image(&[&whole[..length]]).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(lazily(&mut &whole[..length]), eager, "cut at {length}");
    }
}

/// Fails where the tar ends, as a decompressor does.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("blob is damaged")),
            got => Ok(got),
        }
    }
}

#[test]
fn the_reader_s_error_comes_through() {
    let tar = layer("f:a=12345678");
    for length in [0, 100, 515, 1024, tar.len()] {
        let error = lazily(&mut Failing(&tar[..length])).expect_err("fails");
        assert_eq!(error, format!("read tar at byte {length}: blob is damaged"));
    }
}

struct Refusing;

impl Contents for Refusing {
    type Error = &'static str;

    fn begin_layer(&mut self) -> Result<(), &'static str> {
        Ok(())
    }

    fn file(&mut self, _: Option<InodeId>, _: u64, _: &mut dyn Read) -> Result<(), &'static str> {
        Err("disk full")
    }

    fn end_layer(&mut self) -> Result<(), &'static str> {
        Ok(())
    }
}

#[test]
fn the_visitor_s_error_comes_through() {
    let mut merge = Merge::new(Limits::default(), Visibility::default());
    let result = merge.apply_tar(&mut &layer("f:a=1")[..], &mut Refusing);
    assert!(matches!(result, Err(ApplyError::Contents("disk full"))));
}

/// Headers stay valid, so that what is behind the checksum is reached.
fn reseal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block.iter().all(|&b| b == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), sealed in any::<bool>()) {
        if sealed {
            reseal(&mut bytes);
        }
        let _ = lazily(&mut &bytes[..]);
    }

    #[test]
    fn mutated_tars(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sealed in any::<bool>(),
    ) {
        let mut bytes = rich();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if sealed {
            reseal(&mut bytes);
        }
        let _ = lazily(&mut &bytes[..]);
    }

    #[test]
    fn printable_garbage(text in "[0-7a\\.\\-/ \n=,]{0,600}", kind in prop::sample::select(b"xgLKS0125".to_vec())) {
        let tar = Tar::new().extension(kind, text.as_bytes()).file("a", b"x").end();
        let _ = lazily(&mut &tar[..]);
    }
}
