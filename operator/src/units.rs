//! Durations (`1h30m`) and quantities (`100Gi`) as people write them in a spec.

use std::time::Duration;

/// Go's duration grammar, as far as the CRD's pattern lets it through: `(number unit)+` with units ms, s, m, h.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * factor;
        rest = &rest[unit..];
    }
    let written = !text.is_empty();
    written.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Kubernetes' quantity grammar without signs, exponents and fractions of a unit below one: bytes.
pub(crate) fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor: u64 = match &text[end..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    if let Ok(whole) = text[..end].parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = text[..end].parse::<f64>().ok()? * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// `78.2 MiB`
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The beginning of `text`, at most `max` bytes, ending between characters.
pub(crate) fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check =
            |text, millis: Option<u64>| assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        check("0s", Some(0));
        check("1h", Some(3_600_000));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1_500));
        check("250ms", Some(250));
        check("", None);
        check("10", None);
        check("h", None);
        check("1d", None);
        check("1..5s", None);
        check("-1s", None);
        check(&format!("{}h", "9".repeat(400)), None);
    }

    #[test]
    fn quantities() {
        let check = |text, bytes| assert_eq!(quantity(text), bytes, "{text:?}");
        check("262144", Some(262_144));
        check("256Ki", Some(262_144));
        check("1Mi", Some(1 << 20));
        check("1.5Gi", Some(3 << 29));
        check("2k", Some(2_000));
        check("", None);
        check("1X", None);
        check("99999999Ei", None);
        check("1.2.3", None);
    }

    #[test]
    fn sizes_for_people() {
        let check = |size, text| assert_eq!(bytes(size), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(81_998_643, "78.2 MiB");
        check((1 << 30) - 1, "1.0 GiB");
    }
}
