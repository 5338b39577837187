//! One header block: which format, its numbers and strings.

use super::{BLOCK, Error};

pub(super) type Block = [u8; BLOCK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header as it stands, before extensions.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
}

impl Raw {
    /// `offset` is the block's, for errors.
    pub(super) fn parse(block: &Block, offset: u64) -> Result<Raw, Error> {
        let field = |range: std::ops::Range<usize>, field: &'static str| {
            number(&block[range]).ok_or(Error::Number { offset, field })
        };
        let format = format(block);
        let mut raw = Raw {
            path: string(&block[..100]).to_vec(),
            link: string(&block[157..257]).to_vec(),
            kind: block[156],
            mode: field(100..108, "mode")?,
            uid: field(108..116, "uid")?,
            gid: field(116..124, "gid")?,
            size: field(124..136, "size")?,
            mtime: field(136..148, "mtime")?,
            major: 0,
            minor: 0,
        };
        if format != Format::V7 {
            raw.major = field(329..337, "device major")?;
            raw.minor = field(337..345, "device minor")?;
        }
        let prefix: &[u8] = match format {
            Format::V7 => b"",
            Format::Ustar => string(&block[345..500]),
            Format::Star => string(&block[345..476]),
            // Go before 1.8 wrote a prefix where GNU has its times (golang.org/issue/12594), and old layers are its work.
            Format::Gnu => {
                let times_are_valid = |at: usize| block[at] == 0 || number(&block[at..at + 12]).is_some();
                match string(&block[345..500]) {
                    prefix if !(times_are_valid(345) && times_are_valid(357)) && prefix.is_ascii() => prefix,
                    _ => b"",
                }
            }
        };
        if !prefix.is_empty() {
            raw.path = [prefix, b"/", &raw.path].concat();
        }
        Ok(raw)
    }
}

pub(super) fn format(block: &Block) -> Format {
    match (&block[257..263], &block[263..265]) {
        (b"ustar\0", _) if &block[508..512] == b"tar\0" => Format::Star,
        (b"ustar\0", _) => Format::Ustar,
        (b"ustar ", b" \0") => Format::Gnu,
        _ => Format::V7,
    }
}

/// The sum of all bytes, those of the checksum taken as spaces; old writers summed signed bytes.
pub(super) fn checksum_matches(block: &Block) -> bool {
    let Some(stored) = octal(&block[148..156]) else {
        return false;
    };
    let sum = |value: fn(u8) -> i32| {
        let all: i32 = block.iter().map(|&byte| value(byte)).sum();
        let own: i32 = block[148..156].iter().map(|&byte| value(byte)).sum();
        i64::from(all - own + 8 * i32::from(b' '))
    };
    stored == sum(i32::from) || stored == sum(|byte| i32::from(byte as i8))
}

/// Up to the first NUL.
pub(super) fn string(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal text, or base-256: the first bit set, then two's complement, big-endian.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let invert = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (i, &byte) in field.iter().enumerate() {
        let byte = byte ^ invert;
        let byte = if i == 0 { byte & 0x7f } else { byte };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if invert == 0 { value } else { !value })
}

/// Spaces and NULs around the digits are padding; nothing at all is 0.
fn octal(field: &[u8]) -> Option<i64> {
    let is_padding = |b: &u8| matches!(b, b' ' | 0);
    let Some(start) = field.iter().position(|b| !is_padding(b)) else {
        return Some(0);
    };
    let end = field.iter().rposition(|b| !is_padding(b)).map_or(start, |last| last + 1);
    let digits = string(&field[start..end]);
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}
