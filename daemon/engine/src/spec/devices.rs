//! Devices of the host in a container: nodes and cgroup rules.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use berth_api::container::{DeviceMapping, HostConfig};
use berth_spec::oci;

use crate::error::{EngineError, Result};

/// Nodes to make and rules to set.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<oci::LinuxDevice>,
    pub(crate) rules: Vec<oci::LinuxDeviceCgroup>,
}

/// Below /dev, but made by the runtime itself.
const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".udev"];

/// What `Devices`, `DeviceCgroupRules` and `Privileged` ask for.
pub(crate) fn collect(host: &HostConfig) -> Result<Devices> {
    let mut devices = Devices::default();
    if host.privileged {
        privileged(Path::new("/dev"), &mut devices);
    }
    for mapping in host.resources.devices.iter().flatten() {
        mapped(mapping, host.privileged, &mut devices)?;
    }
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

/// The node of the host at `path`, as it is to be at `inside`; `None` if it is no device.
pub(crate) fn node(path: &Path, inside: &Path) -> Option<oci::LinuxDevice> {
    let meta = fs::symlink_metadata(path).ok()?;
    let kind = meta.file_type();
    let typ = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => oci::LinuxDeviceType::C,
        (_, true) => oci::LinuxDeviceType::B,
        _ => return None,
    };
    let number = |value: u64| i64::try_from(value).unwrap_or(0);
    let mut device = oci::LinuxDevice::default();
    device.set_path(inside.to_owned()).set_typ(typ);
    device.set_major(number(nix::sys::stat::major(meta.rdev())));
    device.set_minor(number(nix::sys::stat::minor(meta.rdev())));
    device.set_file_mode(Some(meta.mode() & 0o7777)).set_uid(Some(meta.uid())).set_gid(Some(meta.gid()));
    Some(device)
}

/// Every device of the host; what disappears meanwhile is none.
fn privileged(dir: &Path, devices: &mut Devices) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            privileged(&path, devices);
        } else {
            devices.nodes.extend(node(&path, &path));
        }
    }
}

fn mapped(mapping: &DeviceMapping, privileged: bool, devices: &mut Devices) -> Result<()> {
    let gather = |reason: &str| {
        EngineError::invalid(format!(
            "error gathering device information while adding custom device {:?}: {reason}",
            mapping.path_on_host
        ))
    };
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    if access.bytes().any(|letter| !b"rwm".contains(&letter)) {
        return Err(EngineError::invalid(format!("invalid device mode: {access}")));
    }
    let outside = fs::canonicalize(&mapping.path_on_host).map_err(|_| gather("no such file or directory"))?;
    let inside = match mapping.path_in_container.as_str() {
        "" => Path::new(&mapping.path_on_host),
        path => Path::new(path),
    };
    let before = devices.nodes.len();
    if outside.is_dir() {
        below(&outside, inside, devices);
    } else {
        devices.nodes.extend(node(&outside, inside));
    }
    if devices.nodes.len() == before {
        return Err(gather("not a device node"));
    }
    if privileged {
        return Ok(());
    }
    for device in &devices.nodes[before..] {
        let mut rule = oci::LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(device.typ())).set_access(Some(access.to_owned()));
        rule.set_major(Some(device.major())).set_minor(Some(device.minor()));
        devices.rules.push(rule);
    }
    Ok(())
}

fn below(outside: &Path, inside: &Path, devices: &mut Devices) {
    let Ok(entries) = fs::read_dir(outside) else { return };
    for entry in entries.flatten() {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, &inside, devices);
        } else {
            devices.nodes.extend(node(&path, &inside));
        }
    }
}

/// `c 7:* rmw`
pub(crate) fn parse_rule(text: &str) -> Result<oci::LinuxDeviceCgroup> {
    let invalid = || EngineError::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = words[..] else { return Err(invalid()) };
    let typ = match kind {
        "a" => oci::LinuxDeviceType::A,
        "b" => oci::LinuxDeviceType::B,
        "c" => oci::LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| invalid()),
    };
    if access.is_empty() || access.len() > 3 || access.bytes().any(|letter| !b"rwm".contains(&letter)) {
        return Err(invalid());
    }
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(typ)).set_access(Some(access.to_owned()));
    rule.set_major(number(major)?).set_minor(number(minor)?);
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let rule = parse_rule("c 7:* rmw").unwrap();
        assert_eq!((rule.major(), rule.minor()), (Some(7), None));
        for text in ["", "c 7:*", "x 7:* r", "c 7 r", "c 7:* x", "c 7:a r", "c  7:1 r"] {
            assert!(parse_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_are_found_and_others_refused() {
        let mapping = |path: &str| DeviceMapping { path_on_host: path.into(), ..DeviceMapping::default() };
        let mut devices = Devices::default();
        mapped(&mapping("/dev/null"), false, &mut devices).unwrap();
        assert_eq!((devices.nodes[0].major(), devices.nodes[0].minor()), (1, 3));
        assert_eq!(devices.rules[0].access().as_deref(), Some("rwm"));
        let error = mapped(&mapping("/etc/passwd"), false, &mut devices).unwrap_err();
        assert!(error.message().ends_with("not a device node"));
        assert!(mapped(&mapping("/nope"), false, &mut devices).is_err());
    }
}
