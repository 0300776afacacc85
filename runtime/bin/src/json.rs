//! JSON from others, with errors that say where.

use anyhow::anyhow;
use serde::de::DeserializeOwned;

/// Parses; an error has the path of the value at fault and its place in the text.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> anyhow::Result<T> {
    // Keeping track of the path costs as much again as parsing: only for a text that is wrong.
    let plain = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let deserializer = &mut serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        Err(error) if error.path().iter().next().is_some() => {
            Err(anyhow!("{}: {}", error.path(), error.inner()))
        }
        _ => Err(plain.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_spec::oci;

    #[test]
    fn an_error_names_the_value() {
        let told = |text: &str| parse::<oci::Spec>(text.as_bytes()).unwrap_err().to_string();
        let wrong =
            r#"{ "ociVersion": "1.0.2", "process": { "user": { "uid": -1, "gid": 0 }, "cwd": "/" } }"#;
        assert!(told(wrong).starts_with("process.user.uid: invalid value: integer `-1`"), "{}", told(wrong));
        let wrong = r#"{ "ociVersion": "1.0.2", "mounts": [{ "destination": "/a" }, { "destination": 7 }] }"#;
        assert!(told(wrong).starts_with("mounts[1].destination: invalid type"), "{}", told(wrong));
        assert!(told("{").contains("line 1 column 1"), "{}", told("{"));
    }
}
