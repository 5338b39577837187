//! Names as they stand in tars.

/// For messages: bytes that are no UTF-8 or not printable are escaped.
pub(crate) fn printable(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The components of a path, cleaned by its text alone: empty ones and `.` dropped, `..` takes back the one before and
/// stops at the root. So do all readers of layers before they look at a file system (Go's `filepath.Clean("/" + path)`).
pub(crate) fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(out.pop()),
            name => out.push(name),
        }
    }
    out
}
