//! Sizes and spans of time as people read them; the forms are docker's (`go-units`).

use jiff::Timestamp;

/// `1.13MB`, `64MiB`: `digits` significant digits, powers of `base`.
fn scaled(bytes: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut value = bytes;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// Go's `%.Ng`: at most `digits` significant digits, no trailing zeros.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 1.0 { 1 } else { value.log10().floor() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Decimal: `4.27MB`, as `images` shows sizes.
pub(crate) fn size(bytes: i64) -> String {
    scaled(bytes.max(0) as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

/// Binary: `64MiB`, as `stats` shows memory.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

/// `About a minute`, `3 hours`.
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `3 hours ago`; nothing for Go's zero time.
pub(crate) fn ago(at: Timestamp) -> String {
    if at.as_second() < 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", duration(Timestamp::now().as_second() - at.as_second()))
}

/// Local time as `ps` shows it: `2026-11-21 04:22:00 +0000 UTC`.
pub(crate) fn local(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Parses `64m`, `1.5g`, `1024`: binary multiples of bytes.
pub(crate) fn parse_memory(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => {
            return Err(format!("invalid size: '{text}' (expected a number with b, k, m or g, such as 64m)"));
        }
    };
    let number: f64 =
        number.parse().map_err(|_| format!("invalid size: '{text}' (expected a number, such as 64m)"))?;
    Ok((number * (1_i64 << shift) as f64) as i64)
}

/// The same, where `-1` means no limit.
pub(crate) fn parse_memory_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { parse_memory(text) }
}

/// Parses `0.5` processors into billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let cpus: f64 =
        text.parse().map_err(|_| format!("'{text}' is not a number of processors, such as 1.5"))?;
    if !(0.0..1e6).contains(&cpus) {
        return Err(format!("'{text}' is not a possible number of processors"));
    }
    Ok((cpus * 1e9).round() as i64)
}

/// Parses a span as Go writes it: `1m30s`, `500ms`, into nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("'{text}' is not a duration, such as 1m30s");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = &rest[end..];
        let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, scale) = units.into_iter().find(|(u, _)| rest.starts_with(u)).ok_or_else(bad)?;
        total += number * scale;
        rest = &rest[unit.len()..];
    }
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, shown) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_269_678, "4.27MB"),
            (1_234_567_890, "1.23GB"),
            (140_000_000, "140MB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(memory(64 << 20), "64MiB");
        assert_eq!(memory(1_585_152), "1.512MiB");
    }

    #[test]
    fn durations() {
        for (seconds, shown) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3700, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 21, "3 weeks"),
        ] {
            assert_eq!(duration(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn parsing() {
        assert_eq!(parse_memory("64m"), Ok(64 << 20));
        assert_eq!(parse_memory("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_memory("1024"), Ok(1024));
        assert!(parse_memory("64x").is_err() && parse_memory("m").is_err());
        assert_eq!(parse_memory_or_unlimited("-1"), Ok(-1));
        assert_eq!(parse_cpus("0.5"), Ok(500_000_000));
        assert!(parse_cpus("-1").is_err() && parse_cpus("x").is_err());
        assert_eq!(parse_duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_duration("500ms"), Ok(500_000_000));
        assert!(parse_duration("5").is_err() && parse_duration("5q").is_err());
    }
}
