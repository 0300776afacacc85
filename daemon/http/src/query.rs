//! Query strings, read as Go's `net/url` and docker's helpers read them.

use std::collections::BTreeMap;

use berth_api::{
    Filters,
    when::{self, When},
};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::error::{ApiError, ApiResult};

/// The parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.entry(decode(key)).or_default().push(decode(value));
        }
        Self(parameters)
    }

    /// The first value, or the empty text.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.all(key).first().map_or("", String::as_str)
    }

    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Texts that are repeated, or given as one JSON list: its items, as JSON where they are no texts.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let items = |text: &String| match serde_json::from_str::<Vec<serde_json::Value>>(text) {
            Ok(items) => items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect(),
            Err(_) => vec![text.clone()],
        };
        self.all(key).iter().filter(|text| !text.is_empty()).flat_map(items).collect()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Docker's `BoolValue`: everything is true but the few words for no.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// The same with a default for a parameter that is absent.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if !self.has(key) {
            return default;
        }
        let value = self.get(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A number; absent is `None`.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> ApiResult<Option<T>> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = || ApiError::bad_request(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
        text.parse().map(Some).map_err(|_| invalid())
    }

    /// A number that cannot be wrong: docker's `Int64ValueOrZero`.
    pub(crate) fn number_or_zero(&self, key: &str) -> i64 {
        self.get(key).parse().unwrap_or(0)
    }

    pub(crate) fn filters(&self) -> ApiResult<Filters> {
        Filters::parse(self.get("filters")).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// A point in time.
    pub(crate) fn when(&self, key: &str) -> ApiResult<Option<When>> {
        let invalid = |error| ApiError::bad_request(format!("invalid value for '{key}': {error}"));
        when::parse(self.get(key), Timestamp::now()).map_err(invalid)
    }

    /// JSON in a parameter; absent is the default.
    pub(crate) fn json<T: serde::de::DeserializeOwned + Default>(&self, key: &str) -> ApiResult<T> {
        match self.get(key) {
            "" => Ok(T::default()),
            text => serde_json::from_str::<Option<T>>(text)
                .map(Option::unwrap_or_default)
                .map_err(|error| ApiError::bad_request(format!("error reading {key}: {error}"))),
        }
    }
}

/// Decodes a form value: `+` is a blank.
fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_dockers() {
        let query = Query::parse("a=1&b=0&c=True&d=no&e=&f=none&g=yes");
        let flags: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| query.flag(key)).into();
        assert_eq!(flags, [true, false, true, false, false, false, true, false]);
        assert!(query.flag_or("h", true));
        assert!(!query.flag_or("b", true));
    }

    #[test]
    fn values_are_decoded_and_repeated() {
        let query = Query::parse("t=a%2Fb%3A1&t=c+d&limit=abc&n=5");
        assert_eq!(query.all("t"), ["a/b:1", "c d"]);
        assert_eq!(query.number::<i64>("n").unwrap(), Some(5));
        let error = query.number::<i64>("limit").unwrap_err();
        assert_eq!(error.message(), r#"strconv.Atoi: parsing "abc": invalid syntax"#);
    }

    #[test]
    fn lists_are_repeated_or_json() {
        let query = Query::parse(
            "p=%7B%22os%22:%22linux%22%7D&p=linux/arm64&q=%5B%7B%22os%22:%22linux%22%7D,%22a%22%5D&r=",
        );
        assert_eq!(query.list("p"), [r#"{"os":"linux"}"#, "linux/arm64"]);
        assert_eq!(query.list("q"), [r#"{"os":"linux"}"#, "a"]);
        assert!(query.list("r").is_empty() && query.list("s").is_empty());
    }

    #[test]
    fn times_name_their_parameter() {
        let error = Query::parse("since=abc").when("since").unwrap_err();
        let expected =
            r#"invalid value for 'since': invalid timestamp "abc": invalid seconds "abc": invalid syntax"#;
        assert_eq!(error.message(), expected);
    }
}
