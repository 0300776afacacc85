//! Device nodes: those of config.json, and those every container has (config-linux.md, "Default Devices").

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::oci;
use crate::step::{DeviceKind, DeviceMethod, DeviceStep};

use super::paths;

/// Path, major and minor number of the character devices every container has.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn plan(linux: &oci::Linux, in_userns: bool) -> Result<Vec<DeviceStep>, SpecError> {
    let method = if in_userns { DeviceMethod::BindHost } else { DeviceMethod::Mknod };
    let mut devices = Vec::new();
    for (at, device) in linux.devices().iter().flatten().enumerate() {
        devices.push(one(&format!("linux.devices[{at}]"), device, method)?);
    }
    let own: Vec<PathBuf> = devices.iter().map(|device: &DeviceStep| device.path.clone()).collect();
    let missing = DEFAULT.iter().filter(|(path, ..)| !own.iter().any(|own| own == Path::new(path)));
    let mut all: Vec<_> = missing
        .map(|(path, major, minor)| DeviceStep {
            path: PathBuf::from(path),
            kind: DeviceKind::Char,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            method,
        })
        .collect();
    all.append(&mut devices);
    Ok(all)
}

fn one(field: &str, device: &oci::LinuxDevice, method: DeviceMethod) -> Result<DeviceStep, SpecError> {
    paths::absolute(&format!("{field}.path"), device.path())?;
    let kind = match device.typ() {
        oci::LinuxDeviceType::B => DeviceKind::Block,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Char,
        oci::LinuxDeviceType::P => DeviceKind::Fifo,
        oci::LinuxDeviceType::A => {
            return Err(SpecError::new(format!("{field}.type"), "\"a\" is not a type of device node")
                .hint("use c, b, u or p"));
        }
    };
    let number = |name: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| SpecError::new(format!("{field}.{name}"), format!("{value} is no device number")))
    };
    Ok(DeviceStep {
        path: paths::clean(device.path()),
        kind,
        major: number("major", device.major())?,
        minor: number("minor", device.minor())?,
        // Only permission bits: the type has its own field.
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        method,
    })
}
