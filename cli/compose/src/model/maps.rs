//! Mappings that may be written as lists, too.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::omit::Omit;

macro_rules! mapping {
    ($($(#[$meta:meta])* $name:ident: $value:ty;)*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
            #[serde(transparent)]
            pub struct $name(pub BTreeMap<String, $value>);

            impl Omit for $name {
                fn omit(&self) -> bool {
                    self.0.is_empty()
                }
            }

            impl std::ops::Deref for $name {
                type Target = BTreeMap<String, $value>;
                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }

            impl std::ops::DerefMut for $name {
                fn deref_mut(&mut self) -> &mut Self::Target {
                    &mut self.0
                }
            }
        )*
    };
}

mapping! {
    /// Names with values; a name alone has the empty value. Labels, options, sysctls.
    Pairs: String;
    /// Names with values; a name alone has none. Environments.
    Variables: Option<String>;
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries: Entries<Option<String>> = Entries::deserialize(deserializer)?;
        let entries = entries.with(|text| Some(text.to_owned())).into_iter();
        Ok(Self(entries.map(|(key, value)| (key, value.flatten().unwrap_or_default())).collect()))
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries: Entries<Option<String>> = Entries::deserialize(deserializer)?;
        let mut map = BTreeMap::new();
        for (key, value) in entries.with(|text| Some(text.to_owned())) {
            if key.ends_with(char::is_whitespace) {
                return Err(de::Error::custom(format!(
                    "environment variable {key} is declared with a trailing space"
                )));
            }
            map.insert(key, value.flatten());
        }
        Ok(Self(map))
    }
}

/// A mapping, or a list of `key=value`.
enum Entries<V> {
    Map(Vec<(String, V)>),
    List(Vec<String>),
}

impl<V> Entries<V> {
    /// The entries; those of a list with what `read` makes of the text behind `=`.
    fn with(self, read: impl Fn(&str) -> V) -> Vec<(String, Option<V>)> {
        match self {
            Self::Map(map) => map.into_iter().map(|(key, value)| (key, Some(value))).collect(),
            Self::List(list) => {
                let each = list.into_iter().map(|text| match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(read(value))),
                    None => (text, None),
                });
                each.collect()
            }
        }
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> de::Visitor<'de> for Visitor<V> {
            type Value = Entries<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping or a list of key=value")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Entries::List(Vec::new()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(Entries::Map(map))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Entries::List(list))
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

/// Host names with their addresses. Written as a sorted list of `host=address`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(pub BTreeMap<String, Vec<String>>);

impl Hosts {
    /// The lines, `host` and address joined by `separator`.
    #[must_use]
    pub fn lines(&self, separator: &str) -> Vec<String> {
        let each =
            self.0.iter().flat_map(|(host, addresses)| addresses.iter().map(move |address| (host, address)));
        let mut lines: Vec<String> =
            each.map(|(host, address)| format!("{host}{separator}{address}")).collect();
        lines.sort();
        lines
    }
}

impl Omit for Hosts {
    fn omit(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lines("=").serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        match Entries::<super::Strings>::deserialize(deserializer)? {
            Entries::Map(map) => hosts.extend(map.into_iter().map(|(host, addresses)| (host, addresses.0))),
            Entries::List(list) => {
                for line in list {
                    let Some((host, addresses)) = line.split_once('=').or_else(|| line.split_once(':'))
                    else {
                        return Err(de::Error::custom(format!(
                            "invalid additional host, missing IP: {line}"
                        )));
                    };
                    hosts.entry(host.to_owned()).or_default().extend(addresses.split(',').map(str::to_owned));
                }
            }
        }
        for (host, addresses) in &mut hosts {
            if host.is_empty() || host.contains([':', '=']) {
                return Err(de::Error::custom(format!("bad host name '{host}'")));
            }
            for address in addresses {
                if let Some(inner) = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'))
                    && !inner.is_empty()
                {
                    *address = inner.to_owned();
                }
            }
        }
        Ok(Self(hosts))
    }
}
