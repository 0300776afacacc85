//! Numbers with units as experiments write them: `20s`, `50%`, `64m`.

use std::time::Duration;

/// `20s`, `1m30s`, `500ms`, or seconds as a plain number; `50%` is a part of `whole`.
pub(super) fn span(text: &str, whole: Duration) -> Option<Duration> {
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let part: f64 = percent.trim().parse().ok()?;
        return (0.0..=1000.0).contains(&part).then(|| whole.mul_f64(part / 100.0));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok())?
}

/// `64m`, `1.5g`, `4096`: binary multiples of bytes.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * f64::from(1_u32 << shift);
    (bytes < 9e15).then_some(bytes as u64)
}

/// `64 MiB`, `1.5 GiB`, `123 B`.
#[must_use]
pub fn format_bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value.abs() >= 100.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let whole = Duration::from_secs(20);
        let millis = |text| span(text, whole).map(|span| span.as_millis());
        assert_eq!(millis("20s"), Some(20_000));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("1.5"), Some(1500));
        assert_eq!(millis("50%"), Some(10_000));
        for wrong in ["", "x", "5q", "-1s", "%"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bytes() {
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(format_bytes(67_108_864.0), "64 MiB");
        assert_eq!(format_bytes(1.5 * 1_073_741_824.0), "1.5 GiB");
        assert_eq!(format_bytes(12.0), "12 B");
    }
}
