//! The `filters` parameter: `{"key": ["value", …]}` or `{"key": {"value": true, …}}`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Filters: every key must match; of one key's values one must (of `label` all).
///
/// Which keys there are is the business of whoever applies them; see [`Filters::unknown_key`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// The parameter is no JSON of either form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidFilters;

impl std::fmt::Display for InvalidFilters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("invalid filter")
    }
}

impl std::error::Error for InvalidFilters {}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// No filter.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the query parameter; empty is no filter.
    ///
    /// # Errors
    /// [`InvalidFilters`] if it is no JSON of either form.
    pub fn parse(text: &str) -> Result<Self, InvalidFilters> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let raw: Option<BTreeMap<String, Values>> = serde_json::from_str(text).map_err(|_| InvalidFilters)?;
        let values = |values| match values {
            Values::List(list) => list,
            Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
        };
        Ok(Self(raw.unwrap_or_default().into_iter().map(|(key, raw)| (key, values(raw))).collect()))
    }

    /// The form that daemons since API 1.22 read.
    #[must_use]
    pub fn to_json(&self) -> String {
        let object: serde_json::Map<_, _> = self
            .0
            .iter()
            .map(|(key, values)| {
                let set: serde_json::Map<_, _> =
                    values.iter().map(|value| (value.clone(), true.into())).collect();
                (key.clone(), set.into())
            })
            .collect();
        serde_json::Value::Object(object).to_string()
    }

    /// Adds a value.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let values = self.0.entry(key.into()).or_default();
        let value = value.into();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// The values of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Vec<String> {
        self.0.remove(key).unwrap_or_default()
    }

    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// The first key that is not among the known ones; docker's message for it is `invalid filter 'key'`.
    #[must_use]
    pub fn unknown_key(&self, known: &[&str]) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|key| !known.contains(key))
    }

    /// Whether the labels fulfil every `label` and no `label!` filter (`name` or `name=value`).
    #[must_use]
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let list = Filters::parse(r#"{"label":["a","b=c"]}"#).unwrap();
        let set = Filters::parse(r#"{"label":{"a":true,"b=c":true,"d":false}}"#).unwrap();
        assert_eq!(list, set);
        assert_eq!(Filters::parse(&list.to_json()).unwrap(), list);
        assert_eq!(Filters::parse("bad"), Err(InvalidFilters));
        assert_eq!(Filters::parse("").unwrap(), Filters::new());
        assert_eq!(Filters::parse("null").unwrap(), Filters::new());
    }

    #[test]
    fn labels_are_conjunctive_and_negatable() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let matches = |text| Filters::parse(text).unwrap().matches_labels(&labels);
        assert!(matches(r#"{"label":["a","b=2"]}"#));
        assert!(!matches(r#"{"label":["a","b=3"]}"#));
        assert!(!matches(r#"{"label!":["a=1"]}"#));
        assert!(matches(r#"{"label!":["a=2"]}"#));
        assert!(matches("{}"));
    }

    #[test]
    fn unknown_keys_are_named() {
        let filters = Filters::parse(r#"{"name":["x"],"bogus":["1"]}"#).unwrap();
        assert_eq!(filters.unknown_key(&["name"]), Some("bogus"));
        assert_eq!(filters.unknown_key(&["name", "bogus"]), None);
    }
}
