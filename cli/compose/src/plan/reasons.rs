//! What has changed between a container and what it should be, field by field.

use std::collections::{BTreeMap, BTreeSet};

use berth_client::api::{
    self,
    container::{ContainerInspect, CreateRequest},
    image::ImageInspect,
};
use serde_json::{Map, Value, json};

use super::Reason;
use crate::{
    labels,
    model::{Network, Volume},
};

/// What is said when only the hash tells that something has changed.
pub(super) const CONFIGURATION: &str = "its configuration has changed";

/// Fields that an engine fills in by itself, or that say nothing about the service.
const ENGINE: &[&str] = &[
    "Image",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Hostname",
    "StdinOnce",
    "Volumes",
    "ContainerIDFile",
    "ConsoleSize",
    "CgroupnsMode",
    "MaskedPaths",
    "ReadonlyPaths",
    "Isolation",
    "Runtime",
    "NetworkMode",
    "OomKillDisable",
    "MemorySwap",
    "ArgsEscaped",
    "OnBuild",
    "Shell",
    "MacAddress",
    "NetworkDisabled",
    "KernelMemory",
    "KernelMemoryTCP",
    "Links",
    "VolumesFrom",
];

/// Fields an image presets.
const OF_IMAGE: &[&str] =
    &["Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Healthcheck", "StopSignal"];

/// The fields in which the container is not what is asked for now.
pub(super) fn between(
    inspect: &ContainerInspect,
    wanted: &CreateRequest,
    image: Option<&ImageInspect>,
) -> Vec<Reason> {
    fn object(value: Result<Value, serde_json::Error>) -> Map<String, Value> {
        match value {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }
    let image = image.and_then(|image| image.config.as_ref());
    let preset = object(serde_json::to_value(image));
    let mut reasons = Vec::new();
    let before = object(serde_json::to_value(&inspect.config));
    let after = object(serde_json::to_value(&wanted.config));
    environment(&before, &after, &preset, &mut reasons);
    own_labels(&before, &after, &preset, &mut reasons);
    for (field, after) in &after {
        if ENGINE.contains(&field.as_str()) || matches!(field.as_str(), "Env" | "Labels") {
            continue;
        }
        let before = before.get(field).unwrap_or(&Value::Null);
        let preset = preset.get(field).filter(|_| OF_IMAGE.contains(&field.as_str()));
        let after = if says_nothing(after) { preset.unwrap_or(after) } else { after };
        compare(field, before, after, &mut reasons);
    }
    let before = object(serde_json::to_value(&inspect.host_config));
    // Engines never tell what a secret says, and neither do we.
    let mut wanted_host = wanted.host_config.clone();
    for mount in wanted_host.iter_mut().flat_map(|host| &mut host.mounts).flatten() {
        if let Some(options) = &mut mount.secret_options {
            options.data.clear();
        }
    }
    let after = object(serde_json::to_value(&wanted_host));
    for (field, after) in &after {
        if ENGINE.contains(&field.as_str()) || (says_nothing(after) && is_engines_default(field)) {
            continue;
        }
        compare(field, before.get(field).unwrap_or(&Value::Null), after, &mut reasons);
    }
    networks(inspect, wanted, &mut reasons);
    reasons
}

/// Fields an engine sets when the request says nothing.
fn is_engines_default(field: &str) -> bool {
    matches!(
        field,
        "ShmSize"
            | "IpcMode"
            | "LogConfig"
            | "RestartPolicy"
            | "PidsLimit"
            | "MemorySwappiness"
            | "Annotations"
            | "UsernsMode"
            | "Init"
    )
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
    }
}

/// The value with its lists of texts in order: what is a set to the engine.
fn normal(value: &Value) -> Value {
    match value {
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let sorted: BTreeSet<&str> = list.iter().filter_map(Value::as_str).collect();
            json!(sorted)
        }
        Value::Object(map) => {
            let said = map.iter().filter(|(_, value)| !says_nothing(value));
            Value::Object(said.map(|(key, value)| (key.clone(), normal(value))).collect())
        }
        other => other.clone(),
    }
}

fn compare(field: &str, before: &Value, after: &Value, reasons: &mut Vec<Reason>) {
    // Words are no set: their order says something.
    let ordered = field == "Cmd" || field == "Entrypoint";
    let equal = if ordered { before == after } else { normal(before) == normal(after) };
    let same = equal || (says_nothing(before) && says_nothing(after));
    if !same {
        reasons.push(Reason::field(field, text(before), text(after)));
    }
}

