//! `linux.resources`: the device rules every container has, and what has no effect.

use crate::error::SpecError;
use crate::oci;
use crate::plan::SpecWarning;

use oci::LinuxDeviceType as T;

/// Type, major, minor and access of the rules a runtime appends, so that the default devices always work; nodes may be
/// made freely, they only cannot be opened (the same list as runc's).
const DEFAULT_RULES: [(T, Option<i64>, Option<i64>, &str); 11] = [
    (T::C, None, None, "m"),
    (T::B, None, None, "m"),
    (T::C, Some(1), Some(3), "rwm"),
    (T::C, Some(1), Some(8), "rwm"),
    (T::C, Some(1), Some(7), "rwm"),
    (T::C, Some(5), Some(0), "rwm"),
    (T::C, Some(1), Some(5), "rwm"),
    (T::C, Some(1), Some(9), "rwm"),
    // /dev/pts/*, /dev/ptmx, /dev/net/tun
    (T::C, Some(136), None, "rwm"),
    (T::C, Some(5), Some(2), "rwm"),
    (T::C, Some(10), Some(200), "rwm"),
];

/// The requested resources with the default device rules at the end.
pub(super) fn with_default_devices(resources: Option<&oci::LinuxResources>) -> oci::LinuxResources {
    let mut resources = resources.cloned().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.retain_mut(|rule| {
        let asked = rule.access().clone().unwrap_or_default();
        let known: String = asked.chars().filter(|letter| "rwm".contains(*letter)).collect();
        let meaningless = known.is_empty() && !asked.is_empty();
        rule.set_access(Some(known));
        !meaningless
    });
    rules.extend(DEFAULT_RULES.iter().map(|(typ, major, minor, access)| {
        let mut rule = oci::LinuxDeviceCgroup::default();
        rule.set_allow(true);
        rule.set_typ(Some(*typ));
        rule.set_major(*major);
        rule.set_minor(*minor);
        rule.set_access(Some((*access).to_owned()));
        rule
    }));
    resources.set_devices(Some(rules));
    resources
}

pub(super) fn check(linux: &oci::Linux, warnings: &mut Vec<SpecWarning>) -> Result<(), SpecError> {
    let Some(resources) = linux.resources() else { return Ok(()) };
    if resources.network().is_some() {
        super::warn(
            warnings,
            "linux.resources.network",
            "net_cls and net_prio are gone from cgroup v2; ignored",
        );
    }
    for (at, rule) in resources.devices().iter().flatten().enumerate() {
        let field = format!("linux.resources.devices[{at}]");
        if matches!(rule.typ(), Some(T::U | T::P)) {
            return Err(
                SpecError::new(format!("{field}.type"), "is no type of a device rule").hint("use a, b or c")
            );
        }
        let access = rule.access().as_deref().unwrap_or_default();
        if access.chars().any(|c| !"rwm".contains(c)) {
            let message = format!("of {access:?} only r, w and m have a meaning; the rest is left out");
            super::warn(warnings, format!("{field}.access"), message);
        }
    }
    Ok(())
}
