//! Resource limits of processes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::omit::Omit;

/// A resource limit: one number for both, or soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ulimit {
    /// For both; 0 if they differ.
    pub single: i64,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct SoftHard {
    #[serde(skip_serializing_if = "Omit::omit")]
    soft: i64,
    #[serde(skip_serializing_if = "Omit::omit")]
    hard: i64,
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.single != 0 {
            return serializer.serialize_i64(self.single);
        }
        SoftHard { soft: self.soft, hard: self.hard }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Ulimit;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a limit")
            }
            fn visit_i64<E: de::Error>(self, single: i64) -> Result<Ulimit, E> {
                Ok(Ulimit { single, ..Ulimit::default() })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ulimit, E> {
                text.parse()
                    .map_err(|_| E::custom(format!("{text:?} is no limit")))
                    .and_then(|n| self.visit_i64(n))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Ulimit, A::Error> {
                let SoftHard { soft, hard } =
                    SoftHard::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Ulimit { single: 0, soft, hard })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
