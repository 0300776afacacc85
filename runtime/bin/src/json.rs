//! JSON from others, with errors that say where.

use anyhow::anyhow;
use serde::de::DeserializeOwned;

/// Parses; an error has the path of the value at fault and its place in the text.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(text).map_err(|error| match path_at(text, error.line(), error.column()) {
        path if path.is_empty() => error.into(),
        path => anyhow!("{path}: {error}"),
    })
}

/// What a walk through the text is inside of.
enum Inside {
    Object(Option<String>),
    Array(usize),
}

/// The path of the value that ends, or has not ended, at this place: `mounts[1].destination`. Lines and columns are those
/// of serde_json's errors. Found by a second look at the text: a parser that knows the path at any time would be one more
/// parser of everything, and its pages those of every container.
fn path_at(text: &[u8], line: usize, column: usize) -> String {
    let begin: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut rest = &text[..text.len().min(begin + column)];
    let mut inside: Vec<Inside> = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'{' => inside.push(Inside::Object(None)),
            b'[' => inside.push(Inside::Array(0)),
            b'}' | b']' => drop(inside.pop()),
            b',' => match inside.last_mut() {
                Some(Inside::Object(key)) => *key = None,
                Some(Inside::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let length = string_length(rest);
                if let Some(Inside::Object(key @ None)) = inside.last_mut() {
                    *key = Some(String::from_utf8_lossy(&rest[..length]).into_owned());
                }
                rest = rest.get(length + 1..).unwrap_or_default();
            }
            _ => {}
        }
    }
    inside.iter().fold(String::new(), |path, step| match step {
        Inside::Object(Some(key)) if path.is_empty() => key.clone(),
        Inside::Object(Some(key)) => format!("{path}.{key}"),
        Inside::Object(None) => path,
        Inside::Array(index) => format!("{path}[{index}]"),
    })
}

/// Up to the closing quote, or to the end.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let closes = |byte: &u8| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    };
    text.iter().position(closes).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_spec::oci;

    #[track_caller]
    fn fails_at(text: &str, words: &str) {
        let told = parse::<oci::Spec>(text.as_bytes()).unwrap_err().to_string();
        assert!(told.starts_with(words), "{told}");
    }

    #[test]
    fn an_error_names_the_value() {
        fails_at(
            r#"{ "ociVersion": "1.0.2", "process": { "user": { "uid": -1, "gid": 0 }, "cwd": "/" } }"#,
            "process.user.uid: invalid value: integer `-1`",
        );
        fails_at(
            "{ \"ociVersion\": \"1.0.2\",\n \"mounts\": [{ \"destination\": \"/a\" },\n { \"destination\": 7 }] }",
            "mounts[1].destination: invalid type",
        );
        fails_at(
            r#"{ "mounts": [ { "destination": { "a": [] } } ] }"#,
            "mounts[0].destination: invalid type: map",
        );
        fails_at(r#"{ "process": { "args": "true" } }"#, "process.args: invalid type: string");
        fails_at(
            r#"{ "linux": { "namespaces": [{ "type": "moon" }] } }"#,
            "linux.namespaces[0].type: unknown variant",
        );
    }

    #[test]
    fn a_missing_field_is_told_of_its_object() {
        fails_at(r#"{ "hostname": "a", "process": { "args": ["x"] } }"#, "process: missing field");
    }

    #[test]
    fn text_that_ends_early_has_a_place_too() {
        fails_at("{", "EOF while parsing an object at line 1 column 1");
        fails_at(r#"{ "process": { "args": ["x\"}", "#, "process.args[1]: EOF");
    }
}
