//! JSON of others: bounded in depth, base64 members decoded.

use super::{Flaw, shown};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeOwned;

/// A bundle with its log entries has 8 levels.
const MAX_DEPTH: usize = 32;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Flaw> {
    check_depth(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| malformed(what, &error.to_string()))
}

/// Brackets that are open at once, those in strings left out: members that we skip are not bounded by ours.
fn check_depth(bytes: &[u8]) -> Result<(), Flaw> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            let (actual, max) = (depth as u64, MAX_DEPTH as u64);
            return Err(Flaw::Limit { what: "the depth of the JSON", actual, max });
        }
    }
    Ok(())
}

/// Protobuf's JSON takes both alphabets, with and without padding.
pub(super) fn base64(text: &str, what: &'static str) -> Result<Vec<u8>, Flaw> {
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let decoded = GeneralPurpose::new(&alphabet, LENIENT).decode(text.trim_end());
    decoded.map_err(|error| malformed(what, &error.to_string()))
}

pub(super) fn malformed(what: &'static str, detail: &str) -> Flaw {
    Flaw::Malformed { what, detail: shown(detail) }
}
