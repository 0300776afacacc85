//! `update`'s flags as `linux.resources`, and what they come to for limits that belong together.

use anyhow::Context;
use berth_spec::oci;
use serde_json::{Map, Value, json};

/// A patch of limits under construction: only what was given is in it.
#[derive(Default)]
pub(crate) struct Patch(Map<String, Value>);

impl Patch {
    /// Sets `group.field` if there is a value.
    pub(crate) fn set<T: Into<Value>>(&mut self, group: &str, field: &str, value: Option<T>) {
        if let Some(value) = value {
            let entry = self.0.entry(group).or_insert_with(|| json!({}));
            if let Some(fields) = entry.as_object_mut() {
                fields.insert(field.to_owned(), value.into());
            }
        }
    }

    pub(crate) fn build(self) -> anyhow::Result<oci::LinuxResources> {
        berth_spec::from_tree(&Value::Object(self.0)).context("limits")
    }
}

/// What an update comes to.
#[derive(Debug)]
pub(crate) struct Change {
    /// What has to be set now: the fields given, and those that only have a meaning together with them.
    pub(crate) apply: oci::LinuxResources,
    /// All limits from now on.
    pub(crate) remember: oci::LinuxResources,
    /// What of it has no effect.
    pub(crate) warning: Option<&'static str>,
}

/// Completes the limits given by those in force: a quota means nothing without its period, nor swap without memory.
pub(crate) fn change(before: &oci::LinuxResources, given: &oci::LinuxResources) -> anyhow::Result<Change> {
    let mut all = serde_json::to_value(before).context("limits")?;
    let mut apply = serde_json::to_value(given).context("limits")?;
    // Device rules are not for update: what was granted since (to a GPU, say) would be lost.
    remove(&mut apply, &["devices"]);
    overlay(&mut all, &apply);
    if given.memory().as_ref().is_some_and(|memory| memory.limit() == Some(-1) && memory.swap().is_none()) {
        // Without a limit of memory there is none for both together.
        remove(&mut all, &["memory", "swap"]);
    }
    if given.cpu().as_ref().is_some_and(|cpu| cpu.idle().is_some() && cpu.shares().is_none()) {
        // An idle group has no weight.
        remove(&mut all, &["cpu", "shares"]);
    }
    let (idle, shares) = (apply["cpu"]["idle"].clone(), apply["cpu"]["shares"].clone());
    if idle.is_null() && !shares.is_null() && all["cpu"]["idle"] == json!(1) {
        // A weight ends idleness.
        apply["cpu"]["idle"] = json!(0);
        remove(&mut all, &["cpu", "idle"]);
    }
    let files = &apply["unified"];
    let both = (idle == json!(1) && !shares.is_null())
        || (files["cpu.idle"] == json!("1") && !files["cpu.weight"].is_null());
    let warning = both.then_some("unable to apply both a weight and cpu.idle: the weight is left out");
    for (group, fields) in [("cpu", &["quota", "period"][..]), ("memory", &["limit", "swap", "reservation"])]
    {
        let together = fields.iter().any(|field| !apply[group][field].is_null());
        for field in fields.iter().filter(|field| together && !all[group][**field].is_null()) {
            apply[group][*field] = all[group][*field].clone();
        }
    }
    let typed = |value| berth_spec::from_tree(value).context("limits");
    Ok(Change { apply: typed(&apply)?, remember: typed(&all)?, warning })
}

/// Puts one set of limits over another. Lists of devices are joined by device number.
fn overlay(below: &mut Value, above: &Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(below), Value::Array(above)) => {
            let same = |one: &Value, other: &Value| {
                ["major", "minor", "pageSize"].iter().all(|key| one.get(key) == other.get(key))
            };
            below.retain(|old| !above.iter().any(|new| same(old, new)));
            below.extend(above.iter().cloned());
        }
        (below, above) => *below = above.clone(),
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((last, groups)) = path.split_last() else { return };
    let group = groups.iter().try_fold(value, |value, key| value.get_mut(key));
    if let Some(Value::Object(group)) = group {
        group.remove(*last);
    }
}

/// A number of bytes: `-1`, or a count with k, m, g, t behind it (powers of 1024).
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 10),
        Some('m') => (&digits[..digits.len() - 1], 20),
        Some('g') => (&digits[..digits.len() - 1], 30),
        Some('t') => (&digits[..digits.len() - 1], 40),
        _ => (digits, 0),
    };
    let value: i64 = number.parse().map_err(|_| format!("{text:?} is not a number of bytes (try 512m)"))?;
    value.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_set() {
        let mut patch = Patch::default();
        patch.set("memory", "limit", Some(1 << 20));
        patch.set("cpu", "quota", None::<i64>);
        let resources = patch.build().unwrap();
        assert_eq!(resources.memory().as_ref().and_then(|m| m.limit()), Some(1 << 20));
        assert!(resources.cpu().is_none());
    }

    #[test]
    fn limits_that_belong_together_are_set_together() {
        let parse = |value: Value| serde_json::from_value::<oci::LinuxResources>(value).unwrap();
        let before = parse(json!({
            "cpu": {"shares": 512, "quota": 5000, "period": 50_000},
            "memory": {"limit": 100, "swap": 200},
            "pids": {"limit": 9},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 1}]}
        }));
        let change = |given: Value| change(&before, &parse(given)).unwrap();

        let quota = change(json!({"cpu": {"quota": 7000}}));
        assert_eq!(quota.apply, parse(json!({"cpu": {"quota": 7000, "period": 50_000}})));
        assert_eq!(quota.remember.pids(), before.pids());
        assert_eq!(quota.remember.cpu().as_ref().unwrap().shares(), Some(512));

        let memory = change(json!({"memory": {"limit": 150}}));
        assert_eq!(memory.apply, parse(json!({"memory": {"limit": 150, "swap": 200}})));
        let unlimited = change(json!({"memory": {"limit": -1}}));
        assert_eq!(unlimited.apply, parse(json!({"memory": {"limit": -1}})));
        assert_eq!(unlimited.remember.memory().as_ref().unwrap().swap(), None);

        let idle = change(json!({"cpu": {"idle": 1, "shares": 7}}));
        assert!(idle.warning.is_some() && quota.warning.is_none());
        let idle = change(json!({"cpu": {"idle": 1}}));
        assert_eq!(idle.remember.cpu().as_ref().unwrap().shares(), None);

        let throttle = json!({"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}]});
        let joined = change(json!({"blockIO": throttle, "devices": [{"allow": false}]}));
        assert!(joined.apply.devices().is_none());
        let throttles = joined.remember.block_io().as_ref().unwrap().throttle_read_bps_device();
        let rates: Vec<_> = throttles.iter().flatten().map(|device| device.rate()).collect();
        assert_eq!(rates, [1, 5]);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("-1"), Ok(-1));
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert!(bytes("lots").is_err());
        assert!(bytes("9999999999t").is_err());
    }
}
