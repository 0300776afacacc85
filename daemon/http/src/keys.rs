//! Names of fields in requests. Go reads them whatever their case, and clients have come to rely on it (`TmpFs`, `cmd`):
//! a name that differs from a known one by its case alone is taken for that one.

use serde_json::{Map, Value};

/// The names that requests about containers, networks and volumes have.
#[rustfmt::skip]
static KNOWN: &[&str] = &[
    "Aliases", "Annotations", "ArgsEscaped", "AttachStderr", "AttachStdin", "AttachStdout", "Attachable",
    "AutoRemove", "AuxiliaryAddresses", "BindOptions", "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps", "BlkioWeight", "BlkioWeightDevice", "CapAdd", "CapDrop",
    "Capabilities", "Cgroup", "CgroupParent", "CgroupPermissions", "CgroupnsMode", "CheckDuplicate", "Cmd",
    "Config", "ConfigFrom", "ConfigOnly", "Consistency", "ConsoleSize", "Container", "ContainerIDFile",
    "Count", "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime",
    "CpuShares", "CpusetCpus", "CpusetMems", "CreateMountpoint", "DNSNames", "Data", "Detach", "DetachKeys",
    "DeviceCgroupRules", "DeviceIDs", "DeviceRequests", "Devices", "Dns", "DnsOptions", "DnsSearch",
    "Domainname", "Driver", "DriverConfig", "DriverOpts", "EnableIPv4", "EnableIPv6", "EndpointConfig",
    "EndpointID", "EndpointsConfig", "Entrypoint", "Env", "ExposedPorts", "ExtraHosts", "Force", "GID",
    "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "GroupAdd", "GwPriority", "Hard", "Healthcheck",
    "HostConfig", "HostIp", "HostPort", "Hostname", "IOMaximumBandwidth", "IOMaximumIOps", "IPAM",
    "IPAMConfig", "IPAddress", "IPPrefixLen", "IPRange", "IPv4Address", "IPv6Address", "IPv6Gateway",
    "Idmap", "Image", "ImageOptions", "Ingress", "Init", "Internal", "Interval", "IpcMode", "Isolation",
    "KernelMemory", "KernelMemoryTCP", "Labels", "LinkLocalIPs", "Links", "LogConfig", "MacAddress",
    "MaskedPaths", "MaximumRetryCount", "Memory", "MemoryReservation", "MemorySwap", "MemorySwappiness",
    "Mode", "Mounts", "Name", "NanoCpus", "Network", "NetworkDisabled", "NetworkID", "NetworkMode",
    "NetworkingConfig", "NoCopy", "NonRecursive", "OnBuild", "OomKillDisable", "OomScoreAdj", "OpenStdin",
    "Options", "Path", "PathInContainer", "PathOnHost", "PidMode", "PidsLimit", "PortBindings",
    "Privileged", "Propagation", "PublishAllPorts", "Rate", "ReadOnly", "ReadOnlyForceRecursive",
    "ReadOnlyNonRecursive", "ReadonlyPaths", "ReadonlyRootfs", "RestartPolicy", "Retries", "Runtime",
    "Scope", "SecretOptions", "SecurityOpt", "Shell", "ShmSize", "SizeBytes", "Soft", "Source",
    "StartInterval", "StartPeriod", "StdinOnce", "StopSignal", "StopTimeout", "StorageOpt", "Subnet",
    "Subpath", "Sysctls", "Target", "Test", "Timeout", "Tmpfs", "TmpfsOptions", "Tty", "Type", "UID",
    "UTSMode", "Ulimits", "User", "UsernsMode", "VolumeDriver", "VolumeOptions", "Volumes", "VolumesFrom",
    "Weight", "WorkingDir",
];

/// Fields whose own fields are named by the user.
const USERS: [&str; 13] = [
    "Annotations",
    "AuxiliaryAddresses",
    "Config",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "Labels",
    "Options",
    "PortBindings",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Gives the fields of a request the names that they are known by; whether any had another one.
pub(crate) fn make_known(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |changed, item| make_known(item) | changed),
        Value::Object(fields) => make_fields_known(fields),
        _ => false,
    }
}

