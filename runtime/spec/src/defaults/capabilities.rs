//! Docker's capabilities: the default fourteen, `--cap-add` and `--cap-drop`.

use crate::compile::capability_number;
use crate::oci::Capability;

/// What a container has unless told otherwise.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// A `--cap-add` or `--cap-drop` that names nothing, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No such capability.
    #[error("unknown capability: {0:?}")]
    Unknown(String),
    /// It exists, but not here.
    #[error("capability not supported by your kernel or not available in the current environment: {0:?}")]
    Unavailable(String),
}

/// The capabilities whose bits are set in `available` (a bounding set as in `/proc/self/status`), by number.
#[must_use]
pub fn all_capabilities(available: u64) -> Vec<Capability> {
    ALL.into_iter().filter(|capability| available & (1 << capability_number(*capability)) != 0).collect()
}

enum Named {
    All,
    One(Capability),
}

/// A container's capabilities. `available` is the bounding set of the engine.
///
/// # Errors
/// A name that is unknown or not available.
pub fn capabilities(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: u64,
) -> Result<Vec<Capability>, CapabilityError> {
    if privileged {
        return Ok(all_capabilities(available));
    }
    let drop = normalize(drop, available)?;
    let add = normalize(add, available)?;
    let names = |list: &[Named], all: &mut bool| -> Vec<Capability> {
        list.iter()
            .filter_map(|named| match named {
                Named::All => {
                    *all = true;
                    None
                }
                Named::One(capability) => Some(*capability),
            })
            .collect()
    };
    let (mut add_all, mut drop_all) = (false, false);
    let (add, drop) = (names(&add, &mut add_all), names(&drop, &mut drop_all));
    let mut result: Vec<Capability> = if add_all {
        all_capabilities(available).into_iter().filter(|capability| !drop.contains(capability)).collect()
    } else if drop_all {
        add
    } else {
        let kept = DEFAULT_CAPABILITIES.into_iter().filter(|capability| !drop.contains(capability));
        kept.chain(add).collect()
    };
    let mut seen = 0u64;
    result.retain(|capability| {
        let bit = 1 << capability_number(*capability);
        let first = seen & bit == 0;
        seen |= bit;
        first
    });
    Ok(result)
}

fn normalize(names: &[String], available: u64) -> Result<Vec<Named>, CapabilityError> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_uppercase();
            if upper == "ALL" {
                return Ok(Named::All);
            }
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            let full = format!("CAP_{short}");
            match short.parse::<Capability>() {
                Err(_) => Err(CapabilityError::Unknown(full)),
                Ok(capability) if available & (1 << capability_number(capability)) == 0 => {
                    Err(CapabilityError::Unavailable(full))
                }
                Ok(capability) => Ok(Named::One(capability)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = (1 << 41) - 1;

    fn list(add: &[&str], drop: &[&str]) -> Result<Vec<Capability>, CapabilityError> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        capabilities(&own(add), &own(drop), false, EVERY)
    }

    #[test]
    fn the_default_and_its_changes() {
        assert_eq!(list(&[], &[]).unwrap(), DEFAULT_CAPABILITIES);
        assert_eq!(list(&["net_admin"], &["ALL"]).unwrap(), [Capability::NetAdmin]);
        assert_eq!(list(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap().len(), 40);
        let changed = list(&["SYS_TIME", "CHOWN"], &["cap_kill"]).unwrap();
        assert_eq!(changed.len(), 14);
        assert!(changed.contains(&Capability::SysTime) && !changed.contains(&Capability::Kill));
    }

    #[test]
    fn names_that_are_none() {
        assert_eq!(list(&["fly"], &[]).unwrap_err().to_string(), "unknown capability: \"CAP_FLY\"");
        let without_resource = EVERY & !(1 << 24);
        assert!(capabilities(&["SYS_RESOURCE".into()], &[], false, without_resource).is_err());
        assert_eq!(capabilities(&[], &[], true, without_resource).unwrap().len(), 40);
    }
}
