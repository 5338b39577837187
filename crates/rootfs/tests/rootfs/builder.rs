//! A tar writer for tests: it writes what it is told, also what is wrong.

/// One header of 512 bytes. The base is a ustar file, 0644 1:2, mtime 1000.
#[derive(Clone)]
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(path: &[u8], kind: u8) -> Header {
        let mut header = Header([0; 512]);
        header.bytes(0, path).octal(100, 8, 0o644).octal(108, 8, 1).octal(116, 8, 2);
        header.octal(124, 12, 0).octal(136, 12, 1000);
        header.0[156] = kind;
        header.bytes(257, b"ustar\x0000");
        header
    }

    pub(crate) fn gnu(path: &[u8], kind: u8) -> Header {
        let mut header = Header::new(path, kind);
        header.bytes(257, b"ustar  \0");
        header
    }

    pub(crate) fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// As many digits as fit before the NUL.
    pub(crate) fn octal(&mut self, at: usize, width: usize, value: u64) -> &mut Header {
        let text = format!("{value:0digits$o}\0", digits = width - 1);
        self.bytes(at, text.as_bytes())
    }

    pub(crate) fn base256(&mut self, at: usize, width: usize, value: i64) -> &mut Header {
        let fill = if value < 0 { 0xff } else { 0 };
        self.0[at..at + width].fill(fill);
        self.bytes(at + width - 8, &value.to_be_bytes());
        self.0[at] |= 0x80;
        self
    }

    pub(crate) fn size(&mut self, size: u64) -> &mut Header {
        self.octal(124, 12, size)
    }

    pub(crate) fn link(&mut self, target: &[u8]) -> &mut Header {
        self.bytes(157, target)
    }

    /// With the checksum of unsigned bytes.
    pub(crate) fn sealed(&self) -> [u8; 512] {
        self.sealed_by(i64::from)
    }

    pub(crate) fn sealed_by(&self, value: fn(u8) -> i64) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: i64 = block.iter().map(|&byte| value(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    pub(crate) fn raw(mut self, header: &Header, data: &[u8]) -> Tar {
        self.0.extend_from_slice(&header.sealed());
        self.data(data)
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn member(self, path: &str, kind: u8, link: &str, data: &[u8]) -> Tar {
        let mut header = Header::new(path.as_bytes(), kind);
        header.link(link.as_bytes()).size(data.len() as u64);
        if kind == b'5' {
            header.octal(100, 8, 0o755);
        }
        self.raw(&header, data)
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Tar {
        self.member(path, b'0', "", data)
    }

    pub(crate) fn dir(self, path: &str) -> Tar {
        self.member(path, b'5', "", b"")
    }

    /// An extension header of type `kind` (x, g, L, K).
    pub(crate) fn extension(self, kind: u8, data: &[u8]) -> Tar {
        let mut header = Header::new(b"extension", kind);
        header.size(data.len() as u64);
        self.raw(&header, data)
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key.as_bytes(), value)).collect();
        self.extension(b'x', &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A layer from a line of words:
/// `d:PATH[:MODE]` directory, `f:PATH[=DATA]` file, `s:PATH>TARGET` symlink, `h:PATH>TARGET` hard link,
/// `c:PATH` device 1:3, `p:PATH` fifo.
pub(crate) fn layer(words: &str) -> Vec<u8> {
    words.split_whitespace().fold(Tar::new(), word).end()
}

fn word(tar: Tar, word: &str) -> Tar {
    let (kind, rest) = word.split_once(':').expect("kind:path");
    match kind {
        "d" => match rest.split_once(':') {
            Some((path, mode)) => {
                let mut header = Header::new(path.as_bytes(), b'5');
                header.octal(100, 8, u64::from_str_radix(mode, 8).expect("octal mode"));
                tar.raw(&header, b"")
            }
            None => tar.dir(rest),
        },
        "f" => {
            let (path, data) = rest.split_once('=').unwrap_or((rest, ""));
            tar.file(path, data.as_bytes())
        }
        "s" | "h" => {
            let (path, target) = rest.split_once('>').expect("path>target");
            tar.member(path, if kind == "s" { b'2' } else { b'1' }, target, b"")
        }
        "c" => {
            let mut header = Header::new(rest.as_bytes(), b'3');
            header.octal(329, 8, 1).octal(337, 8, 3);
            tar.raw(&header, b"")
        }
        "p" => tar.member(rest, b'6', "", b""),
        other => panic!("unknown kind {other}"),
    }
}
