//! Which field of a JSON value is the one that a type does not take: serde says what is wrong, not always where.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Tries at most; each reads the whole value once more.
const MOST_TRIES: usize = 256;

/// The path of the field, such as `HostConfig.Binds[1]`, and what is wrong with it; none if the value is none to begin with,
/// or the field is not found.
pub(crate) fn find<T: DeserializeOwned>(value: &mut Value) -> Option<(String, String)> {
    let why = complaint::<T>(value)?;
    let mut path: Vec<Step> = Vec::new();
    let mut tries = 0;
    // What is wrong below a field goes away with it.
    while let Some(step) = steps(at(value, &path)?).into_iter().find(|step| {
        tries += 1;
        tries <= MOST_TRIES && is_relieved::<T>(value, &path, step, &why)
    }) {
        path.push(step);
    }
    (!path.is_empty()).then(|| (shown(&path), why))
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

fn complaint<T: DeserializeOwned>(value: &Value) -> Option<String> {
    T::deserialize(value).err().map(|error| error.to_string())
}

fn steps(value: &Value) -> Vec<Step> {
    match value {
        Value::Object(fields) => fields.keys().map(|name| Step::Field(name.clone())).collect(),
        Value::Array(items) => (0..items.len().min(MOST_TRIES)).map(Step::Item).collect(),
        _ => Vec::new(),
    }
}

fn child<'v>(value: &'v mut Value, step: &Step) -> Option<&'v mut Value> {
    match step {
        Step::Field(name) => value.get_mut(name),
        Step::Item(at) => value.get_mut(at),
    }
}

fn at<'v>(value: &'v mut Value, path: &[Step]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, child)
}

/// Whether without this step there would be nothing, or something else, to complain of. The value is the same again after it.
fn is_relieved<T: DeserializeOwned>(value: &mut Value, path: &[Step], step: &Step, why: &str) -> bool {
    let Some(place) = at(value, path) else { return false };
    let whole = place.clone();
    match (place, step) {
        (Value::Object(fields), Step::Field(name)) => drop(fields.shift_remove(name)),
        (Value::Array(items), Step::Item(at)) => drop(items.remove(*at)),
        _ => {}
    }
    let relieved = complaint::<T>(value).as_deref() != Some(why);
    if let Some(place) = at(value, path) {
        *place = whole;
    }
    relieved
}

fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.extend([".", name]),
            Step::Item(at) => text.push_str(&format!("[{at}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use berth_api::container::CreateRequest;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_is_found() {
        for (mut value, path, why) in [
            (
                json!({"Image": "a", "Cmd": 5}),
                "Cmd",
                "invalid type: integer `5`, expected a string or a list of strings",
            ),
            (json!({"Cmd": ["a", {}], "Tty": true}), "Cmd[1]", "invalid type: map, expected a string"),
            (json!({"HostConfig": {"Binds": "a", "Memory": 1}}), "HostConfig.Binds", "expected a sequence"),
            (
                json!({"HostConfig": {"Mounts": [{}, {"Target": 1}]}}),
                "HostConfig.Mounts[1].Target",
                "expected a string",
            ),
        ] {
            let before = value.clone();
            let (found, said) = find::<CreateRequest>(&mut value).expect("something is wrong");
            assert_eq!(found, path, "{said}");
            assert!(said.contains(why), "{said}");
            assert_eq!(value, before);
        }
        assert_eq!(find::<CreateRequest>(&mut json!({"Image": "a"})), None);
        assert_eq!(find::<CreateRequest>(&mut json!(5)), None, "there is no field");
    }
}
