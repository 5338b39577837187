//! JSON as Go's encoding/json writes it, so that our objects read like the reference's: `<`, `>`, `&`, U+2028 and U+2029 are
//! escaped inside strings (package json, `HTMLEscape`), keys of maps are sorted, empty members left out by the types themselves.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// One line, without a newline at its end.
pub(crate) fn line<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_string(value).map(|text| escape_html(&text).into_bytes())
}

/// Indented by tabs, without a newline at its end (`json.MarshalIndent(v, "", "\t")`).
pub(crate) fn tabs<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut serializer = Serializer::with_formatter(Vec::new(), PrettyFormatter::with_indent(b"\t"));
    value.serialize(&mut serializer)?;
    let text = String::from_utf8_lossy(&serializer.into_inner()).into_owned();
    Ok(escape_html(&text).into_bytes())
}

/// In JSON these characters stand in strings only, so the text can be rewritten as a whole.
fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}
