//! From a tree to the model: a deserializer that remembers the way, and that takes text for numbers and back.

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor},
};

use crate::{
    load::{Fault, boolean},
    yaml::{Node, Path, Value},
};

/// Reads a part of the model from the node at `path`.
pub(crate) fn decode<'de, T: Deserialize<'de>>(node: &'de Node, path: &Path) -> Result<T, Fault> {
    T::deserialize(Decoder { node, path }).map_err(|Wrong(fault)| *fault)
}

#[derive(Debug)]
struct Wrong(Box<Fault>);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(Box::new(Fault::new(crate::yaml::Mark::default(), &Path::root(), message.to_string())))
    }
}

#[derive(Clone, Copy)]
struct Decoder<'de, 'p> {
    node: &'de Node,
    path: &'p Path,
}

impl Decoder<'_, '_> {
    fn wrong(&self, message: String) -> Wrong {
        Wrong(Box::new(Fault::new(self.node.mark, self.path, message)))
    }

    /// An error without a place happened here.
    fn place<T>(&self, result: Result<T, Wrong>) -> Result<T, Wrong> {
        result.map_err(|Wrong(mut fault)| {
            if fault.path == Path::root() {
                fault.path = self.path.clone();
                fault.mark = self.node.mark;
            }
            Wrong(fault)
        })
    }

    fn int(&self) -> Result<i64, Wrong> {
        let no = || self.wrong(format!("{:?} is not a whole number", self.node.value.to_string()));
        match &self.node.value {
            Value::Null => Ok(0),
            Value::Int(number) => Ok(*number),
            #[allow(clippy::cast_possible_truncation, reason = "whole")]
            Value::Float(number) if number.fract() == 0.0 => Ok(*number as i64),
            Value::Text(text) => text.trim().parse().map_err(|_| no()),
            _ => Err(no()),
        }
    }

    fn float(&self) -> Result<f64, Wrong> {
        match &self.node.value {
            #[allow(clippy::cast_precision_loss, reason = "as Go does")]
            Value::Int(number) => Ok(*number as f64),
            Value::Float(number) => Ok(*number),
            Value::Null => Ok(0.0),
            other => other
                .to_string()
                .parse()
                .map_err(|_| self.wrong(format!("{:?} is not a number", other.to_string()))),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.place(visitor.visit_i64(self.int()?))
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(list) => visitor.visit_seq(Items { list: list.iter().enumerate(), path: self.path }),
            Value::Map(map) => visitor.visit_map(Entries { map: map.iter(), next: None, path: self.path }),
        };
        self.place(result)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = match &self.node.value {
            Value::Bool(value) => *value,
            Value::Null => false,
            other => boolean(&other.to_string()).map_err(|message| self.wrong(message))?,
        };
        self.place(visitor.visit_bool(value))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.place(visitor.visit_f64(self.float()?))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.place(visitor.visit_f64(self.float()?))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::List(_) | Value::Map(_) => {
                Err(self.wrong(format!("must be a string, not {}", self.node.value.kind())))
            }
            scalar => self.place(visitor.visit_string(scalar.to_string())),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let list = match &self.node.value {
            Value::List(list) => list.as_slice(),
            Value::Null => &[],
            other => return Err(self.wrong(format!("must be a list, not {}", other.kind()))),
        };
        self.place(visitor.visit_seq(Items { list: list.iter().enumerate(), path: self.path }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Map(map) => {
                self.place(visitor.visit_map(Entries { map: map.iter(), next: None, path: self.path }))
            }
            Value::Null => {
                let none: [(&str, &str); 0] = [];
                self.place(visitor.visit_map(de::value::MapDeserializer::new(none.into_iter())))
            }
            other => Err(self.wrong(format!("must be a mapping, not {}", other.kind()))),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_map(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum
    }
}

struct Items<'de, 'p> {
    list: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    path: &'p Path,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, node)) = self.list.next() else { return Ok(None) };
        seed.deserialize(Decoder { node, path: &self.path.join(index.to_string()) }).map(Some)
    }
}

struct Entries<'de, 'p> {
    map: indexmap::map::Iter<'de, String, Node>,
    next: Option<(&'de str, &'de Node)>,
    path: &'p Path,
}

impl<'de> de::MapAccess<'de> for Entries<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        let Some((key, node)) = self.map.next() else { return Ok(None) };
        self.next = Some((key, node));
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (key, node) =
            self.next.take().ok_or_else(|| <Wrong as de::Error>::custom("a value without a key"))?;
        seed.deserialize(Decoder { node, path: &self.path.join(key) })
    }
}
