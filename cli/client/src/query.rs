//! Paths and queries, percent-encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What may stand in a path; image names carry slashes, colons and digests.
const PATH: &AsciiSet = &UNRESERVED.remove(b'/').remove(b':').remove(b'@');

/// A name within a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, PATH).to_string()
}

/// The query of a request, in the order of its making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds `key=value`.
    pub(crate) fn with(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value.as_ref(), UNRESERVED));
        self
    }

    /// Adds a number.
    pub(crate) fn number(self, key: &str, value: impl ToString) -> Self {
        self.with(key, value.to_string())
    }

    /// Adds `key=1` if it is true.
    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        if value { self.with(key, "1") } else { self }
    }

    /// Adds a text if there is one.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(key, value) }
    }

    /// Adds a number if it is not 0.
    pub(crate) fn nonzero(self, key: &str, value: i64) -> Self {
        if value == 0 { self } else { self.number(key, value) }
    }

    /// Adds the filters if there are any.
    pub(crate) fn filters(self, filters: &berth_api::Filters) -> Self {
        if filters.is_empty() { self } else { self.with("filters", filters.to_json()) }
    }

    /// Adds a point in time if there is one, as `secs.nanos`.
    pub(crate) fn when(self, key: &str, value: Option<berth_api::when::When>) -> Self {
        match value {
            Some(at) => self.with(key, format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())),
            None => self,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let query =
            Query::new().with("a", "x y&z").flag("b", true).flag("c", false).text("d", "").nonzero("e", -1);
        assert_eq!(query.as_str(), "?a=x%20y%26z&b=1&e=-1");
        assert_eq!(segment("localhost:5000/a/b@sha256:12"), "localhost:5000/a/b@sha256:12");
        assert_eq!(segment("a b?c"), "a%20b%3Fc");
    }
}
