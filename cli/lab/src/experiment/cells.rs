//! Settings of what varies, and `${name}` in the file.

use berth_yaml::{Fault, Map, Node, Path, Value, nearest};
use indexmap::IndexMap;

/// Values of names.
pub(super) type Values = IndexMap<String, Value>;

/// All combinations of the values of `vary`, the last name the fastest; one without values if nothing varies.
pub(super) fn combinations(vary: &IndexMap<String, Vec<Value>>) -> Vec<Values> {
    vary.iter().fold(vec![Values::new()], |cells, (name, values)| {
        let with = |cell: &Values, value: &Value| {
            let mut cell = cell.clone();
            cell.insert(name.clone(), value.clone());
            cell
        };
        cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect()
    })
}

/// A tree with `${name}` filled in. A scalar that is nothing but `${name}` becomes the value, number or text.
pub(super) fn fill(node: &Node, values: &Values, path: &Path) -> Result<Node, Fault> {
    let value = match &node.value {
        Value::Text(text) => text_with(text, values).map_err(|fault| at(node, path, &fault))?,
        Value::List(items) => {
            let fill = |(index, item)| fill(item, values, &path.join(usize::to_string(&index)));
            Value::List(items.iter().enumerate().map(fill).collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let fill =
                |(key, node): (&String, &Node)| Ok((key.clone(), fill(node, values, &path.join(key))?));
            Value::Map(map.iter().map(fill).collect::<Result<Map, Fault>>()?)
        }
        other => other.clone(),
    };
    Ok(Node { value, mark: node.mark })
}

/// What is wrong with a text.
struct Wrong {
    message: String,
    hint: Option<String>,
}

fn at(node: &Node, path: &Path, wrong: &Wrong) -> Fault {
    let fault = Fault::new(node.mark, path, wrong.message.clone());
    match &wrong.hint {
        Some(hint) => fault.hint(hint.clone()),
        None => fault,
    }
}

fn text_with(text: &str, values: &Values) -> Result<Value, Wrong> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find('$') {
        filled.push_str(&rest[..begin]);
        rest = &rest[begin + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').ok_or_else(|| Wrong {
                message: "`${` without `}`".to_owned(),
                hint: Some("a dollar sign itself is written $$".to_owned()),
            })?;
            let name = &inner[..end];
            let value = values.get(name).ok_or_else(|| unknown(name, values))?;
            if begin == 0 && filled.is_empty() && end + 1 == inner.len() {
                return Ok(value.clone());
            }
            filled.push_str(&value.to_string());
            rest = &inner[end + 1..];
        } else {
            // What a shell in the container expands.
            filled.push('$');
        }
    }
    filled.push_str(rest);
    Ok(Value::Text(filled))
}

fn unknown(name: &str, values: &Values) -> Wrong {
    let hint = match nearest(name, values.keys().map(String::as_str)) {
        Some(near) => format!("did you mean ${{{near}}}?"),
        None => {
            let known: Vec<&str> = values.keys().map(String::as_str).collect();
            format!(
                "known are {}; names of your own are set under vary, or by --set {name}=VALUE",
                known.join(", ")
            )
        }
    };
    Wrong { message: format!("${{{name}}} has no value"), hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values::from([("cpus".to_owned(), Value::Float(0.5)), ("n".to_owned(), Value::Int(2))])
    }

    #[test]
    fn combinations_of_two_names() {
        let vary = IndexMap::from([
            ("a".to_owned(), vec![Value::Int(1), Value::Int(2)]),
            ("b".to_owned(), vec![Value::Int(3), Value::Int(4)]),
        ]);
        let cells: Vec<String> =
            combinations(&vary).iter().map(|cell| format!("{}{}", cell["a"], cell["b"])).collect();
        assert_eq!(cells, ["13", "14", "23", "24"]);
        assert_eq!(combinations(&IndexMap::new()).len(), 1);
    }

    #[test]
    fn a_whole_scalar_keeps_its_kind() {
        let fill = |text| text_with(text, &values()).map_err(|wrong| (wrong.message, wrong.hint));
        assert_eq!(fill("${cpus}"), Ok(Value::Float(0.5)));
        assert_eq!(fill("x${n}y$$z $HOME"), Ok(Value::from("x2y$z $HOME")));
        let (message, hint) = fill("${cpu}").unwrap_err();
        assert_eq!(
            (message.as_str(), hint.as_deref()),
            ("${cpu} has no value", Some("did you mean ${cpus}?"))
        );
        assert!(fill("${cpus").is_err());
    }
}
