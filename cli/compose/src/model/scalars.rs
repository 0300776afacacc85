//! Values with a notation of their own: sizes, times, commands, modes.

use std::{fmt, time};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in bytes: `64m`, `1.5gb`, `1024`. Written as text, as docker compose does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes(pub i64);

impl Bytes {
    /// Reads a size; the units are powers of 1024.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid size: {text:?}");
        let end = text.rfind(|char: char| char.is_ascii_digit() || char == '.').ok_or_else(invalid)?;
        let (number, unit) = text.split_at(end + 1);
        let number: f64 = number.trim().parse().map_err(|_| invalid())?;
        let unit = unit.trim().to_lowercase();
        let unit = unit.strip_suffix('b').unwrap_or(&unit);
        let unit = unit.strip_suffix('i').unwrap_or(unit);
        let exponent = match unit {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(invalid()),
        };
        if number < 0.0 {
            return Err(invalid());
        }
        #[allow(clippy::cast_possible_truncation, reason = "saturates at more bytes than there are")]
        Ok(Self((number * 1024_f64.powi(exponent)) as i64))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Bytes::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A span of time: `1m30s`, `500ms`, `1d`. In nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub i64);

const UNITS: &[(&str, i64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

impl Duration {
    /// Reads a time of numbers with units.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "invalid duration {text:?}: a number with a unit (ns, us, ms, s, m, h, d, w) is expected, as in 1m30s"
            )
        };
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total = 0.0_f64;
        while !rest.is_empty() {
            let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.').ok_or_else(invalid)?;
            let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
            rest = &rest[end..];
            let end = rest.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(rest.len());
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..end]).ok_or_else(invalid)?.1;
            #[allow(clippy::cast_precision_loss, reason = "units are exact")]
            let unit = unit as f64;
            total += number * unit;
            rest = &rest[end..];
        }
        #[allow(clippy::cast_possible_truncation, reason = "saturates at 292 years")]
        let total = total.round() as i64;
        Ok(Self(if negative { -total } else { total }))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0 / 1_000_000_000
    }

    /// As the standard library's; a negative one is nothing.
    #[must_use]
    pub fn to_std(self) -> time::Duration {
        time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// As Go prints it: `1m30s`, `1.5s`, `0s`.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |nanos: u64, unit: u64| {
            let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
            let fraction = fraction.trim_end_matches('0');
            let whole = nanos / unit;
            if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let seconds = nanos / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if seconds >= 60 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", decimal(nanos % 60_000_000_000, 1_000_000_000))
            }
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// A command: words, or a line that is split into words as docker compose does it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command(pub Vec<String>);

impl Command {
    /// Splits a line. Quotes and backslashes work as in a shell; the line ends at `;`, `&`, `|`, `<` or `>`.
    ///
    /// # Errors
    /// If a quote is not closed.
    pub fn split(line: &str) -> Result<Self, String> {
        let invalid = || format!("invalid command line string: {line:?}");
        let mut words = Vec::new();
        let mut word = String::new();
        let (mut single, mut double, mut back, mut paren) = (false, false, false, false);
        let (mut escaped, mut got) = (false, false);
        for char in line.chars() {
            if escaped {
                word.push(match char {
                    't' => '\t',
                    'n' => '\n',
                    char => char,
                });
                (escaped, got) = (false, true);
                continue;
            }
            let quoted = single || double || back || paren;
            match char {
                '\\' if single => word.push('\\'),
                '\\' => escaped = true,
                ' ' | '\t' | '\r' | '\n' if quoted => word.push(char),
                ' ' | '\t' | '\r' | '\n' => {
                    if std::mem::take(&mut got) {
                        words.push(std::mem::take(&mut word));
                    }
                }
                '"' if !single && !paren => {
                    got |= double;
                    double = !double;
                }
                '\'' if !double && !paren => {
                    got |= single;
                    single = !single;
                }
                '(' if !single && !double && !back => {
                    if paren || !word.ends_with('$') {
                        return Err(invalid());
                    }
                    paren = true;
                    word.push('(');
                }
                ';' | '&' | '|' | '<' | '>' if !quoted => {
                    // A descriptor before `>` belongs to what is left out.
                    if char == '>' && word.starts_with(|first: char| first.is_ascii_digit()) {
                        got = false;
                    }
                    break;
                }
                _ => {
                    match char {
                        '`' if !single && !double && !paren => back = !back,
                        ')' if !single && !double && !back => paren = !paren,
                        _ => {}
                    }
                    got = true;
                    word.push(char);
                }
            }
        }
        if got {
            words.push(word);
        }
        if escaped || single || double || back || paren { Err(invalid()) } else { Ok(Self(words)) }
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TextOrList::deserialize(deserializer)? {
            TextOrList::Text(line) => Self::split(&line).map_err(de::Error::custom),
            TextOrList::List(words) => Ok(Self(words)),
        }
    }
}

