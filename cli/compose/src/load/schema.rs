//! What may stand where: the Compose specification's grammar as data, and the check of a tree against it.

use super::{
    Fault,
    shapes::{FILE, Kinds, Shape},
};
use crate::yaml::{Map, Node, Path, Value, nearest};

/// Checks a whole file.
pub(crate) fn validate(node: &Node) -> Result<(), Fault> {
    check(node, &FILE, &Path::root())
}

fn kind(value: &Value) -> Kinds {
    match value {
        Value::Null => Kinds::NULL,
        Value::Bool(_) => Kinds::BOOL,
        Value::Int(_) => Kinds::INT,
        Value::Float(number) if number.fract() == 0.0 => Kinds::INT,
        Value::Float(_) => Kinds::FLOAT,
        Value::Text(_) => Kinds::TEXT,
        Value::List(_) => Kinds::LIST,
        Value::Map(_) => Kinds::MAP,
    }
}

fn check(node: &Node, shape: &Shape, path: &Path) -> Result<(), Fault> {
    if !shape.kinds().contains(kind(&node.value)) {
        let message = format!("must be {}, not {}", shape.kinds(), node.value.kind());
        return Err(Fault::new(node.mark, path, message));
    }
    match shape {
        Shape::Scalar(_) | Shape::Open => Ok(()),
        Shape::OneOf(words) => one_of(node, words, path),
        Shape::Range(kinds, first, last) => range(node, *kinds, *first, *last, path),
        Shape::PullPolicy => pull_policy(node, path),
        Shape::List { item, unique } => list(node, item, *unique, path),
        Shape::Map { value, names } => map(node, value, *names, path),
        Shape::Record { fields, required, closed } => match &node.value {
            Value::Map(map) => record(node, map, fields, required, *closed, path),
            _ => Ok(()),
        },
        Shape::Any(shapes) => {
            let fitting = shapes.iter().find(|shape| shape.kinds().contains(kind(&node.value)));
            fitting.map_or(Ok(()), |shape| check(node, shape, path))
        }
    }
}

fn one_of(node: &Node, words: &[&str], path: &Path) -> Result<(), Fault> {
    let text = node.as_text().unwrap_or_default();
    if words.contains(&text) {
        return Ok(());
    }
    let fault = Fault::new(node.mark, path, format!("{text:?} must be one of {}", words.join(", ")));
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => fault.hint(format!("did you mean {word:?}?")),
        None => fault,
    })
}

fn range(node: &Node, kinds: Kinds, first: i64, last: i64, path: &Path) -> Result<(), Fault> {
    match node.value {
        Value::Int(number) if kinds.contains(Kinds::INT) && !(first..=last).contains(&number) => {
            let bound =
                if last == i64::MAX { format!("{first} or more") } else { format!("{first} to {last}") };
            Err(Fault::new(node.mark, path, format!("{number} is out of range: {bound}")))
        }
        _ => Ok(()),
    }
}

fn pull_policy(node: &Node, path: &Path) -> Result<(), Fault> {
    const WORDS: &[&str] =
        &["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let text = node.as_text().unwrap_or_default();
    let every = text.strip_prefix("every_").is_some_and(|time| crate::model::Duration::parse(time).is_ok());
    if every { Ok(()) } else { one_of(node, WORDS, path) }
}

fn list(node: &Node, item: &Shape, unique: bool, path: &Path) -> Result<(), Fault> {
    let items = node.as_list().unwrap_or_default();
    for (index, node) in items.iter().enumerate() {
        let path = path.join(index.to_string());
        check(node, item, &path)?;
        if unique && let Some(first) = items[..index].iter().find(|other| *other == node) {
            let message =
                format!("is the same as the item in line {}; items must be unique", first.mark.line);
            return Err(Fault::new(node.mark, &path, message));
        }
    }
    Ok(())
}

fn map(node: &Node, value: &Shape, names: bool, path: &Path) -> Result<(), Fault> {
    for (key, node) in node.as_map().into_iter().flatten() {
        let path_of = path.join(key.as_str());
        let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
        if names && (key.is_empty() || !key.chars().all(allowed)) {
            let message = format!("{key:?} is no name: letters, digits and . _ - are allowed");
            return Err(Fault::new(node.mark, path, message));
        }
        check(node, value, &path_of)?;
    }
    Ok(())
}

fn record(
    node: &Node,
    map: &Map,
    fields: &[(&str, Shape)],
    required: &[&str],
    closed: bool,
    path: &Path,
) -> Result<(), Fault> {
    for (key, value) in map {
        match fields.iter().find(|(name, _)| name == key) {
            Some((_, shape)) => check(value, shape, &path.join(key.as_str()))?,
            None if key.starts_with("x-") || !closed => {}
            None => {
                let fault = Fault::new(value.mark, path, format!("unknown key {key:?}"));
                return Err(match nearest(key, fields.iter().map(|(name, _)| *name)) {
                    Some(name) => fault.hint(format!("did you mean {name:?}?")),
                    None => fault.hint("keys of your own begin with x-"),
                });
            }
        }
    }
    match required.iter().find(|name| !map.contains_key(**name)) {
        Some(name) => Err(Fault::new(node.mark, path, format!("{name:?} is missing"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let document = crate::yaml::parse(text, 0).unwrap().remove(0);
        match validate(&document.root) {
            Ok(()) => "fine".to_owned(),
            Err(fault) => {
                let hint = fault.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                format!("{}:{}: {}: {}{hint}", fault.mark.line, fault.mark.column, fault.path, fault.message)
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_place_and_remedy() {
        assert_eq!(wrong("services: {a: {image: x, ports: [80, '1:2', {target: 3}], x-y: 1}}"), "fine");
        for (text, message) in [
            (
                "services:\n  a:\n    imge: x\n",
                "3:5: services.a: unknown key \"imge\"; did you mean \"image\"?",
            ),
            ("service: {}", "1:1: : unknown key \"service\"; did you mean \"services\"?"),
            ("services:\n  a:\n    ports: x\n", "3:5: services.a.ports: must be a list, not a string"),
            ("services: {a: {tty: [1]}}", "1:16: services.a.tty: must be a boolean or a string, not a list"),
            (
                "services: {a: {depends_on: {b: {condition: service_health}}}}",
                "1:33: services.a.depends_on.b.condition: \"service_health\" must be one of service_started, \
                 service_healthy, service_completed_successfully; did you mean \"service_healthy\"?",
            ),
            (
                "services: {a: {healthcheck: {retries: x, foo: 1}}}",
                "1:42: services.a.healthcheck: unknown key \"foo\"; keys of your own begin with x-",
            ),
            (
                "services: {a: {develop: {watch: [{path: x}]}}}",
                "1:34: services.a.develop.watch[0]: \"action\" is missing",
            ),
            (
                "services: {a: {oom_score_adj: 2000}}",
                "1:16: services.a.oom_score_adj: 2000 is out of range: -1000 to 1000",
            ),
            (
                "services: {a: {cap_add: [A, A]}}",
                "1:29: services.a.cap_add[1]: is the same as the item in line 1; items must be unique",
            ),
            (
                "services: {a b: {}}",
                "1:12: services: \"a b\" is no name: letters, digits and . _ - are allowed",
            ),
            (
                "services: {a: {pull_policy: sometimes}}",
                "1:16: services.a.pull_policy: \"sometimes\" must be one of always, never, build, if_not_present, missing, refresh, daily, weekly",
            ),
            ("services: {a: {pull_policy: every_12h}}", "fine"),
        ] {
            assert_eq!(wrong(text), message);
        }
    }
}
