//! The functions a template may call: Go's own and docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::TemplateError;
use super::eval::truth;

/// A function by its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Len,
    Slice,
    Print,
    Printf,
    Println,
    Json,
    Join,
    Split,
    Upper,
    Lower,
    Title,
    Truncate,
    Pad,
    /// Of a row's labels the one of this name: docker's `.Label "name"`.
    Label,
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "index" => Self::Index,
            "len" => Self::Len,
            "slice" => Self::Slice,
            "print" => Self::Print,
            "printf" => Self::Printf,
            "println" => Self::Println,
            "json" => Self::Json,
            "join" => Self::Join,
            "split" => Self::Split,
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "title" => Self::Title,
            "truncate" => Self::Truncate,
            "pad" => Self::Pad,
            _ => return None,
        })
    }

    /// Whether it takes something out of a map or a list.
    pub(super) fn looks_up(self) -> bool {
        matches!(self, Self::Index)
    }

    pub(super) fn call(self, arguments: &[Value]) -> Result<Value, TemplateError> {
        match self {
            Self::And => Ok(pick(arguments, |v| !truth(v))),
            Self::Or => Ok(pick(arguments, truth)),
            Self::Not => Ok(Value::Bool(!truth(argument(arguments, 0)?))),
            Self::Eq => {
                let first = argument(arguments, 0)?;
                Ok(Value::Bool(arguments[1..].iter().any(|v| order(first, v) == Some(Ordering::Equal))))
            }
            Self::Ne => compare(arguments, |o| o != Ordering::Equal),
            Self::Lt => compare(arguments, Ordering::is_lt),
            Self::Le => compare(arguments, Ordering::is_le),
            Self::Gt => compare(arguments, Ordering::is_gt),
            Self::Ge => compare(arguments, Ordering::is_ge),
            Self::Index => {
                arguments.get(1..).unwrap_or_default().iter().try_fold(argument(arguments, 0)?.clone(), index)
            }
            Self::Len => length(argument(arguments, 0)?),
            Self::Slice => slice(arguments),
            Self::Print => Ok(Value::String(arguments.iter().map(display).collect())),
            Self::Println => Ok(Value::String(words(arguments) + "\n")),
            Self::Printf => printf(arguments),
            Self::Json => {
                let value = serde_json::to_string(argument(arguments, 0)?);
                value.map(Value::String).map_err(|e| TemplateError::Render(e.to_string()))
            }
            Self::Join => {
                let Value::Array(items) = argument(arguments, 0)? else {
                    return Err(TemplateError::Render("join needs a list".into()));
                };
                let items: Vec<String> = items.iter().map(display).collect();
                Ok(Value::String(items.join(&display(argument(arguments, 1)?))))
            }
            Self::Split => {
                let text = display(argument(arguments, 0)?);
                let separator = display(argument(arguments, 1)?);
                Ok(text.split(separator.as_str()).map(|s| Value::String(s.to_owned())).collect())
            }
            Self::Upper => Ok(Value::String(display(argument(arguments, 0)?).to_uppercase())),
            Self::Lower => Ok(Value::String(display(argument(arguments, 0)?).to_lowercase())),
            Self::Title => {
                let text = display(argument(arguments, 0)?);
                let mut chars = text.chars();
                let first = chars.next().map(|c| c.to_uppercase().collect::<String>());
                Ok(Value::String(first.unwrap_or_default() + chars.as_str()))
            }
            Self::Truncate => {
                let length = number(argument(arguments, 1)?)?;
                Ok(Value::String(display(argument(arguments, 0)?).chars().take(length).collect()))
            }
            Self::Label => {
                let (labels, name) = (display(argument(arguments, 0)?), display(argument(arguments, 1)?));
                Ok(Value::String(label(&labels, &name)))
            }
            Self::Pad => {
                let (before, after) = (number(argument(arguments, 1)?)?, number(argument(arguments, 2)?)?);
                let text = display(argument(arguments, 0)?);
                Ok(Value::String(format!("{}{text}{}", " ".repeat(before), " ".repeat(after))))
            }
        }
    }
}

fn argument(arguments: &[Value], i: usize) -> Result<&Value, TemplateError> {
    arguments.get(i).ok_or_else(|| TemplateError::Render(format!("wrong number of args: want {}", i + 1)))
}

