//! PAX records (POSIX.1-2017, pax, "pax Extended Header").

use std::collections::BTreeMap;

use crate::tarball::TarError;

/// The records of one extended header, in order; a later one of the same key wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Parses `length key=value\n` records.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let bad = TarError::Malformed("PAX record");
        let mut records = Vec::new();
        while !bytes.is_empty() {
            // Some writers pad with zeros.
            if bytes.iter().all(|&b| b == 0) {
                break;
            }
            let space = bytes.iter().take(20).position(|&b| b == b' ');
            let Some(space) = space else { return Err(bad) };
            let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|n| n.parse::<usize>().ok());
            let Some(length) = length.filter(|&n| n > space + 2 && n <= bytes.len()) else { return Err(bad) };
            let (record, rest) = bytes.split_at(length);
            let Some((b'\n', record)) = record[space + 1..].split_last() else { return Err(bad) };
            let Some(equals) = record.iter().position(|&b| b == b'=') else { return Err(bad) };
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = rest;
        }
        Ok(Self(records))
    }

    /// Puts these records on top of others.
    pub(crate) fn over(mut self, below: &Self) -> Self {
        if below.0.is_empty() {
            return self;
        }
        let mut all = below.0.clone();
        all.append(&mut self.0);
        Self(all)
    }

    /// The value of a key. An empty value takes the record back, as POSIX says.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(k, _)| k == key.as_bytes());
        found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// A number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, TarError> {
        self.get(key)
            .map(|value| number(value).ok_or(TarError::Malformed("number in a PAX record")))
            .transpose()
    }

    /// A time, `seconds[.fraction]`.
    pub(crate) fn time(&self, key: &str) -> Result<Option<(i64, u32)>, TarError> {
        self.get(key).map(|value| time(value).ok_or(TarError::Malformed("time in a PAX record"))).transpose()
    }

    /// All extended attributes.
    pub(crate) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        // As many as a header has room for: no walk over all of them for each.
        let mut found: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for (key, value) in &self.0 {
            found.extend(key.strip_prefix(b"SCHILY.xattr.").map(|name| (name, value.as_slice())));
        }
        found.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    /// All records, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }
}

pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// Writes a time as [`time`] reads it, without trailing zeros.
pub(crate) fn format_time((seconds, nanos): (i64, u32)) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, whole, nanos) = match seconds < 0 {
        true => ("-", -(seconds + 1), 1_000_000_000 - nanos),
        false => ("", seconds, nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

/// Appends a record, whose length counts its own digits.
pub(crate) fn push_record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    while rest + length.to_string().len() > length {
        length += 1;
    }
    to.extend_from_slice(format!("{length} ").as_bytes());
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_survive() {
        for t in [(0, 0), (1, 500_000_000), (-1, 0), (-1, 1), (-2, 500_000_000), (1 << 40, 999_999_999)] {
            assert_eq!(time(format_time(t).as_bytes()), Some(t), "{t:?}");
        }
        assert_eq!(format_time((-2, 500_000_000)), "-1.5");
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(time(b"1.-5"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"6 a=b\n\n",
            b"0 a=b\n",
            b"18446744073709551616 a=b\n",
            b"5 ab\n",
        ] {
            assert!(Records::parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn records_survive(pairs in proptest::collection::vec(("[a-zA-Z.]{1,120}", proptest::collection::vec(any::<u8>(), 1..1100)), 0..5)) {
            let mut bytes = Vec::new();
            for (key, value) in &pairs {
                push_record(&mut bytes, key.as_bytes(), value);
            }
            let read = Records::parse(&bytes).unwrap();
            let read: Vec<_> = read.iter().map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
