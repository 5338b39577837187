//! The table of extended attributes.
//!
//! ```text
//!  keys:  u16 type, u16 length, name without prefix, u32 length, value      … a set's keys in a row
//!         u16 type | OUT_OF_LINE, …, u32 8, u64 reference to "u32 length, value" elsewhere
//!  sets:  u64 reference to the first key, u32 keys, u32 bytes of names (with prefix and NUL) and values
//! ```
//!
//! Equal sets share one entry, and long values are stored once, apart from the keys (as mksquashfs does).

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use crate::format::{
    MetaRef, NO_XATTRS, XATTR_NAME_MAX, XATTR_OUT_OF_LINE, XATTR_PREFIXES, XATTR_VALUE_MAX, put16, put32, put64,
};
use crate::write::Error;
use crate::write::metadata::{MetadataCompressor, Table};
use crate::write::order::Spot;

/// Longer values are stored apart; mksquashfs's XATTR_INLINE_MAX.
const INLINE_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Xattrs {
    keys: Table,
    /// The set entries, encoded.
    sets: Vec<u8>,
    known: HashMap<[u8; 32], u32>,
    values: HashMap<[u8; 32], MetaRef>,
    dropped: usize,
    dropped_namespaces: BTreeSet<String>,
}

/// The finished table.
pub(super) struct Packed {
    pub(super) keys: Vec<u8>,
    pub(super) sets: Vec<u8>,
    pub(super) count: u32,
}

struct Key<'a> {
    kind: u16,
    /// Without the prefix.
    name: &'a [u8],
    value: &'a [u8],
}

impl Xattrs {
    /// The number of the inode's attribute set. `spot` names the inode in errors.
    pub(super) fn add(
        &mut self,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        spot: &Spot<'_>,
        compressor: &mut MetadataCompressor,
    ) -> Result<u32, Error> {
        let mut keys = Vec::new();
        for (name, value) in xattrs {
            match split(name) {
                Some((kind, rest)) => {
                    check(name, rest, value, spot)?;
                    keys.push(Key { kind, name: rest, value });
                }
                None => self.drop_one(name),
            }
        }
        if keys.is_empty() {
            return Ok(NO_XATTRS);
        }
        let mut hash = Sha256::new();
        for key in &keys {
            hash.update(key.kind.to_le_bytes());
            hash.update((key.name.len() as u32).to_le_bytes());
            hash.update(key.name);
            hash.update((key.value.len() as u32).to_le_bytes());
            hash.update(key.value);
        }
        let hash = hash.finalize().into();
        if let Some(number) = self.known.get(&hash) {
            return Ok(*number);
        }
        let number = self.known.len() as u32;
        self.append_set(&keys, compressor)?;
        self.known.insert(hash, number);
        Ok(number)
    }

    fn append_set(&mut self, keys: &[Key<'_>], compressor: &mut MetadataCompressor) -> Result<(), Error> {
        let mut encoded = Vec::new();
        let mut listed = 0;
        for key in keys {
            let apart = key.value.len() > INLINE_MAX;
            put16(&mut encoded, key.kind | if apart { XATTR_OUT_OF_LINE } else { 0 });
            put16(&mut encoded, key.name.len() as u16);
            encoded.extend_from_slice(key.name);
            if apart {
                let place = self.value_place(key.value, compressor)?;
                put32(&mut encoded, 8);
                put64(&mut encoded, place.0);
            } else {
                put32(&mut encoded, key.value.len() as u32);
                encoded.extend_from_slice(key.value);
            }
            listed += XATTR_PREFIXES[usize::from(key.kind)].len() + key.name.len() + 1 + key.value.len();
        }
        put64(&mut self.sets, self.keys.position().0);
        put32(&mut self.sets, keys.len() as u32);
        put32(&mut self.sets, u32::try_from(listed).unwrap_or(u32::MAX));
        self.keys.append(&encoded, compressor)
    }

    fn value_place(&mut self, value: &[u8], compressor: &mut MetadataCompressor) -> Result<MetaRef, Error> {
        let hash = Sha256::digest(value).into();
        if let Some(place) = self.values.get(&hash) {
            return Ok(*place);
        }
        let place = self.keys.position();
        self.keys.append(&(value.len() as u32).to_le_bytes(), compressor)?;
        self.keys.append(value, compressor)?;
        self.values.insert(hash, place);
        Ok(place)
    }

    fn drop_one(&mut self, name: &[u8]) {
        self.dropped += 1;
        let namespace = name.split(|byte| *byte == b'.').next().unwrap_or(name);
        // The names come from the image; a warning is no place for many or long ones.
        if self.dropped_namespaces.len() < 8 && namespace.len() <= 32 {
            self.dropped_namespaces.insert(format!("{}.", namespace.escape_ascii()));
        }
    }

    /// One line about all attributes that squashfs cannot hold.
    pub(super) fn warning(&self) -> Option<String> {
        let namespaces: Vec<_> = self.dropped_namespaces.iter().map(String::as_str).collect();
        (self.dropped > 0).then(|| {
            format!(
                "{} extended attributes outside user., trusted. and security. were dropped, squashfs cannot hold them \
                 (namespaces: {})",
                self.dropped,
                namespaces.join(", ")
            )
        })
    }

    /// None when no inode has attributes.
    pub(super) fn finish(self, compressor: &mut MetadataCompressor) -> Result<Option<Packed>, Error> {
        let count = self.known.len() as u32;
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Packed { keys: self.keys.finish(compressor)?, sets: self.sets, count }))
    }
}