/// The first argument that `stop` holds of, else the last.
fn pick(arguments: &[Value], stop: impl Fn(&Value) -> bool) -> Value {
    arguments.iter().find(|v| stop(v)).or(arguments.last()).cloned().unwrap_or(Value::Null)
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

fn compare(arguments: &[Value], holds: impl Fn(Ordering) -> bool) -> Result<Value, TemplateError> {
    let ordering = order(argument(arguments, 0)?, argument(arguments, 1)?);
    let ordering =
        ordering.ok_or_else(|| TemplateError::Render("incompatible types for comparison".into()))?;
    Ok(Value::Bool(holds(ordering)))
}

fn index(value: Value, key: &Value) -> Result<Value, TemplateError> {
    match (value, key) {
        (Value::Object(mut map), key) => Ok(map.remove(&display(key)).unwrap_or(Value::Null)),
        (Value::Array(items), key) => {
            let i = number(key)?;
            let found = items.into_iter().nth(i);
            found
                .ok_or_else(|| TemplateError::Render(format!("error calling index: index out of range: {i}")))
        }
        (Value::Null, _) => Ok(Value::Null),
        (other, _) => {
            Err(TemplateError::Render(format!("error calling index: can't index {}", display(&other))))
        }
    }
}

fn length(value: &Value) -> Result<Value, TemplateError> {
    match value {
        Value::String(s) => Ok(s.len().into()),
        Value::Array(a) => Ok(a.len().into()),
        Value::Object(o) => Ok(o.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(TemplateError::Render(format!("error calling len: len of {}", display(other)))),
    }
}

fn slice(arguments: &[Value]) -> Result<Value, TemplateError> {
    let bounds = arguments.get(1..).unwrap_or_default().iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let text = display(argument(arguments, 0)?);
    let (from, to) = (bounds.first().copied().unwrap_or(0), bounds.get(1).copied().unwrap_or(text.len()));
    let part = text.get(from..to);
    let part = part.ok_or_else(|| TemplateError::Render("error calling slice: index out of range".into()))?;
    Ok(Value::String(part.to_owned()))
}

fn number(value: &Value) -> Result<usize, TemplateError> {
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| TemplateError::Render(format!("expected a number, not {}", display(value))))
}

fn words(values: &[Value]) -> String {
    values.iter().map(display).collect::<Vec<_>>().join(" ")
}

/// `%s %v %d %t %f %q %x %%`, with a width for padding; what they mean is Go's.
fn printf(arguments: &[Value]) -> Result<Value, TemplateError> {
    let format = display(argument(arguments, 0)?);
    let mut values = arguments[1..].iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | '+')) {
            spec.push(c);
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().unwrap_or(&Value::Null);
        let text = match (verb, value) {
            ('q', value) => format!("{:?}", display(value)),
            ('x', Value::Number(n)) => format!("{:x}", n.as_u64().unwrap_or_default()),
            ('f', Value::Number(n)) => {
                let digits = spec.split_once('.').and_then(|(_, d)| d.parse().ok()).unwrap_or(6);
                format!("{:.*}", digits, n.as_f64().unwrap_or_default())
            }
            (_, value) => display(value),
        };
        let width = spec.trim_start_matches('-').split('.').next().and_then(|w| w.parse().ok()).unwrap_or(0);
        if spec.starts_with('-') {
            out.push_str(&format!("{text:<width$}"));
        } else {
            out.push_str(&format!("{text:>width$}"));
        }
    }
    Ok(Value::String(out))
}

/// A value as Go's `%v` shows it.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Array(items) => format!("[{}]", words(items)),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(k, _)| k.as_str());
            let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k}:{}", display(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// The value of one of `a=1,b=2`; what has no `=` belongs to the value before.
fn label(labels: &str, name: &str) -> String {
    let mut value: Option<String> = None;
    for piece in labels.split(',') {
        match (piece.split_once('='), &mut value) {
            (None, Some(value)) => *value = format!("{value},{piece}"),
            (Some(_), Some(_)) => break,
            (Some((key, text)), None) if key == name => value = Some(text.to_owned()),
            _ => {}
        }
    }
    value.unwrap_or_default()
}
