//! Names of `linux.resources` that are capitalised in another way.
//!
//! Go's JSON takes `Cpus` for `cpus` and `pagesize` for `pageSize`, so configurations and limits written for runc have
//! such names. serde takes them for unknown ones, and a limit would silently not hold.

use serde_json::Value;

/// The names inside `linux.resources`, as the specification has them.
const NAMES: [&str; 48] = [
    "access",
    "allow",
    "blockIO",
    "burst",
    "checkBeforeUpdate",
    "classID",
    "cpu",
    "cpus",
    "devices",
    "disableOOMKiller",
    "hcaHandles",
    "hcaObjects",
    "hugepageLimits",
    "idle",
    "kernel",
    "kernelTCP",
    "leafWeight",
    "limit",
    "major",
    "memory",
    "mems",
    "minor",
    "name",
    "network",
    "pageSize",
    "period",
    "pids",
    "priorities",
    "priority",
    "quota",
    "rate",
    "rdma",
    "realtimePeriod",
    "realtimeRuntime",
    "reservation",
    "shares",
    "swap",
    "swappiness",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "type",
    "unified",
    "useHierarchy",
    "weight",
    "weightDevice",
    "resources",
];

/// True if the text may hold such a name: one that begins with a capital, or the one that is usually wrong.
pub(crate) fn is_suspect(text: &[u8]) -> bool {
    let mut words = text.split(|byte| *byte == b'"').skip(1).peekable();
    while let Some(word) = words.next() {
        let suspect = word.first().is_some_and(u8::is_ascii_uppercase) || word == b"pagesize";
        if suspect && words.peek().is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b':')) {
            return true;
        }
    }
    false
}

/// Corrects the names of an object and of all in it. Two objects of one name become one, as in Go; of two other values
/// the one with the exact name stays.
pub(crate) fn correct(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(correct),
        Value::Object(fields) => {
            let wrong: Vec<String> =
                fields.keys().filter(|name| !NAMES.contains(&name.as_str())).cloned().collect();
            for name in wrong {
                let right = NAMES.iter().find(|known| known.eq_ignore_ascii_case(&name));
                let Some((right, moved)) = right.and_then(|right| Some((*right, fields.remove(&name)?)))
                else {
                    continue;
                };
                match (fields.get_mut(right), moved) {
                    (Some(Value::Object(present)), Value::Object(more)) => present.extend(more),
                    (Some(_), _) => {}
                    (None, moved) => drop(fields.insert(right.to_owned(), moved)),
                }
            }
            // Names of files and of devices are the user's own.
            for (_, value) in fields.iter_mut().filter(|(name, _)| name.as_str() != "unified") {
                correct(value);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_corrected_and_files_are_not() {
        let mut limits = json!({
            "cpu": {"shares": 7, "mems": "0"},
            "CPU": {"Cpus": "0", "shares": 8},
            "HugepageLimits": [{"pagesize": "2MB", "limit": 1}],
            "unified": {"Memory": "1"},
            "pids": {"limit": 1, "Limit": 2},
        });
        correct(&mut limits);
        assert_eq!(limits["cpu"], json!({"shares": 8, "mems": "0", "cpus": "0"}));
        assert_eq!(limits["hugepageLimits"][0]["pageSize"], "2MB");
        assert_eq!(limits["unified"], json!({"Memory": "1"}));
        assert_eq!(limits["pids"]["limit"], 1);
    }

    #[test]
    fn only_names_are_suspect() {
        assert!(is_suspect(br#"{"a":{"Cpus" : "0"}}"#));
        assert!(is_suspect(br#"{"pagesize":1}"#));
        assert!(!is_suspect(br#"{"env":["PATH=/bin", "A:b"], "cpus": "CPU"}"#));
    }
}
