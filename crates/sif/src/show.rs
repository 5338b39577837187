//! Header and descriptors as text, as siftool and `apptainer sif` print them (sylabs/sif `internal/app/siftool/info.go`). Pure.

use crate::format::{DataType, Descriptor, Filesystem, GROUP_MASK, Header};
use crate::image_config::civil_from_days;
use std::fmt::Write as _;

/// What Go's zero time is in Unix seconds.
const NO_TIME: i64 = -62_135_596_800;
const LINE: &str = "------------------------------------------------------------------------------";

/// `header`: what is unset is left out.
pub fn header(header: &Header) -> String {
    let mut rows = Vec::new();
    let end = header.launch.iter().position(|byte| *byte == 0).unwrap_or(header.launch.len());
    if end > 0 {
        let launch = String::from_utf8_lossy(&header.launch[..end]);
        rows.push(("Launch Script:", launch.strip_suffix('\n').unwrap_or(&launch).to_owned()));
    }
    rows.push(("Version:", "01".to_owned()));
    if header.arch != crate::Arch::Unknown {
        rows.push(("Primary Architecture:", header.arch.go_name().to_owned()));
    }
    if header.uuid != [0; 16] {
        rows.push(("ID:", uuid(&header.uuid)));
    }
    rows.extend(time(header.ctime).map(|text| ("Created At:", text)));
    rows.extend(time(header.mtime).map(|text| ("Modified At:", text)));
    rows.extend([
        ("Descriptors Free:", header.descriptors_free.to_string()),
        ("Descriptors Total:", header.descriptors_total.to_string()),
        ("Descriptors Offset:", header.descriptors_offset.to_string()),
        ("Descriptors Size:", size(header.descriptors_len)),
        ("Data Offset:", header.data_offset.to_string()),
        ("Data Size:", size(header.data_len)),
    ]);
    table("", 1, &rows)
}

/// `list`
pub fn list(descriptors: &[Descriptor]) -> String {
    let mut out = format!(
        "{LINE}\n{:<4} {:<8} {:<8} {:<26} {}\n{LINE}\n",
        "ID", "|GROUP", "|LINK", "|SIF POSITION (start-end)", "|TYPE"
    );
    for descriptor in descriptors {
        let group = descriptor.group_number().map_or_else(|| "NONE".to_owned(), |number| number.to_string());
        let link = match link(descriptor) {
            Link::None => "|NONE    ".to_owned(),
            Link::Group(number) => format!("|{number:<3} (G) "),
            Link::Object(id) => format!("|{id:<7} "),
        };
        let place = format!("|{}-{} ", descriptor.offset, descriptor.offset + descriptor.size);
        let kind = descriptor.datatype.label();
        let details = match details(descriptor).as_slice() {
            [] => String::new(),
            // What the other lines of `info` say: a signature's entity.
            [first, ..] if descriptor.datatype == DataType::Signature => format!(" ({})", first.1),
            _ if matches!(descriptor.datatype, DataType::OciRootIndex | DataType::OciBlob) => String::new(),
            all => format!(" ({})", all.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("/")),
        };
        // Writing into a String never fails.
        let _ = writeln!(out, "{:<4} |{group:<7} {link}{place:<26} |{kind}{details}", descriptor.id);
    }
    out
}

/// `info`
pub fn info(descriptor: &Descriptor) -> String {
    let mut rows = vec![
        ("Data Type:", descriptor.datatype.label().to_owned()),
        ("ID:", descriptor.id.to_string()),
        ("Group ID:", descriptor.group_number().map_or_else(|| "NONE".to_owned(), |number| number.to_string())),
        (
            "Linked ID:",
            match link(descriptor) {
                Link::None => "NONE".to_owned(),
                Link::Group(number) => format!("{number} (G)"),
                Link::Object(id) => id.to_string(),
            },
        ),
        ("Offset:", descriptor.offset.to_string()),
        ("Size:", descriptor.size.to_string()),
    ];
    rows.extend(time(descriptor.ctime).map(|text| ("Created At:", text)));
    rows.extend(time(descriptor.mtime).map(|text| ("Modified At:", text)));
    if !descriptor.name.is_empty() {
        rows.push(("Name:", descriptor.name.clone()));
    }
    rows.extend(details(descriptor));
    table("  ", 2, &rows)
}

enum Link {
    None,
    Object(u32),
    Group(u32),
}

fn link(descriptor: &Descriptor) -> Link {
    match (descriptor.link & !GROUP_MASK, descriptor.link & GROUP_MASK == GROUP_MASK) {
        (0, _) => Link::None,
        (number, true) => Link::Group(number),
        (_, false) => Link::Object(descriptor.link),
    }
}