fn text(value: &Value) -> String {
    match value {
        value if says_nothing(value) => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn environment(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    preset: &Map<String, Value>,
    reasons: &mut Vec<Reason>,
) {
    fn pairs(map: &Map<String, Value>) -> BTreeMap<String, String> {
        let list = map.get("Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        list.filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
    let mut wanted = pairs(preset);
    wanted.extend(pairs(after));
    each_name("environment", &pairs(before), &wanted, reasons);
}

fn own_labels(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    preset: &Map<String, Value>,
    reasons: &mut Vec<Reason>,
) {
    fn pairs(map: &Map<String, Value>) -> BTreeMap<String, String> {
        let map = map.get("Labels").and_then(Value::as_object).into_iter().flatten();
        map.filter(|(name, _)| !name.starts_with(labels::PREFIX))
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }
    let mut wanted = pairs(preset);
    wanted.extend(pairs(after));
    each_name("labels", &pairs(before), &wanted, reasons);
}

fn each_name(
    what: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    reasons: &mut Vec<Reason>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            let said = |value: Option<&String>| value.cloned().unwrap_or_else(|| "none".to_owned());
            reasons.push(Reason::field(format!("{what}.{name}"), said(old), said(new)));
        }
    }
}

fn networks(inspect: &ContainerInspect, wanted: &CreateRequest, reasons: &mut Vec<Reason>) {
    let before: BTreeSet<&str> = inspect.network_settings.networks.keys().map(String::as_str).collect();
    let Some(config) = &wanted.networking_config else { return };
    for name in config.endpoints_config.keys().filter(|name| !before.contains(name.as_str())) {
        reasons.push(Reason::field("networks", "none", name));
    }
    for (name, endpoint) in &config.endpoints_config {
        let (Some(endpoint), Some(found)) = (endpoint, inspect.network_settings.networks.get(name)) else {
            continue;
        };
        let missing = endpoint
            .aliases
            .iter()
            .flatten()
            .filter(|alias| !found.aliases.iter().flatten().any(|there| there == *alias));
        for alias in missing {
            reasons.push(Reason::field(format!("networks.{name}.aliases"), "none", alias));
        }
    }
}

/// What has changed about a network.
pub(super) fn network(found: &api::network::Network, network: &Network) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut field = |what: &str, before: String, after: String| {
        if before != after {
            reasons.push(Reason::field(what, before, after));
        }
    };
    let driver = if network.driver.is_empty() { "bridge" } else { &network.driver };
    field("driver", found.driver.clone(), driver.to_owned());
    field("internal", found.internal.to_string(), network.internal.to_string());
    field("enable_ipv6", found.enable_ipv6.to_string(), network.enable_ipv6.unwrap_or(false).to_string());
    field("driver_opts", json!(found.options).to_string(), json!(network.driver_opts).to_string());
    if !network.ipam.config.is_empty() {
        let pools = found.ipam.config.iter().flatten().map(|pool| pool.subnet.clone());
        let wanted = network.ipam.config.iter().map(|pool| pool.subnet.clone());
        field("ipam.config", pools.collect::<Vec<_>>().join(" "), wanted.collect::<Vec<_>>().join(" "));
    }
    each_name("labels", &foreign(&found.labels), &network.labels, &mut reasons);
    or_vague(reasons)
}

/// What has changed about a volume.
pub(super) fn volume(found: &api::volume::Volume, volume: &Volume) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let driver = if volume.driver.is_empty() { "local" } else { &volume.driver };
    if found.driver != driver {
        reasons.push(Reason::field("driver", &found.driver, driver));
    }
    each_name("driver_opts", &found.options.clone().unwrap_or_default(), &volume.driver_opts, &mut reasons);
    each_name("labels", &foreign(&found.labels.clone().unwrap_or_default()), &volume.labels, &mut reasons);
    or_vague(reasons)
}

fn foreign(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels
        .iter()
        .filter(|(name, _)| !name.starts_with(labels::PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn or_vague(reasons: Vec<Reason>) -> Vec<Reason> {
    if reasons.is_empty() { vec![Reason::event(CONFIGURATION)] } else { reasons }
}