fn make_fields_known(fields: &mut Map<String, Value>) -> bool {
    let renamed = |name: &String| known(name).filter(|known| known != name && !fields.contains_key(*known));
    let renamed: Vec<(String, &str)> =
        fields.keys().filter_map(|name| Some((name.clone(), renamed(name)?))).collect();
    let mut changed = !renamed.is_empty();
    for (name, known) in renamed {
        let value = fields.shift_remove(&name).unwrap_or_default();
        fields.insert(known.to_owned(), value);
    }
    for (name, value) in fields {
        match value {
            // The names below are the user's; what they name is ours again.
            Value::Object(named) if USERS.contains(&name.as_str()) => {
                changed |= named.values_mut().fold(false, |changed, value| make_known(value) | changed);
            }
            value => changed |= make_known(value),
        }
    }
    changed
}

fn known(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_have_no_case_but_users_names_do() {
        let mut request = json!({
            "image": "busybox",
            "CMD": ["env"],
            "Labels": {"name": "kept", "Image": "kept"},
            "hostConfig": {"TmpFs": {"/path": "rw"}, "portbindings": {"80/tcp": [{"hostPort": "1"}]}},
            "Unknown": {"tty": true},
        });
        assert!(make_known(&mut request));
        let meant = json!({
            "Image": "busybox",
            "Cmd": ["env"],
            "Labels": {"name": "kept", "Image": "kept"},
            "HostConfig": {"Tmpfs": {"/path": "rw"}, "PortBindings": {"80/tcp": [{"HostPort": "1"}]}},
            "Unknown": {"Tty": true},
        });
        assert_eq!(request, meant);
        assert!(!make_known(&mut request));
    }

    /// What requests are read as; what they are made of is found.
    const REQUESTS: [&str; 8] = [
        "CreateRequest",
        "UpdateRequest",
        "ExecConfig",
        "ExecStartRequest",
        "NetworkCreateRequest",
        "NetworkConnectRequest",
        "NetworkDisconnectRequest",
        "VolumeCreateRequest",
    ];

    /// The text of all types, with what is in the directories of a module.
    fn types_of(directory: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            text += &if path.is_dir() { types_of(&path) } else { fs::read_to_string(&path).unwrap() };
        }
        text
    }

    /// The declaration of a type: its fields, and those of the `strings` and `flatten` behind them.
    fn declaration<'a>(types: &'a str, name: &str) -> Option<&'a str> {
        let start = types.find(&format!("pub struct {name} {{"))?;
        let indent = types[..start].rsplit('\n').next()?;
        // The next declaration's comment, or the end of the macro.
        let ends = [format!("\n\n{indent}"), "\n}\n".to_owned()];
        let length = ends.iter().filter_map(|end| types[start..].find(end)).min()?;
        Some(&types[start..start + length])
    }

    /// The fields of a type on the wire, and of those that its fields have.
    fn fields(types: &str, name: &str, found: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        let mut below = |kind: &str, found: &mut BTreeSet<String>| {
            let kinds = kind.split(|c: char| !c.is_alphanumeric()).filter(|kind| !kind.is_empty());
            kinds.for_each(|kind| fields(types, kind, found, seen));
        };
        let alias = format!("pub type {name} = ");
        if let Some(at) = types.find(&alias) {
            below(types[at + alias.len()..].lines().next().unwrap_or_default(), found);
        }
        let Some(declaration) = declaration(types, name) else { return };
        let (mut renamed, mut flattened) = (None, false);
        for line in declaration.lines().map(str::trim) {
            flattened |= line.starts_with("flatten {");
            if let Some((_, rest)) = line.split_once("rename = \"") {
                renamed = rest.split('"').next();
            }
            let field = line.strip_prefix("pub ").and_then(|line| line.split_once(": "));
            let Some((field, kind)) = field else { continue };
            let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
            let pascal = || field.split('_').map(capital).collect();
            let on_the_wire = renamed.take().map_or_else(pascal, str::to_owned);
            if !flattened {
                found.insert(on_the_wire);
            }
            below(kind, found);
        }
    }

    #[test]
    fn every_field_of_a_request_is_known() {
        let types = types_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src"));
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for request in REQUESTS {
            assert!(declaration(&types, request).is_some(), "{request}");
            fields(&types, request, &mut found, &mut seen);
        }
        for far in ["CpusetCpus", "HostPort", "Subpath", "IPv4Address", "StartInterval", "Cmd", "Resources"] {
            assert_eq!(found.contains(far), far != "Resources", "{far}");
        }
        let known: BTreeSet<String> = KNOWN.iter().map(|&name| name.to_owned()).collect();
        let forgotten: Vec<&String> = found.difference(&known).collect();
        assert!(forgotten.is_empty(), "in a request, but not in KNOWN: {forgotten:?}");
        let gone: Vec<&String> = known.difference(&found).collect();
        assert!(gone.is_empty(), "in KNOWN, but in no request: {gone:?}");
    }
}
