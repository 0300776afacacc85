//! Points in time as users and clients write them: `since`, `until`.
//!
//! Docker's client turns `10m` or `2026-01-02T03:04` into seconds before it asks; other clients do not, so the
//! daemon understands all of them.

use std::fmt;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// A point in time.
pub type When = Timestamp;

/// The text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTime(String);

impl fmt::Display for InvalidTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(f, "invalid timestamp {text:?}: invalid seconds {text:?}: invalid syntax")
    }
}

impl std::error::Error for InvalidTime {}

/// Parses `secs[.nanos]`, an RFC 3339 time or date (local time without zone), or a Go duration before `now`.
/// Empty and `0` are none.
///
/// # Errors
/// [`InvalidTime`] if it is none of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Option<When>, InvalidTime> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    if let Some(at) = parse_seconds(text) {
        return Ok(Some(at));
    }
    if let Some(ago) = parse_duration(text) {
        return now.checked_sub(ago).map(Some).map_err(|_| InvalidTime(text.to_owned()));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at));
    }
    let local = text.parse::<civil::DateTime>().ok().and_then(|at| at.to_zoned(TimeZone::system()).ok());
    local.map(|at| Some(at.timestamp())).ok_or_else(|| InvalidTime(text.to_owned()))
}

/// `secs[.nanos]`, where the part behind the dot has up to nine digits.
fn parse_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

/// A duration as Go writes it, `1h30m`, `1.5s`, `-10ms`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    let sign = if negative { -1.0 } else { 1.0 };
    Some(SignedDuration::from_nanos((sign * nanos) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings() {
        let now = Timestamp::from_second(10_000).unwrap();
        let at = |text: &str| parse(text, now).unwrap();
        assert_eq!(at(""), None);
        assert_eq!(at("0"), None);
        assert_eq!(at("42"), Some(Timestamp::from_second(42).unwrap()));
        assert_eq!(at("42.000000001"), Some(Timestamp::new(42, 1).unwrap()));
        assert_eq!(at("42.5"), Some(Timestamp::new(42, 500_000_000).unwrap()));
        assert_eq!(at("1970-01-01T00:01:00Z"), Some(Timestamp::from_second(60).unwrap()));
        assert_eq!(at("1h"), Some(Timestamp::from_second(6_400).unwrap()));
        let error = parse("abc", now).unwrap_err().to_string();
        assert_eq!(error, r#"invalid timestamp "abc": invalid seconds "abc": invalid syntax"#);
    }

    #[test]
    fn durations_are_gos() {
        let millis = |text: &str| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("1.5s"), Some(1_500));
        assert_eq!(millis("-10ms"), Some(-10));
        assert_eq!(millis("10"), None);
        assert_eq!(millis("10x"), None);
        assert_eq!(millis(""), None);
    }
}