/// The type of a name's prefix and the rest of the name.
fn split(name: &[u8]) -> Option<(u16, &[u8])> {
    (0..).zip(XATTR_PREFIXES).find_map(|(kind, prefix)| Some((kind, name.strip_prefix(prefix)?)))
}

fn check(name: &[u8], rest: &[u8], value: &[u8], spot: &Spot<'_>) -> Result<(), Error> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(XATTR_NAME_MAX)]).into_owned();
    if rest.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
        return Err(Error::XattrName { path: spot.path(), name: shown(), len: name.len() });
    }
    if value.len() > XATTR_VALUE_MAX {
        return Err(Error::XattrValue { path: spot.path(), name: shown(), len: value.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use siforge_rootfs::{Limits, Merge, Outcome, Visibility};

    use super::*;
    use crate::write::Codec;
    use crate::write::order::Order;

    fn xattr(name: &str, value: usize) -> (Vec<u8>, Vec<u8>) {
        (name.into(), vec![7; value])
    }

    /// Adds sets one after another: the last one's number, or the error; and the warning.
    fn add(sets: &[&[(Vec<u8>, Vec<u8>)]]) -> (String, String) {
        let Outcome::Done { tree, .. } = Merge::new(Limits::default(), Visibility::default()).finish(0).unwrap() else {
            panic!("an empty tree needs one pass")
        };
        let spot = Spot { tree: &tree, order: &Order::of(&tree), directory: tree.root(), name: b"f" };
        let mut compressor = MetadataCompressor::new(Codec::Gzip { level: 1 }, 1 << 17).unwrap();
        let mut xattrs = Xattrs::default();
        let mut last = String::new();
        for set in sets {
            last = match xattrs.add(set, &spot, &mut compressor) {
                Ok(NO_XATTRS) => "none".into(),
                Ok(number) => number.to_string(),
                Err(error) => error.to_string(),
            };
        }
        (last, xattrs.warning().unwrap_or_default())
    }

    #[test]
    fn sets_are_shared_and_checked() {
        let (a, b) = ([xattr("user.a", 1)], [xattr("user.b", 1)]);
        let long = format!("user.{}", "n".repeat(251));
        for (sets, expect) in [
            (&[&[][..]][..], "none"),
            (&[&a], "0"),
            (&[&a, &b], "1"),
            (&[&a, &b, &a], "0"),
            (&[&[xattr("security.x", 65_536)]], "0"),
            (&[&[xattr("system.posix_acl_access", 4)]], "none"),
            (&[&[xattr("user.", 1)]], "/f: extended attribute \"user.\" has a name of 5 bytes"),
            (&[&[xattr(&long, 1)]], "/f: extended attribute \"user.nn"),
            (&[&[xattr("user.v", 65_537)]], "/f: extended attribute \"user.v\" has 65537 bytes"),
        ] {
            let (found, _) = add(sets);
            assert!(found.starts_with(expect), "{sets:?}: {found}");
        }
    }

    #[test]
    fn one_warning_for_all_that_is_dropped() {
        let dropped = [xattr("system.x", 1), xattr("com.apple", 1), xattr("user.kept", 1), xattr("system.y", 1)];
        let (number, warning) = add(&[&dropped]);
        assert_eq!(number, "0");
        assert!(
            warning.starts_with("3 extended attributes") && warning.ends_with("(namespaces: com., system.)"),
            "{warning}"
        );
    }
}
