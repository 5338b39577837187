//! Tar archives made entry by entry, hostile ones included: names, owners, devices, hard links and whiteouts are
//! written as they are given.
//!
//! ```text
//!   [pax header 'x' + records]?  [ustar header, 512]  [contents, padded to 512]   … [1024 zero bytes]
//! ```
//! Format: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended Header"; xattrs as `SCHILY.xattr.*`, as
//! GNU tar, umoci and containers/storage write them.

/// Blocks of every tar format.
const BLOCK: usize = 512;
/// Longest name and link target of a ustar header without prefix; longer ones go to a pax record.
const NAME: usize = 100;
/// 2024-01-01T00:00:00Z: any fixed time, so that layers are the same bytes in every run.
pub const MTIME: u64 = 1_704_067_200;

/// A tar archive in memory. Entries are owned by 0:0 and dated [`MTIME`] unless said otherwise.
#[derive(Debug, Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
    xattrs: Vec<(String, Vec<u8>)>,
    owner: (u32, u32),
    mtime: Option<u64>,
}

/// The type flags of ustar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Dir = b'5' as isize,
    Fifo = b'6' as isize,
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Owner of the entries that follow.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Modification time of the entries that follow, in seconds since 1970.
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = Some(seconds);
        self
    }

    /// An extended attribute of the next entry, for example `security.capability`.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.into(), value.into()));
        self
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(Kind::Dir, path.as_bytes(), mode, b"", b"", (0, 0))
    }

    pub fn file(self, path: &str, mode: u32, contents: impl AsRef<[u8]>) -> Self {
        self.entry(Kind::File, path.as_bytes(), mode, b"", contents.as_ref(), (0, 0))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Kind::Symlink, path.as_bytes(), 0o777, target.as_bytes(), b"", (0, 0))
    }

    /// A hard link to `target`, the name of an earlier entry of this or a lower layer.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(Kind::HardLink, path.as_bytes(), 0o644, target.as_bytes(), b"", (0, 0))
    }

    pub fn fifo(self, path: &str, mode: u32) -> Self {
        self.entry(Kind::Fifo, path.as_bytes(), mode, b"", b"", (0, 0))
    }

    pub fn char_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(Kind::CharDevice, path.as_bytes(), mode, b"", b"", (major, minor))
    }

    pub fn block_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(Kind::BlockDevice, path.as_bytes(), mode, b"", b"", (major, minor))
    }

    /// Hides `path` of the layers below (`a/b` becomes the entry `a/.wh.b`).
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{slash}.wh.{name}"), 0o644, "")
    }

    /// Hides everything that the layers below have in `dir`.
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), 0o644, "")
    }

    /// An entry with every field as given; names are bytes.
    pub fn entry(
        mut self,
        kind: Kind,
        path: &[u8],
        mode: u32,
        link: &[u8],
        contents: &[u8],
        device: (u32, u32),
    ) -> Self {
        let mut records = Vec::new();
        for (key, value) in [("path", path), ("linkpath", link)] {
            if value.len() > NAME {
                record(&mut records, key, value);
            }
        }
        for (name, value) in std::mem::take(&mut self.xattrs) {
            record(&mut records, &format!("SCHILY.xattr.{name}"), &value);
        }
        if !records.is_empty() {
            self.header(b'x', b"pax", 0o644, b"", records.len(), (0, 0));
            self.contents(&records);
        }
        self.header(kind as u8, path, mode, link, contents.len(), device);
        self.contents(contents);
        self
    }

    /// The archive with its end marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, kind: u8, path: &[u8], mode: u32, link: &[u8], size: usize, device: (u32, u32)) {
        let mut block = [0u8; BLOCK];
        put(&mut block[0..100], &path[..path.len().min(NAME)]);
        octal(&mut block[100..108], u64::from(mode));
        octal(&mut block[108..116], u64::from(self.owner.0));
        octal(&mut block[116..124], u64::from(self.owner.1));
        octal(&mut block[124..136], size as u64);
        octal(&mut block[136..148], self.mtime.unwrap_or(MTIME));
        block[156] = kind;
        put(&mut block[157..257], &link[..link.len().min(NAME)]);
        put(&mut block[257..265], b"ustar\x0000");
        octal(&mut block[329..337], u64::from(device.0));
        octal(&mut block[337..345], u64::from(device.1));
        // The checksum counts its own field as blanks.
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut block[148..155], sum);
        self.bytes.extend(block);
    }

    fn contents(&mut self, contents: &[u8]) {
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    field[..bytes.len()].copy_from_slice(bytes);
}

fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let digits = format!("{number:0width$o}");
    assert!(digits.len() == width, "{number} does not fit {width} octal digits");
    put(field, digits.as_bytes());
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {key}=").bytes());
    records.extend(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;

    #[test]
    fn gnu_tar_lists_what_was_written() {
        let long = format!("d/{}", "n".repeat(150));
        let tar = Tar::new()
            .dir("d", 0o755)
            .owner(7, 8)
            .xattr("user.note", b"x\0y")
            .file(&long, 0o600, "hello")
            .hard_link("d/h", &long)
            .symlink("d/s", "../up")
            .char_device("d/null", 0o666, 1, 3)
            .whiteout("d/gone")
            .opaque("d")
            .finish();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, tar).unwrap();
        let mut list = std::process::Command::new("tar");
        let listed = run(list.args(["--numeric-owner", "--xattrs", "-tvvf"]).arg(&path)).ok();
        let words: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        let find =
            |name: &str| words.iter().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name} in {listed}"));
        assert_eq!(find(&long)[..3], ["-rw-------*", "7/8", "5"]);
        assert_eq!(find("d/h")[0].chars().next(), Some('h'));
        assert_eq!(find("d/null")[2], "1,3");
        assert!(find("d/s").contains(&"../up"));
        assert_eq!(find("d/.wh.gone")[2], "0");
        assert_eq!(find("d/.wh..wh..opq")[2], "0");
    }
}
