//! PAX records: `<length of the whole record in decimal> <key>=<value>\n`, one after the other.

use std::collections::BTreeMap;

use super::Error;
use super::header::Raw;

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// The records of one `x` header; of records with one key the last counts.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SparseVersion {
    /// 0.0 and 0.1
    InRecords,
    /// 1.0
    InData,
}

/// `offset` is the extension header's, for errors.
pub(super) fn parse(mut data: &[u8], offset: u64) -> Result<Records, Error> {
    let mut records = BTreeMap::new();
    // Sparse version 0.0 repeats two keys, which are no proper records; they become 0.1's one record.
    let mut sparse_map: Vec<&[u8]> = Vec::new();
    while !data.is_empty() {
        let (key, value, rest) = split_record(data).map_err(|what| Error::Pax { offset, what })?;
        data = rest;
        let expected: &[u8] =
            if sparse_map.len().is_multiple_of(2) { b"GNU.sparse.offset" } else { b"GNU.sparse.numbytes" };
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                if key != expected || value.contains(&b',') {
                    return Err(Error::Pax { offset, what: "sparse map's records are out of order" });
                }
                sparse_map.push(value);
            }
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
    }
    if !sparse_map.is_empty() {
        records.insert(b"GNU.sparse.map".to_vec(), sparse_map.join(&b','));
    }
    Ok(Records(records))
}

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Key, value, and the records that follow.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_record(data: &[u8]) -> Result<Split<'_>, &'static str> {
    let space = data.iter().position(|&b| b == b' ').ok_or("record has no length")?;
    let length =
        number(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or("record's length is not a number")?;
    // "5 a=\n" would be the shortest; the key cannot be empty.
    if length < 5 || length > data.len() || length <= space + 1 {
        return Err("record's length is out of range");
    }
    let (record, rest) = data.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or("record does not end with a newline")?;
    let equals = record.iter().position(|&b| b == b'=').ok_or("record has no value")?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let is_text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    if key.is_empty() || key.contains(&0) || is_text && value.contains(&0) {
        return Err("record's key or value is invalid");
    }
    Ok((key, value, rest))
}

/// Decimal, with an optional sign.
pub(super) fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, floored.
fn time(text: &[u8]) -> Option<i64> {
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = number(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Nanoseconds are what Go keeps; a smaller part of a negative time does not count.
    let below = text[0] == b'-' && fraction.iter().take(9).any(|&digit| digit != b'0');
    seconds.checked_sub(i64::from(below))
}

impl Records {
    /// Empty values mean that the header's own field counts.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn apply(&self, raw: &mut Raw, offset: u64) -> Result<(), Error> {
        let parsed = |key: &[u8], parse: fn(&[u8]) -> Option<i64>, what: &'static str| match self.get(key) {
            Some(value) => parse(value).map(Some).ok_or(Error::Pax { offset, what }),
            None => Ok(None),
        };
        if let Some(path) = self.get(b"path") {
            raw.path = path.to_vec();
        }
        if let Some(link) = self.get(b"linkpath") {
            raw.link = link.to_vec();
        }
        raw.size = parsed(b"size", number, "size is not a number")?.unwrap_or(raw.size);
        raw.uid = parsed(b"uid", number, "uid is not a number")?.unwrap_or(raw.uid);
        raw.gid = parsed(b"gid", number, "gid is not a number")?.unwrap_or(raw.gid);
        raw.mtime = parsed(b"mtime", time, "mtime is not a time")?.unwrap_or(raw.mtime);
        Ok(())
    }

    pub(super) fn sparse_version(&self) -> Option<SparseVersion> {
        let text = |key: &[u8]| self.get(key).unwrap_or(b"");
        match (text(b"GNU.sparse.major"), text(b"GNU.sparse.minor")) {
            (b"0", b"0" | b"1") => Some(SparseVersion::InRecords),
            (b"1", b"0") => Some(SparseVersion::InData),
            (b"", b"") if !text(b"GNU.sparse.map").is_empty() => Some(SparseVersion::InRecords),
            _ => None,
        }
    }

    pub(super) fn sparse_size(&self) -> Option<&[u8]> {
        self.get(b"GNU.sparse.size").or_else(|| self.get(b"GNU.sparse.realsize"))
    }

    /// Sorted by name. An empty value is a value here.
    pub(super) fn xattrs(&self, offset: u64) -> Result<Vec<Xattr>, Error> {
        let mut xattrs = BTreeMap::new();
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                let decoded = percent_decode(name).zip(base64_decode(value));
                let (name, value) =
                    decoded.ok_or(Error::Pax { offset, what: "LIBARCHIVE.xattr record is not well encoded" })?;
                xattrs.entry(name).or_insert(value);
            } else if let Some(name) = key.strip_prefix(SCHILY) {
                xattrs.insert(name.to_vec(), value.clone());
            }
        }
        Ok(xattrs.into_iter().collect())
    }
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|&b| char::from(b).to_digit(16));
        out.push((digit()? << 4 | digit()?) as u8);
    }
    (!out.contains(&0)).then_some(out)
}

/// RFC 4648, the padding optional (libarchive writes none).
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&b| b != b'=').map_or(0, |last| last + 1);
    if text.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for &byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}