/// What the extra field says.
fn details(descriptor: &Descriptor) -> Vec<(&'static str, String)> {
    let extra = &descriptor.extra;
    let number = |at: usize| i32::from_le_bytes([extra[at], extra[at + 1], extra[at + 2], extra[at + 3]]);
    match descriptor.datatype {
        DataType::Partition => {
            let Some((filesystem, kind, arch)) = descriptor.partition() else {
                return Vec::new();
            };
            vec![
                ("Filesystem Type:", filesystem_label(filesystem).to_owned()),
                ("Partition Type:", word(kind, &["System", "*System", "Data", "Overlay"]).to_owned()),
                ("Architecture:", arch.go_name().to_owned()),
            ]
        }
        DataType::Signature => {
            let hashes = ["SHA-256", "SHA-384", "SHA-512", "BLAKE2s-256", "BLAKE2b-256"];
            let mut rows = vec![("Hash Type:", word(number(0), &hashes).to_owned())];
            let entity = &extra[4..24];
            if entity.iter().any(|byte| *byte != 0) {
                rows.push(("Entity:", entity.iter().map(|byte| format!("{byte:02X}")).collect()));
            }
            rows
        }
        DataType::CryptographicMessage => {
            let message = match number(4) {
                0x100 => "Clear Signature",
                0x200 => "RSA-OAEP",
                _ => "Unknown",
            };
            let format = word(number(0), &["OpenPGP", "PEM"]).to_owned();
            vec![("Format Type:", format), ("Message Type:", message.to_owned())]
        }
        DataType::Sbom => {
            let format = usize::try_from(number(0)).ok().and_then(|code| SBOM_FORMATS.get(code.checked_sub(1)?));
            vec![("Format:", (*format.unwrap_or(&"unknown")).to_owned())]
        }
        DataType::OciRootIndex | DataType::OciBlob => {
            let end = extra.iter().position(|byte| *byte == 0).unwrap_or(extra.len());
            vec![("Digest:", String::from_utf8_lossy(&extra[..end]).into_owned())]
        }
        _ => Vec::new(),
    }
}

/// In the order of their codes, from 1 on.
pub const SBOM_FORMATS: [&str; 8] = [
    "cyclonedx-json",
    "cyclonedx-xml",
    "github-json",
    "spdx-json",
    "spdx-rdf",
    "spdx-tag-value",
    "spdx-yaml",
    "syft-json",
];

fn word<'a>(code: i32, words: &[&'a str]) -> &'a str {
    usize::try_from(code).ok().and_then(|code| words.get(code.checked_sub(1)?)).copied().unwrap_or("Unknown")
}

fn filesystem_label(filesystem: Filesystem) -> &'static str {
    match filesystem {
        Filesystem::Squashfs => "Squashfs",
        Filesystem::Ext3 => "Ext3",
        Filesystem::ImmutableObject => "Archive",
        Filesystem::Raw => "Raw",
        Filesystem::EncryptedSquashfs => "Encrypted squashfs",
        Filesystem::GocryptfsSquashfs => "Gocryptfs squashfs",
        Filesystem::Other(_) => "Unknown",
    }
}

/// Two columns, the second `padding` behind the longest of the first.
fn table(indent: &str, padding: usize, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + padding;
    rows.iter().map(|(label, value)| format!("{indent}{label:<width$}{value}\n")).collect()
}

/// `2024-01-01 00:00:00 +0000 UTC`, Go's way; None for no time at all.
fn time(seconds: i64) -> Option<String> {
    (seconds != NO_TIME).then(|| {
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let clock = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
    })
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// `48 MiB`
fn size(bytes: i64) -> String {
    if bytes.unsigned_abs() < 1024 {
        return format!("{bytes} B");
    }
    let (mut divisor, mut unit, mut rest) = (1024_f64, 0, bytes / 1024);
    while rest.unsigned_abs() >= 1024 {
        (divisor, unit, rest) = (divisor * 1024.0, unit + 1, rest / 1024);
    }
    format!("{:.0} {}iB", (bytes as f64 / divisor).round(), ['K', 'M', 'G', 'T', 'P', 'E'][unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        let check = |bytes, expect| assert_eq!(size(bytes), expect, "{bytes}");
        check(0, "0 B");
        check(1023, "1023 B");
        check(28_080, "27 KiB");
        check(50_000_000, "48 MiB");
        check(i64::MAX, "8 EiB");
        assert_eq!(time(1_704_067_200).unwrap(), "2024-01-01 00:00:00 +0000 UTC");
        assert_eq!(time(-1).unwrap(), "1969-12-31 23:59:59 +0000 UTC");
        assert_eq!(time(NO_TIME), None);
    }
}
