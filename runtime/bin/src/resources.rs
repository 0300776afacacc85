//! `update`'s flags as `linux.resources`.

use anyhow::Context;
use berth_spec::oci;
use serde_json::{Map, Value, json};

/// A patch of limits under construction: only what was given is in it.
#[derive(Default)]
pub(crate) struct Patch(Map<String, Value>);

impl Patch {
    /// Sets `group.field` if there is a value.
    pub(crate) fn set<T: Into<Value>>(&mut self, group: &str, field: &str, value: Option<T>) {
        if let Some(value) = value {
            let entry = self.0.entry(group).or_insert_with(|| json!({}));
            if let Some(fields) = entry.as_object_mut() {
                fields.insert(field.to_owned(), value.into());
            }
        }
    }

    /// True if nothing was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn build(self) -> anyhow::Result<oci::LinuxResources> {
        serde_json::from_value(Value::Object(self.0)).context("limits")
    }
}

/// A number of bytes: `-1`, or a count with k, m, g, t behind it (powers of 1024).
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 10),
        Some('m') => (&digits[..digits.len() - 1], 20),
        Some('g') => (&digits[..digits.len() - 1], 30),
        Some('t') => (&digits[..digits.len() - 1], 40),
        _ => (digits, 0),
    };
    let value: i64 = number.parse().map_err(|_| format!("{text:?} is not a number of bytes (try 512m)"))?;
    value.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_set() {
        let mut patch = Patch::default();
        patch.set("memory", "limit", Some(1 << 20));
        patch.set("cpu", "quota", None::<i64>);
        assert!(!patch.is_empty());
        let resources = patch.build().unwrap();
        assert_eq!(resources.memory().as_ref().and_then(|m| m.limit()), Some(1 << 20));
        assert!(resources.cpu().is_none());
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("-1"), Ok(-1));
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert!(bytes("lots").is_err());
        assert!(bytes("9999999999t").is_err());
    }
}
