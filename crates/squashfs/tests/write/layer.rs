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
    Entry {
        path: path.as_ref().to_vec(),
        mode,
        uid: 0,
        gid: 0,
        mtime: 1_600_000_000,
        xattrs: Vec::new(),
        kind,
    }
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

/// A tar of PAX headers (path, linkpath, ids, mtime, xattrs) and ustar ones.
pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut pax = Vec::new();
        record(&mut pax, b"path", &entry.path);
        record(&mut pax, b"uid", entry.uid.to_string().as_bytes());
        record(&mut pax, b"gid", entry.gid.to_string().as_bytes());
        record(&mut pax, b"mtime", entry.mtime.to_string().as_bytes());
        for (name, value) in &entry.xattrs {
            record(&mut pax, format!("SCHILY.xattr.{name}").as_bytes(), value);
        }
        let (flag, data, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
            Kind::Directory => (b'5', b"", (0, 0)),
            Kind::File(data) => (b'0', data, (0, 0)),
            Kind::Symlink(target) => {
                record(&mut pax, b"linkpath", target.as_bytes());
                (b'2', b"", (0, 0))
            }
            Kind::Hard(target) => {
                record(&mut pax, b"linkpath", target.as_bytes());
                (b'1', b"", (0, 0))
            }
            Kind::Char(major, minor) => (b'3', b"", (*major, *minor)),
            Kind::Block(major, minor) => (b'4', b"", (*major, *minor)),
            Kind::Fifo => (b'6', b"", (0, 0)),
        };
        member(&mut out, b'x', &pax, 0, (0, 0));
        member(&mut out, flag, data, entry.mode, device);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} ").bytes());
    out.extend([key, b"=", value, b"\n"].concat());
}

fn member(out: &mut Vec<u8>, flag: u8, data: &[u8], mode: u32, device: (u32, u32)) {
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"in-pax");
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\x000000000\0");
    put(124, format!("{:011o}\0", data.len()).as_bytes());
    put(136, b"00000000000\0        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    put(
        329,
        format!("{:07o}\0{:07o}\0", device.0, device.1).as_bytes(),
    );
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}
