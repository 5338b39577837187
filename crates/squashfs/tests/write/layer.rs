//! Layers as test data: a list of entries, and the tar made from it.

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(String),
    /// A further name of the file at this path.
    Hard(String),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) kind: Kind,
}

pub(crate) fn entry(path: impl AsRef<[u8]>, kind: Kind) -> Entry {
    let mode = match kind {
        Kind::Directory => 0o755,
        Kind::Symlink(_) => 0o777,
        _ => 0o644,
    };
    Entry { path: path.as_ref().to_vec(), mode, uid: 0, gid: 0, mtime: 1_600_000_000, xattrs: Vec::new(), kind }
}

pub(crate) fn directory(path: impl AsRef<[u8]>) -> Entry {
    entry(path, Kind::Directory)
}

pub(crate) fn file(path: impl AsRef<[u8]>, data: impl Into<Vec<u8>>) -> Entry {
    entry(path, Kind::File(data.into()))
}

impl Entry {
    pub(crate) fn owned(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn mtime(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    pub(crate) fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.xattrs.push((name.into(), value.into()));
        self
    }
}

/// A tar of ustar headers, and of PAX ones for what these cannot hold.
pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut pax = Vec::new();
        for (name, value) in &entry.xattrs {
            record(&mut pax, &format!("SCHILY.xattr.{name}"), value);
        }
        let (flag, data, link, device): (u8, &[u8], &str, (u32, u32)) = match &entry.kind {
            Kind::Directory => (b'5', b"", "", (0, 0)),
            Kind::File(data) => (b'0', data, "", (0, 0)),
            Kind::Symlink(target) => (b'2', b"", target, (0, 0)),
            Kind::Hard(target) => (b'1', b"", target, (0, 0)),
            Kind::Char(major, minor) => (b'3', b"", "", (*major, *minor)),
            Kind::Block(major, minor) => (b'4', b"", "", (*major, *minor)),
            Kind::Fifo => (b'6', b"", "", (0, 0)),
        };
        let mut header = Header::new(flag, data.len());
        header.text(&mut pax, 0, "path", &entry.path);
        header.text(&mut pax, 157, "linkpath", link.as_bytes());
        header.number(&mut pax, 100, 8, "mode", entry.mode.into());
        header.number(&mut pax, 108, 8, "uid", entry.uid.into());
        header.number(&mut pax, 116, 8, "gid", entry.gid.into());
        header.number(&mut pax, 136, 12, "mtime", entry.mtime);
        header.number(&mut pax, 329, 8, "major", device.0.into());
        header.number(&mut pax, 337, 8, "minor", device.1.into());
        if !pax.is_empty() {
            Header::new(b'x', pax.len()).append(&mut out, &pax);
        }
        header.append(&mut out, data);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}=").bytes());
    out.extend(value);
    out.push(b'\n');
}

struct Header([u8; 512]);

impl Header {
    fn new(flag: u8, size: usize) -> Self {
        let mut header = Self([0; 512]);
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(156, &[flag]);
        header.put(257, b"ustar\x0000");
        header
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A name of up to 100 bytes, else a PAX record.
    fn text(&mut self, pax: &mut Vec<u8>, at: usize, key: &str, value: &[u8]) {
        match value.len() <= 100 {
            true => self.put(at, value),
            false => record(pax, key, value),
        }
    }

    /// An octal number in `width` bytes, else a PAX record.
    fn number(&mut self, pax: &mut Vec<u8>, at: usize, width: usize, key: &str, value: i64) {
        let digits = width - 1;
        match u64::try_from(value).ok().filter(|value| value >> (3 * digits) == 0) {
            Some(value) => self.put(at, format!("{value:0digits$o}\0").as_bytes()),
            None => record(pax, key, value.to_string().as_bytes()),
        }
    }

    fn append(mut self, out: &mut Vec<u8>, data: &[u8]) {
        self.put(148, b"        ");
        let sum = self.0.iter().fold(0, |sum, byte| sum + u32::from(*byte));
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        out.extend(self.0);
        out.extend(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
}
