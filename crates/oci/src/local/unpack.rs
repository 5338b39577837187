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
    copy(shown, reader, &temporary, options)?;
    Ok(temporary)
}

fn copy(shown: &str, mut from: Box<dyn Read>, mut to: &File, options: &Options<'_>) -> Result<(), Error> {
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
        if total > options.unpacked_bytes {
            let (what, max) = ("unpacked size", options.unpacked_bytes);
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
