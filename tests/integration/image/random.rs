//! Stacks of random layers over few names, so that names meet: files, folders, links, whiteouts and opaque folders over
//! each other in every order.

use std::collections::BTreeMap;

use siforge_tests::Tar;

/// Deeper than opaque folders and whiteouts of whole trees need.
const DEPTH: usize = 3;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    /// Regular, with the number of its contents.
    File,
    Other,
}

/// xorshift64*: small, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// Layers of about `entries` entries each, lowest first.
pub(super) fn layers(seed: u64, layers: usize, entries: usize) -> Vec<Vec<u8>> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..layers).map(|number| layer(&mut random, number as u64, entries)).collect()
}

fn layer(random: &mut Random, number: u64, entries: usize) -> Vec<u8> {
    let mut seen: BTreeMap<String, Kind> = BTreeMap::new();
    let mut tar = Tar::new().mtime(1_600_000_000 + number).dir("./", 0o755);
    for count in 0..entries {
        tar = tar.mtime(1_600_000_000 + number * 10_000 + count as u64).owner(random.below(3) as u32, 0);
        let Some((next, path)) = place(random, &mut seen, tar.clone()) else {
            continue;
        };
        tar = entry(random, &mut seen, next, &path);
    }
    tar.finish()
}

/// A path whose parents are folders of this layer, made now if need be.
fn place(random: &mut Random, seen: &mut BTreeMap<String, Kind>, mut tar: Tar) -> Option<(Tar, String)> {
    let mut path = String::new();
    for _ in 0..random.below(DEPTH) {
        path += NAMES[random.below(NAMES.len())];
        match seen.get(&path) {
            Some(Kind::Folder) => {}
            Some(_) => return None,
            None => {
                tar = tar.dir(&path, 0o755);
                seen.insert(path.clone(), Kind::Folder);
            }
        }
        path.push('/');
    }
    path += NAMES[random.below(NAMES.len())];
    Some((tar, path))
}

fn entry(random: &mut Random, seen: &mut BTreeMap<String, Kind>, tar: Tar, path: &str) -> Tar {
    let standing = seen.get(path).copied();
    let contents = || vec![b'x'; 1 + path.len() * 77];
    match (random.below(10), standing) {
        (0, _) => tar.whiteout(path),
        (1, Some(Kind::Folder)) => tar.opaque(path),
        (_, Some(Kind::Folder)) => tar.dir(path, 0o700),
        (2, Some(Kind::File)) => tar.file(path, 0o600, "the second"),
        (_, Some(_)) => tar,
        (1..=4, None) => {
            seen.insert(path.into(), Kind::File);
            tar.xattr("user.path", path.as_bytes()).file(path, 0o644, contents())
        }
        (5 | 6, None) => {
            seen.insert(path.into(), Kind::Folder);
            tar.dir(path, 0o755)
        }
        (7, None) => {
            seen.insert(path.into(), Kind::Other);
            tar.symlink(path, "a/b")
        }
        (_, None) => {
            let files: Vec<String> =
                seen.iter().filter(|(_, kind)| **kind == Kind::File).map(|(path, _)| path.clone()).collect();
            if files.is_empty() {
                return tar;
            }
            seen.insert(path.into(), Kind::Other);
            tar.hard_link(path, &files[random.below(files.len())])
        }
    }
}
