//! Capability names → bits.

use crate::oci;
use crate::plan::SpecWarning;
use crate::process::{CapabilityPlan, CapabilitySet};

use oci::Capability as C;

/// The number of a capability (linux/capability.h).
pub(crate) const fn number(capability: C) -> u32 {
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

/// capabilities(7): only what is both permitted and inheritable can be ambient.
fn without_unraisable(
    plan: CapabilityPlan,
    ambient: &Option<oci::Capabilities>,
    warnings: &mut Vec<SpecWarning>,
) -> CapabilityPlan {
    let raisable = plan.permitted.0 & plan.inheritable.0;
    for capability in ambient.iter().flatten() {
        let bit = 1u64 << number(*capability);
        if plan.ambient.0 & bit != 0 && raisable & bit == 0 {
            let why = "it is not in both the permitted and the inheritable set";
            let message = format!("can't raise ambient capability CAP_{capability}: {why}");
            super::warn(warnings, "process.capabilities.ambient", message);
        }
    }
    CapabilityPlan { ambient: CapabilitySet(plan.ambient.0 & raisable), ..plan }
}

pub(super) fn plan(
    capabilities: &oci::LinuxCapabilities,
    known: Option<u64>,
    warnings: &mut Vec<SpecWarning>,
) -> CapabilityPlan {
    let known = known.unwrap_or(u64::MAX);
    let mut unknown: Vec<String> = Vec::new();
    let mut set = |names: &Option<oci::Capabilities>| {
        let mut bits = 0;
        for capability in names.iter().flatten() {
            let bit = 1u64 << number(*capability);
            if known & bit == 0 {
                unknown.push(format!("CAP_{capability}"));
            }
            bits |= bit & known;
        }
        CapabilitySet(bits)
    };
    let plan = CapabilityPlan {
        bounding: set(capabilities.bounding()),
        effective: set(capabilities.effective()),
        inheritable: set(capabilities.inheritable()),
        permitted: set(capabilities.permitted()),
        ambient: set(capabilities.ambient()),
    };
    let plan = without_unraisable(plan, capabilities.ambient(), warnings);
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        super::warn(
            warnings,
            "process.capabilities",
            format!("not available here and left out: {}", unknown.join(", ")),
        );
    }
    plan
}
