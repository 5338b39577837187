//! Items → tar, while it is read.
//!
//! ```text
//!   item = [pax header 'x' + records]?  [ustar header]  [contents, padded to 512]      end = 1024 zero bytes
//! ```
//!
//! ustar with PAX records for what does not fit (POSIX.1-2017 pax), xattrs as `SCHILY.xattr.*`,
//! and as `LIBARCHIVE.xattr.*` where the name holds a `=`. A second name of a file is
//! a hard link to its first.

use super::{Collector, Item, Kind, Walk};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::io::{self, Read};

const BLOCK: usize = 512;
const NAME: usize = 100;
/// The largest numbers of the header's octal fields: 7 and 11 digits.
const MAX_SMALL: u64 = 0o777_7777;
const MAX_LARGE: u64 = 0o777_7777_7777;

pub(super) struct TarStream {
    walk: Box<dyn Walk>,
    collector: Option<Collector>,
    /// Headers and padding that wait to be read.
    ready: Vec<u8>,
    at: usize,
    /// Contents of the current item and how many bytes of them are left.
    contents: Option<(Box<dyn Read + Send>, u64, usize)>,
    /// First names of files with several.
    links: HashMap<(u64, u64), Vec<u8>>,
    items: u64,
    path: Vec<u8>,
    ended: bool,
}