/// Text, or a list of texts.
pub(super) enum TextOrList {
    Text(String),
    List(Vec<String>),
}

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = TextOrList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrList, E> {
                Ok(TextOrList::Text(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<TextOrList, E> {
                Ok(TextOrList::Text(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<TextOrList, E> {
                Ok(TextOrList::Text(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<TextOrList, E> {
                Ok(TextOrList::Text(crate::yaml::format_float(number)))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<TextOrList, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(TextOrList::List(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Text or a list of texts, kept as a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match TextOrList::deserialize(deserializer)? {
            TextOrList::Text(text) => vec![text],
            TextOrList::List(list) => list,
        }))
    }
}

/// The command of a health check; text is a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct HealthTest(pub Vec<String>);

impl<'de> Deserialize<'de> for HealthTest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match TextOrList::deserialize(deserializer)? {
            TextOrList::Text(line) => vec!["CMD-SHELL".to_owned(), line],
            TextOrList::List(list) => list,
        }))
    }
}

/// Permission bits; text is octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0{:o}", self.0))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FileMode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file mode")
            }
            fn visit_i64<E: de::Error>(self, mode: i64) -> Result<FileMode, E> {
                u32::try_from(mode).map(FileMode).map_err(|_| E::custom(format!("invalid mode {mode}")))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileMode, E> {
                u32::from_str_radix(text, 8)
                    .map(FileMode)
                    .map_err(|_| E::custom(format!("invalid mode {text:?}")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How many devices: a number, or `all` (-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct DeviceCount(pub i64);

impl<'de> Deserialize<'de> for DeviceCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self(-1));
        }
        let invalid = || {
            de::Error::custom(format!("invalid value {text:?}, the only value allowed is 'all' or a number"))
        };
        text.parse().map(Self).map_err(|_| invalid())
    }
}

/// A number of single precision, written as Go writes it: `2`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Float(pub f32);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[allow(clippy::cast_possible_truncation, reason = "whole and within range")]
        if self.0.fract() == 0.0 && self.0.abs() < 1e15 {
            return serializer.serialize_i64(self.0 as i64);
        }
        serializer.serialize_f32(self.0)
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f32::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = |text: &str| Bytes::parse(text).map(|bytes| bytes.0);
        assert_eq!(read("64m"), Ok(64 << 20));
        assert_eq!(read("1.5 GiB"), Ok(3 << 29));
        assert_eq!(read("1kb"), Ok(1024));
        assert_eq!(read("12"), Ok(12));
        assert!(read("x").is_err() && read("-1").is_err() && read("1xb").is_err() && read("").is_err());
    }

    #[test]
    fn times() {
        for (text, printed) in [
            ("1m30s", "1m30s"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("500ms", "500ms"),
            ("1d", "24h0m0s"),
            ("0", "0s"),
            ("1500ms", "1.5s"),
            ("1us", "1µs"),
            ("-5s", "-5s"),
        ] {
            assert_eq!(Duration::parse(text).map(|time| time.to_string()).as_deref(), Ok(printed));
        }
        assert!(
            Duration::parse("10").is_err() && Duration::parse("1x").is_err() && Duration::parse("").is_err()
        );
    }

    #[test]
    fn command_lines() {
        let split = |line: &str| Command::split(line).map(|command| command.0.join("|"));
        assert_eq!(split("sh -c 'a b' \"c d\" e\\ f").as_deref(), Ok("sh|-c|a b|c d|e f"));
        assert_eq!(split("echo a > b").as_deref(), Ok("echo|a"));
        assert_eq!(split("echo 2>b").as_deref(), Ok("echo"));
        assert_eq!(split("echo '' x").as_deref(), Ok("echo||x"));
        assert_eq!(split("echo 'a\\n'").as_deref(), Ok("echo|a\\n"));
        assert_eq!(split("  ").as_deref(), Ok(""));
        assert!(split("echo 'a").is_err() && split("a(b").is_err());
    }
}
