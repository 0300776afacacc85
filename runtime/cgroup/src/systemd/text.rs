//! Annotations `org.systemd.property.NAME` → properties. The value is written as GVariant's text format has it
//! (`uint64 5`, `'word'`, `true`, `['a', 'b']`), as far as properties of a scope need it.

use super::properties::Property;
use crate::CgroupError;
use berth_dbus::Value;

const PREFIX: &str = "org.systemd.property.";

/// The properties that annotations ask for, in order of name.
pub(crate) fn from_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>, CgroupError> {
    let mut list = Vec::new();
    for (key, text) in annotations {
        if let Some(name) = key.strip_prefix(PREFIX) {
            let field = format!("annotations[{key:?}]");
            list.push(property(name, text).map_err(|problem| CgroupError::invalid(field, problem))?);
        }
    }
    list.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(list)
}

fn property(name: &str, text: &str) -> Result<Property, String> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is no name of a systemd property"));
    }
    let value = parse(text).ok_or_else(|| {
        format!("{text:?} is no value (write 5, uint64 5, true, 'a word' or ['a', 'list'])")
    })?;
    // systemd.unit(5) has TimeoutStopSec in seconds, the bus has TimeoutStopUSec in microseconds.
    match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase())) {
        Some(stem) => {
            let micros = microseconds(&value).ok_or_else(|| format!("{text:?} is no number of seconds"))?;
            Ok((format!("{stem}USec"), Value::Uint64(micros)))
        }
        None => Ok((name.to_owned(), value)),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match seconds {
        Value::Byte(number) => u64::from(*number),
        Value::Uint16(number) => u64::from(*number),
        Value::Uint32(number) => u64::from(*number),
        Value::Uint64(number) => *number,
        Value::Int16(number) => u64::try_from(*number).ok()?,
        Value::Int32(number) => u64::try_from(*number).ok()?,
        Value::Int64(number) => u64::try_from(*number).ok()?,
        Value::Double(number) if (0.0..1e12).contains(number) => return Some((number * 1e6) as u64),
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(list) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let items = split(list)?.into_iter().map(parse).collect::<Option<Vec<_>>>()?;
        let kind = items.first()?.signature();
        return items.iter().all(|item| item.signature() == kind).then_some(Value::Array(kind, items));
    }
    if let Some((kind, rest)) = text.split_once(char::is_whitespace) {
        let rest = rest.trim();
        let typed = match kind {
            "byte" => Value::Byte(rest.parse().ok()?),
            "int16" => Value::Int16(rest.parse().ok()?),
            "uint16" => Value::Uint16(rest.parse().ok()?),
            "int32" => Value::Int32(rest.parse().ok()?),
            "uint32" => Value::Uint32(rest.parse().ok()?),
            "int64" => Value::Int64(rest.parse().ok()?),
            "uint64" => Value::Uint64(rest.parse().ok()?),
            "double" => Value::Double(rest.parse().ok()?),
            "boolean" => Value::Bool(rest.parse().ok()?),
            "string" => Value::Text(quoted(rest)?),
            "objectpath" => Value::Path(quoted(rest)?),
            _ => return quoted(text).map(Value::Text),
        };
        return Some(typed);
    }
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => quoted(text)
            .map(Value::Text)
            .or_else(|| text.parse().ok().map(Value::Int32))
            .or_else(|| text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double)),
    }
}

/// The text between quotes; a backslash takes what follows as it is.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut result = String::new();
    let mut letters = text.chars().skip(1);
    loop {
        match letters.next()? {
            '\\' => result.push(letters.next()?),
            letter if letter == quote => break,
            letter => result.push(letter),
        }
    }
    letters.next().is_none().then_some(result)
}

/// The items of a list, at commas outside of quotes.
fn split(list: &str) -> Option<Vec<&str>> {
    let mut items = Vec::new();
    let (mut start, mut quote) = (0, None);
    let mut letters = list.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            ('\\', Some(_)) => drop(letters.next()),
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (',', None) => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    quote.is_none().then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let words = ["a", "b, c"].map(Value::text).to_vec();
        for (text, expected) in [
            ("5", Value::Int32(5)),
            ("uint64 5", Value::Uint64(5)),
            ("2.5", Value::Double(2.5)),
            ("true", Value::Bool(true)),
            ("'it\\'s'", Value::text("it's")),
            ("\"two words\"", Value::text("two words")),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            ("['a', \"b, c\"]", Value::Array("s".into(), words)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for wrong in ["", "word", "'open", "'a'b", "uint64 -1", "[]", "[1, 'a']", "uint64", "nan"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(property("RuntimeMaxSec", "2"), Ok(("RuntimeMaxUSec".into(), Value::Uint64(2_000_000))));
        assert_eq!(property("TimeoutStopSec", "0.5"), Ok(("TimeoutStopUSec".into(), Value::Uint64(500_000))));
        let micros = Value::Uint64(7);
        assert_eq!(property("TimeoutStopUSec", "uint64 7"), Ok(("TimeoutStopUSec".into(), micros)));
        assert!(property("TimeoutStopSec", "'soon'").is_err());
        assert!(property("A-b", "1").is_err());
        assert!(property("ab", "1").is_err());
    }
}