impl TarStream {
    pub(super) fn new(walk: Box<dyn Walk>) -> Self {
        Self {
            walk,
            collector: None,
            ready: Vec::new(),
            at: 0,
            contents: None,
            links: HashMap::new(),
            items: 0,
            path: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn collecting(walk: Box<dyn Walk>) -> Self {
        Self { collector: Some(Collector::default()), ..Self::new(walk) }
    }

    /// Names so far.
    pub(super) fn items(&self) -> u64 {
        self.items
    }

    pub(super) fn into_collected(self) -> Collector {
        self.collector.unwrap_or_default()
    }

    /// Headers of the next item, or the end.
    fn advance(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        let Some(mut item) = self.walk.next()? else {
            self.ready.resize(2 * BLOCK, 0);
            self.ended = true;
            return Ok(());
        };
        self.items += 1;
        let at = item.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        if item.path[at..].starts_with(b".wh.") {
            return Err(told(
                &item.path,
                "a name that begins with .wh. removes files in a layer: it cannot be in an image",
            ));
        }
        if let Some(collector) = &mut self.collector {
            collector.look(&mut item)?;
        }
        let first = item.inode.and_then(|inode| match self.links.get(&inode) {
            Some(first) => Some(first.clone()),
            None => {
                self.links.insert(inode, item.path.clone());
                None
            }
        });
        if matches!(item.kind, Kind::Whiteout) {
            item.path.splice(at..at, *b".wh.");
        }
        self.ready = headers(&item, first.as_deref());
        if let Kind::Directory { opaque: true } = item.kind {
            self.ready.extend(opaque_marker(&item.path));
        }
        if let (Kind::File { size, contents }, None) = (item.kind, first) {
            let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
            self.path = item.path;
            self.contents = Some((contents, size, padding));
        }
        Ok(())
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.ready.len() {
                let n = buffer.len().min(self.ready.len() - self.at);
                buffer[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
                self.at += n;
                return Ok(n);
            }
            let Some((contents, left, padding)) = &mut self.contents else {
                if self.ended {
                    return Ok(0);
                }
                self.advance()?;
                continue;
            };
            if *left == 0 {
                self.ready = vec![0; *padding];
                self.at = 0;
                self.contents = None;
                continue;
            }
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
            if wanted == 0 {
                return Ok(0);
            }
            let n = contents.read(&mut buffer[..wanted])?;
            if n == 0 {
                return Err(told(&self.path, "it became shorter while it was read"));
            }
            *left -= n as u64;
            return Ok(n);
        }
    }
}

/// The entry by which a layer says that a directory hides what layers below have in it (image-spec `layer.md`).
fn opaque_marker(directory: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    headers(
        &Item {
            path: [directory, separator, b".wh..wh..opq"].concat(),
            kind: Kind::Whiteout,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Vec::new(),
            inode: None,
        },
        None,
    )
}

pub(super) fn told(path: &[u8], what: &str) -> io::Error {
    io::Error::other(format!("/{}: {what}", String::from_utf8_lossy(path).escape_debug()))
}

/// The header blocks of an item; `first` is the first name of its file, if this is another one.
fn headers(item: &Item, first: Option<&[u8]>) -> Vec<u8> {
    let mut path = item.path.clone();
    let (kind, link, size, device) = match (&item.kind, first) {
        (_, Some(first)) => (b'1', first, 0, (0, 0)),
        (Kind::Whiteout, None) => (b'0', &[][..], 0, (0, 0)),
        (Kind::Directory { .. }, None) => {
            if path.is_empty() {
                path.push(b'.');
            }
            path.push(b'/');
            (b'5', &[][..], 0, (0, 0))
        }
        (Kind::File { size, .. }, None) => (b'0', &[][..], *size, (0, 0)),
        (Kind::Symlink { target }, None) => (b'2', target.as_slice(), 0, (0, 0)),
        (Kind::Device { block, major, minor }, None) => {
            (if *block { b'4' } else { b'3' }, &[][..], 0, (*major, *minor))
        }
        (Kind::Fifo, None) => (b'6', &[][..], 0, (0, 0)),
    };
    let mut records = Vec::new();
    let mut text = |key: &str, value: &[u8]| {
        if value.len() > NAME {
            record(&mut records, key, value);
        }
    };
    text("path", &path);
    text("linkpath", link);
    let mut number = |key: &str, value: i64, max: u64| match u64::try_from(value) {
        Ok(fits) if fits <= max => fits,
        _ => {
            record(&mut records, key, value.to_string().as_bytes());
            0
        }
    };
    let uid = number("uid", item.uid.into(), MAX_SMALL);
    let gid = number("gid", item.gid.into(), MAX_SMALL);
    let size = number("size", size as i64, MAX_LARGE);
    let mtime = number("mtime", item.mtime, MAX_LARGE);
    if first.is_none() {
        for (name, value) in &item.xattrs {
            match name.contains(&b'=') {
                false => record_bytes(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value),
                // There the key would end in the name's midst.
                true => record(&mut records, &encoded(name), STANDARD.encode(value).as_bytes()),
            }
        }
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        out.extend(block(b"pax", b'x', b"", 0o644, [0, 0, records.len() as u64, 0], (0, 0)));
        out.extend(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.extend(block(&path, kind, link, item.mode, [uid, gid, size, mtime], device));
    out
}

/// The key of an xattr as libarchive writes it (archive_write_set_format_pax.c): the name percent-encoded, the value base64.
fn encoded(name: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    let piece = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    format!("LIBARCHIVE.xattr.{}", name.iter().map(piece).collect::<String>())
}

/// One ustar header; `numbers`: uid, gid, size, mtime.
fn block(path: &[u8], kind: u8, link: &[u8], mode: u32, numbers: [u64; 4], device: (u32, u32)) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}").into_bytes();
    put(0, &path[..path.len().min(NAME)]);
    put(100, &octal(u64::from(mode & 0o7777), 7));
    put(108, &octal(numbers[0], 7));
    put(116, &octal(numbers[1], 7));
    put(124, &octal(numbers[2], 11));
    put(136, &octal(numbers[3], 11));
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(NAME)]);
    put(257, b"ustar\x0000");
    // Numbers of devices have at most 20 bits.
    put(329, &octal(u64::from(device.0) & MAX_SMALL, 7));
    put(337, &octal(u64::from(device.1) & MAX_SMALL, 7));
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(&octal(sum, 7));
    block
}

fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    record_bytes(records, key.as_bytes(), value);
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn record_bytes(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}
