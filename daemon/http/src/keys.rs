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
    "Config", "ConfigFrom", "ConfigOnly", "ConsoleSize", "Container", "ContainerIDFile", "Count", "CpuCount",
    "CpuPercent", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod", "CpuRealtimeRuntime", "CpuShares",
    "CpusetCpus", "CpusetMems", "CreateMountpoint", "Detach", "DetachKeys", "DeviceCgroupRules", "DeviceIDs",
    "DeviceRequests", "Devices", "Dns", "DnsOptions", "DnsSearch", "Domainname", "Driver", "DriverConfig",
    "DriverOpts", "EnableIPv4", "EnableIPv6", "EndpointConfig", "EndpointsConfig", "Entrypoint", "Env",
    "ExposedPorts", "ExtraHosts", "Force", "Gateway", "GroupAdd", "GwPriority", "Hard", "Healthcheck",
    "HostConfig", "HostIp", "HostPort", "Hostname", "IOMaximumBandwidth", "IOMaximumIOps", "IPAM",
    "IPAMConfig", "IPRange", "IPv4Address", "IPv6Address", "Image", "ImageOptions", "Ingress", "Init",
    "Internal", "Interval", "IpcMode", "Isolation", "KernelMemory", "Labels", "LinkLocalIPs", "Links",
    "LogConfig", "MacAddress", "MaskedPaths", "MaximumRetryCount", "Memory", "MemoryReservation",
    "MemorySwap", "MemorySwappiness", "Mode", "Mounts", "Name", "NanoCpus", "Network", "NetworkDisabled",
    "NetworkMode", "NetworkingConfig", "NoCopy", "NonRecursive", "OnBuild", "OomKillDisable", "OomScoreAdj",
    "OpenStdin", "Options", "Path", "PathInContainer", "PathOnHost", "PidMode", "PidsLimit", "PortBindings",
    "Privileged", "Propagation", "PublishAllPorts", "Rate", "ReadOnly", "ReadOnlyForceRecursive",
    "ReadOnlyNonRecursive", "ReadonlyPaths", "ReadonlyRootfs", "RestartPolicy", "Retries", "Runtime", "Scope",
    "SecurityOpt", "Shell", "ShmSize", "SizeBytes", "Soft", "Source", "StartInterval", "StartPeriod",
    "StdinOnce", "StopSignal", "StopTimeout", "StorageOpt", "Subnet", "Subpath", "Sysctls", "Target", "Test",
    "Timeout", "Tmpfs", "TmpfsOptions", "Tty", "Type", "UTSMode", "Ulimits", "User", "UsernsMode",
    "VolumeDriver", "VolumeOptions", "Volumes", "VolumesFrom", "Weight", "WorkingDir",
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
}
