//! What the engine's things look like to a Go template, which knows their types where JSON does not: what is a map (of which
//! any key may be asked), what a struct (of which only its fields), and what is shown where nothing is.
//!
//! Source: the types of the Engine API (moby, `api/types`), as the docker CLI shows them.

use serde_json::{Map, Value, json};

use super::functions;

/// Fields whose values are maps.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "Endpoints",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "Metadata",
    "Networks",
    "Options",
    "Opts",
    "Ports",
    "Runtimes",
    "Services",
    "Status",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Fields whose values are lists, as far as they may be null.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Components",
    "Config",
    "ConsoleSize",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Layers",
    "Links",
    "MaskedPaths",
    "Mirrors",
    "Mounts",
    "OnBuild",
    "Peers",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "ServerErrors",
    "Shell",
    "Ulimits",
    "VolumesFrom",
    "Warnings",
];

/// Whether the value at the end of this path is a map.
pub(super) fn is_map(path: &[String]) -> bool {
    match path {
        [.., parent, last] if parent == "LogConfig" && last == "Config" => true,
        // Of an image: when it was tagged last.
        [last] if last == "Metadata" => false,
        [.., last] => MAPS.contains(&last.as_str()),
        [] => false,
    }
}

/// A field that things have though JSON leaves it out where there is nothing in it.
pub(super) fn left_out(of: &Map<String, Value>, before: &[String], name: &str) -> Option<Value> {
    let parent = before.last().map_or("", String::as_str);
    let image = || of.contains_key("RootFS");
    Some(match (parent, name) {
        ("", "ID") if image() || of.contains_key("IPAM") => of.get("Id")?.clone(),
        ("", "VirtualSize") if image() => json!(0),
        ("", "Parent" | "Comment" | "DockerVersion" | "Author" | "Variant" | "OsVersion" | "Container")
            if image() =>
        {
            json!("")
        }
        ("", "ContainerConfig" | "Descriptor" | "Manifests") if image() => Value::Null,
        ("", "SizeRw" | "SizeRootFs") if of.contains_key("HostConfig") => Value::Null,
        ("", "Peers" | "Services") if of.contains_key("IPAM") => Value::Null,
        ("", "Status" | "UsageData" | "ClusterVolume" | "CreatedAt") if of.contains_key("Mountpoint") => {
            Value::Null
        }
        ("", "ServerErrors" | "ClientErrors") if of.contains_key("ServerVersion") => Value::Null,
        ("State", "Health") | ("GraphDriver", "Data") => Value::Null,
        (
            "Config",
            "ArgsEscaped" | "NetworkDisabled" | "AttachStdin" | "AttachStdout" | "AttachStderr" | "Tty",
        ) => {
            json!(false)
        }
        (
            "Config",
            "MacAddress" | "StopSignal" | "Hostname" | "Domainname" | "WorkingDir" | "User" | "Image",
        ) => {
            json!("")
        }
        (
            "Config",
            "Healthcheck" | "StopTimeout" | "ExposedPorts" | "OnBuild" | "Shell" | "Labels" | "Volumes"
            | "Cmd" | "Entrypoint" | "Env",
        ) => Value::Null,
        (
            "HostConfig",
            "Annotations" | "StorageOpt" | "Tmpfs" | "Sysctls" | "Init" | "Mounts" | "PidsLimit"
            | "OomKillDisable" | "MemorySwappiness",
        ) => Value::Null,
        _ => return None,
    })
}

/// A value as Go's `%v` shows it, at the end of this path.
pub(super) fn display(value: &Value, path: &[String]) -> String {
    let Some((last, before)) = path.split_last() else { return functions::display(value) };
    let of = |key: &str, value: &Value| display(value, &[last.clone(), key.to_owned()]);
    match value {
        Value::Null if (1..=before.len()).any(|length| is_map(&path[..length])) => "<no value>".to_owned(),
        Value::Null if is_map(path) => "map[]".to_owned(),
        Value::Null if LISTS.contains(&last.as_str()) => "[]".to_owned(),
        Value::Null => "<nil>".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| display(item, path)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) if is_map(path) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key}:{}", of(key, value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Object(map) => {
            let values: Vec<_> = map.iter().map(|(key, value)| of(key, value)).collect();
            format!("{{{}}}", values.join(" "))
        }
        other => functions::display(other),
    }
}
