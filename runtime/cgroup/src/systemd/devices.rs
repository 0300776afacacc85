//! Device rules of `linux.resources` → DevicePolicy and DeviceAllow, for cgroup version 1.
//!
//! There systemd owns `devices.allow`: each time it touches the unit it writes the rules it knows. (On version 2 the
//! rules are a BPF program of ours beside systemd's, which it leaves alone as long as it has no rules itself.)

use berth_dbus::Value;
use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::properties::Property;

/// Type letter, major and minor; `None` is any.
type Device = (char, Option<i64>, Option<i64>);

/// A policy of nothing but what is listed, or of everything.
pub(crate) fn properties(rules: &[LinuxDeviceCgroup]) -> Vec<Property> {
    if rules.is_empty() {
        return Vec::new();
    }
    let (policy, allowed) = match evaluate(rules) {
        Verdict::Everything => ("auto", Vec::new()),
        Verdict::Only(allowed) => ("strict", allowed.iter().filter_map(entry).collect()),
        // systemd has no way to say "all but these". It refuses all; the plan writes the rules as they are.
        Verdict::AllBut => ("strict", Vec::new()),
    };
    let list = |items| ("DeviceAllow".to_owned(), Value::Array("(ss)".into(), items));
    // An empty list first: what is set is added to what was there.
    let mut properties = vec![list(Vec::new()), ("DevicePolicy".to_owned(), Value::text(policy))];
    if !allowed.is_empty() {
        properties.push(list(allowed));
    }
    properties
}

enum Verdict {
    Everything,
    Only(BTreeMap<Device, String>),
    AllBut,
}

/// Applies the rules in order, as the kernel does.
fn evaluate(rules: &[LinuxDeviceCgroup]) -> Verdict {
    let mut everything = false;
    let mut exceptions: BTreeMap<Device, String> = BTreeMap::new();
    for rule in rules {
        let number = |number: Option<i64>| number.filter(|number| *number >= 0);
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => {
                everything = rule.allow();
                exceptions.clear();
                continue;
            }
            Some(LinuxDeviceType::B) => 'b',
            Some(_) => 'c',
        };
        let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        let device = (kind, number(rule.major()), number(rule.minor()));
        let known = exceptions.entry(device).or_default();
        if rule.allow() == everything {
            known.retain(|letter| !access.contains(letter));
        } else {
            let more: Vec<char> = access.chars().filter(|letter| !known.contains(*letter)).collect();
            known.extend(more);
        }
    }
    exceptions.retain(|_, access| !access.is_empty());
    match (everything, exceptions.is_empty()) {
        (true, true) => Verdict::Everything,
        (true, false) => Verdict::AllBut,
        (false, _) => Verdict::Only(exceptions),
    }
}

/// systemd.resource-control(5), "DeviceAllow": a path, or a group such as `char-136`.
fn entry((device, access): (&Device, &String)) -> Option<Value> {
    let group = if device.0 == 'b' { "block" } else { "char" };
    let path = match (device.1, device.2) {
        (Some(major), Some(minor)) => format!("/dev/{group}/{major}:{minor}"),
        (Some(major), None) => format!("{group}-{major}"),
        (None, None) => format!("{group}-*"),
        // One minor number of every driver cannot be said.
        (None, Some(_)) => return None,
    };
    Some(Value::Struct(vec![Value::text(path), Value::text(access)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(rules: serde_json::Value) -> String {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        let list = properties(&rules);
        let text = |value: &Value| value.as_text().unwrap_or_default().to_owned();
        list.iter().fold(String::new(), |all, (name, value)| match value {
            Value::Array(_, items) => items.iter().fold(all, |all, item| {
                let Value::Struct(parts) = item else { panic!() };
                format!("{all} {} {},", text(&parts[0]), text(&parts[1]))
            }),
            other => format!("{all}{name}={}", text(other)),
        })
    }

    #[test]
    fn rules_become_a_list_of_what_is_allowed() {
        let text = shown(json!([
            {"allow": true, "type": "c", "major": 9, "minor": 9, "access": "r"},
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"},
            {"allow": true, "type": "b", "major": 8, "access": "rwm"},
            {"allow": true, "type": "c", "minor": 5, "access": "rwm"}
        ]));
        assert_eq!(text, "DevicePolicy=strict block-8 rwm, char-* m, /dev/char/1:3 r,");
    }

    #[test]
    fn everything_and_all_but() {
        let all = json!({"allow": true, "type": "a"});
        assert_eq!(shown(json!([all])), "DevicePolicy=auto");
        let but = json!({"allow": false, "type": "c", "major": 1, "minor": 3, "access": "rwm"});
        assert_eq!(shown(json!([all, but])), "DevicePolicy=strict");
        assert_eq!(shown(json!([])), "");
    }
}
