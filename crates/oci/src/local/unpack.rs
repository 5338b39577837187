//! A compressed archive (`.tar.gz`, `.tar.zst`) has no places that could be read by themselves: it is unpacked into an
//! unnamed temporary file, which ends with the last reader.

use super::{Error, Options};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";
/// As for layers: what `zstd --long` writes by default, 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
const COPY: usize = 1 << 20;
/// As for a layer: an archive may be as compressible as it likes up to `FREE` bytes, and no more than `RATIO` times beyond.
const RATIO: u64 = 250;
const FREE: u64 = 256 << 20;

/// How some bytes are compressed, by their beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Plain,
    Gzip,
    Zstd,
    /// Known, and not read.
    Other(&'static str),
}

pub(super) fn sniff(head: &[u8]) -> Sniffed {
    match head {
        head if head.starts_with(GZIP) => Sniffed::Gzip,
        head if head.starts_with(ZSTD) => Sniffed::Zstd,
        head if head.starts_with(XZ) => Sniffed::Other("xz"),
        head if head.starts_with(BZIP2) => Sniffed::Other("bzip2"),
        _ => Sniffed::Plain,
    }
}

/// `file` itself when it is plain.
pub(super) fn unpacked(shown: &str, file: File, options: &Options<'_>) -> Result<File, Error> {
    let io = |operation, source| Error::Io { shown: shown.to_owned(), operation, name: "it".to_owned(), source };
    let mut head = [0; 6];
    let got = file.read_at(&mut head, 0).map_err(|source| io("read", source))?;
    let size = file.metadata().map_err(|source| io("read the size of", source))?.len();
    let reader: Box<dyn Read> = match sniff(&head[..got]) {
        Sniffed::Plain => return Ok(file),
        Sniffed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(COPY, file))),
        Sniffed::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(file).map_err(|source| io("unpack", source))?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|source| io("unpack", source))?;
            Box::new(decoder)
        }
        Sniffed::Other(codec) => {
            let detail = format!("compressed with {codec}; gzip, zstd and plain archives are read");
            return Err(Error::Unsupported { shown: shown.to_owned(), name: "the archive".to_owned(), detail });
        }
    };
    let temporary = tempfile::tempfile_in(options.tmpdir).map_err(|source| Error::Io {
        shown: shown.to_owned(),
        operation: "create a temporary file in",
        name: format!("{} (--tmpdir names another place)", options.tmpdir.display()),
        source,
    })?;
    copy(shown, reader, &temporary, options, allowed(size, options.unpacked_bytes))?;
    Ok(temporary)
}

/// Bytes that an archive of `size` bytes may unpack to.
fn allowed(size: u64, max: u64) -> u64 {
    size.saturating_mul(RATIO).max(FREE).min(max)
}

fn copy(shown: &str, mut from: Box<dyn Read>, mut to: &File, options: &Options<'_>, max: u64) -> Result<(), Error> {
    let (mut buffer, mut total) = (vec![0; COPY], 0);
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let detail =
                    format!("it is damaged or truncated: {}", crate::answer::one_line(&error.to_string(), &[]));
                return Err(Error::Format { shown: shown.to_owned(), detail });
            }
        };
        total += n as u64;
        if total > max {
            let what = "unpacked size";
            return Err(Error::Limit { shown: shown.to_owned(), what, actual: total, max });
        }
        to.write_all(&buffer[..n]).map_err(|source| Error::Io {
            shown: shown.to_owned(),
            operation: "unpack it to",
            name: format!("{} (--tmpdir names another place)", options.tmpdir.display()),
            source,
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_archive_may_unpack_to() {
        let check = |size, max, expect| assert_eq!(allowed(size, max), expect, "{size} of {max}");
        check(0, 1 << 40, FREE);
        check(1 << 20, 1 << 40, FREE);
        check(2 << 20, 1 << 40, 500 << 20);
        check(1 << 40, 1 << 40, 1 << 40);
        check(u64::MAX, 1 << 40, 1 << 40);
        check(1 << 20, 1000, 1000);
    }

    #[test]
    fn a_bomb_is_given_up_early() {
        let platform = crate::Platform::host();
        let dir = tempfile::tempdir().unwrap();
        let options = Options { platform: &platform, tmpdir: dir.path(), unpacked_bytes: u64::MAX };
        let mut gzip = flate2::write::GzEncoder::new(tempfile::tempfile().unwrap(), flate2::Compression::best());
        io::copy(&mut io::repeat(0).take(FREE + 1), &mut gzip).unwrap();
        let mut zstd = zstd::Encoder::new(tempfile::tempfile().unwrap(), 1).unwrap();
        io::copy(&mut io::repeat(0).take(FREE + 1), &mut zstd).unwrap();
        for file in [gzip.finish().unwrap(), zstd.finish().unwrap()] {
            io::Seek::rewind(&mut &file).unwrap();
            let error = unpacked("x", file, &options).unwrap_err().to_string();
            assert!(error.contains("unpacked size is") && error.contains("at most 268435456"), "{error}");
        }
    }
}
