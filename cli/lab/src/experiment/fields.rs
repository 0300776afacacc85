//! Reading the fields of a mapping: each is taken once, and what nobody took is a mistake with a suggestion.

use std::cell::RefCell;
use std::time::Duration;

use berth_yaml::{Fault, Map, Node, Path, Value, nearest};

use super::quantity;

/// A mapping that is being read.
pub(super) struct Fields<'a> {
    node: &'a Node,
    map: &'a Map,
    path: Path,
    /// Names that were asked for: those the mapping may have.
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(node: &'a Node, path: &Path) -> Result<Self, Fault> {
        let map = node.as_map().ok_or_else(|| wrong_kind(node, path, "a mapping"))?;
        Ok(Self { node, map, path: path.clone(), known: RefCell::default() })
    }

    pub(super) fn path_of(&self, name: &str) -> Path {
        self.path.join(name)
    }

    /// A field, if it is there and not null.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(name);
        self.map.get(name).filter(|node| !node.is_null())
    }

    /// A fault of a field, or of the whole mapping if it does not have that field.
    pub(super) fn fault(&self, name: &str, message: impl Into<String>) -> Fault {
        match self.map.get(name) {
            Some(node) => Fault::new(node.mark, &self.path_of(name), message),
            None => Fault::new(self.node.mark, &self.path, message),
        }
    }

    /// Refuses what was not asked for.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let known = self.known.borrow();
        let Some((key, node)) = self.map.iter().find(|(key, _)| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let fault = Fault::new(node.mark, &self.path, format!("unknown key {key:?}"));
        Err(match nearest(key, known.iter().copied()) {
            Some(name) => fault.hint(format!("did you mean {name:?}?")),
            None => fault.hint(format!("known here are {}", known.join(", "))),
        })
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(node) = self.get(name) else { return Ok(None) };
        match parse(&node.value) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong_kind(node, &self.path_of(name), expected)),
        }
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, Fault> {
        self.parsed(name, "a text", scalar)
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<f64>, Fault> {
        self.parsed(name, "a number", number)
    }

    pub(super) fn whole(&self, name: &'static str) -> Result<Option<i64>, Fault> {
        self.parsed(name, "a whole number", |value| match value {
            Value::Int(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(super) fn bytes(&self, name: &'static str) -> Result<Option<u64>, Fault> {
        self.parsed(name, "a number of bytes, such as 64m", |value| quantity::parse_bytes(&scalar(value)?))
    }

    pub(super) fn span(&self, name: &'static str, whole: Duration) -> Result<Option<Duration>, Fault> {
        self.parsed(name, "a time, such as 20s, or a part of the duration, such as 50%", |value| {
            quantity::span(&scalar(value)?, whole)
        })
    }

    /// Texts; one alone need not be a list.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, Fault> {
        let texts = self.parsed(name, "a list of texts", |value| match value {
            Value::List(items) => items.iter().map(|item| scalar(&item.value)).collect(),
            value => Some(vec![scalar(value)?]),
        })?;
        Ok(texts.unwrap_or_default())
    }
}

/// A scalar as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::List(_) | Value::Map(_) => None,
        scalar => Some(scalar.to_string()),
    }
}

/// A scalar as a number.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
        Value::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

pub(super) fn wrong_kind(node: &Node, path: &Path, expected: &str) -> Fault {
    let found = match &node.value {
        scalar @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_)) => {
            format!("{:?}", scalar.to_string())
        }
        other => other.kind().to_owned(),
    };
    Fault::new(node.mark, path, format!("must be {expected}, not {found}"))
}
