//! What all wire types share: the declaration macro, Go's notion of `null`, time and the empty object.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares wire structs: Go-style field names, every field defaulted when absent or `null`.
///
/// After the plain fields a struct may have `strings { … }` (fields that take one string or a list of strings)
/// and `flatten { … }` (embedded structs). `open` before `struct` keeps the field names as they are written.
macro_rules! wire {
    ($( $(#[$meta:meta])* pub struct $name:ident {
            $( $(#[$fm:meta])* pub $field:ident : $ty:ty ),* $(,)?
        }
        $( strings { $( $(#[$sm:meta])* pub $sfield:ident : $sty:ty ),* $(,)? } )?
        $( flatten { $( $(#[$em:meta])* pub $efield:ident : $ety:ty ),* $(,)? } )?
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $( $(#[$fm])* #[serde(deserialize_with = "crate::wire::null_default")] pub $field: $ty, )*
            $($( $(#[$sm])* #[serde(deserialize_with = "crate::wire::string_or_list")] pub $sfield: $sty, )*)?
            $($( $(#[$em])* #[serde(flatten)] pub $efield: $ety, )*)?
        }
    )*};
}

/// Go's decoding of `null`: leave the zero value.
pub(crate) fn null_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Text as it stands in an answer; a copy only where something in it is escaped. `null` is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    /// Whether it stands in the answer as it is.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Docker's `strslice`: `"sh"` stands for `["sh"]`.
pub(crate) fn string_or_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = list.next_element()? {
                all.push(text);
            }
            Ok(Some(all))
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// `skip_serializing_if` for Go's `omitempty` on scalars.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A Go `struct{}`: written as `{}`, read from anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer)?;
        Ok(Self)
    }
}

/// A point in time as Go prints it (RFC 3339, UTC, trimmed nanoseconds), with Go's zero value, the year 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Timestamp);

/// Seconds from the Unix epoch to 0001-01-01T00:00:00Z.
const YEAR_ONE: i64 = -62_135_596_800;

impl Time {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Whether this is Go's zero time, "never".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Time {
    fn default() -> Self {
        Self(Timestamp::from_second(YEAR_ONE).expect("the year 1 lies within jiff's range"))
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// The body of every error: `{"message": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for the user.
    pub message: String,
}

/// An answer that only names what was made (commit, exec create).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdResponse {
    /// The new object's id.
    #[serde(rename = "Id")]
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_time_is_gos() {
        assert_eq!(serde_json::to_string(&Time::default()).unwrap(), "\"0001-01-01T00:00:00Z\"");
        let parsed: Time = serde_json::from_str("\"0001-01-01T00:00:00Z\"").unwrap();
        assert!(parsed.is_zero());
    }

    #[test]
    fn time_trims_nanoseconds_as_go_does() {
        let text = "\"2026-11-21T02:42:25.69323788Z\"";
        let parsed: Time = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
    }

    #[test]
    fn empty_reads_null_and_objects() {
        let map: std::collections::BTreeMap<String, Empty> =
            serde_json::from_str(r#"{"a":{},"b":null,"c":{"x":1}}"#).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), r#"{"a":{},"b":{},"c":{}}"#);
    }
}
