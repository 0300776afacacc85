//! Namespaces and id maps.

use crate::error::SpecError;
use crate::oci;
use crate::plan::{IdMap, IdMaps, JoinNamespace, NamespaceKind, NamespacePlan, TimeOffset};

use super::paths;

/// The kernel's limit of lines in an id map (user_namespaces(7)).
const MAX_ID_MAPS: usize = 340;

fn kind(typ: oci::LinuxNamespaceType) -> NamespaceKind {
    use oci::LinuxNamespaceType as T;
    match typ {
        T::Mount => NamespaceKind::Mount,
        T::Cgroup => NamespaceKind::Cgroup,
        T::Uts => NamespaceKind::Uts,
        T::Ipc => NamespaceKind::Ipc,
        T::User => NamespaceKind::User,
        T::Pid => NamespaceKind::Pid,
        T::Network => NamespaceKind::Network,
        T::Time => NamespaceKind::Time,
    }
}

pub(super) fn plan(linux: &oci::Linux) -> Result<NamespacePlan, SpecError> {
    let mut plan = NamespacePlan::default();
    for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let kind = kind(namespace.typ());
        let field = format!("linux.namespaces[{at}]");
        if plan.has(kind) {
            return Err(SpecError::new(field, format!("a second {} namespace", kind.proc_name()))
                .hint("each type may occur once"));
        }
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => plan.create |= kind.clone_flag(),
            Some(path) => {
                paths::absolute(&format!("{field}.path"), path)?;
                plan.join.push(JoinNamespace { kind, path: path.clone() });
            }
        }
    }
    plan.join.sort_by_key(|join| NamespaceKind::JOIN_ORDER.iter().position(|kind| *kind == join.kind));
    plan.time_offsets = time_offsets(linux, &plan)?;
    Ok(plan)
}

fn time_offsets(linux: &oci::Linux, plan: &NamespacePlan) -> Result<Vec<TimeOffset>, SpecError> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(Vec::new());
    };
    if !plan.creates(NamespaceKind::Time) {
        return Err(SpecError::new(
            "linux.timeOffsets",
            "time namespace offsets without a new time namespace",
        )
        .hint("add {\"type\": \"time\"} to linux.namespaces"));
    }
    let mut result = Vec::new();
    for (clock, offset) in offsets {
        let clock = match clock.as_str() {
            "monotonic" => "monotonic",
            "boottime" => "boottime",
            other => {
                return Err(SpecError::new(
                    format!("linux.timeOffsets.{other}"),
                    "is no clock of a time namespace",
                )
                .hint("use monotonic or boottime"));
            }
        };
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanosecs >= 1_000_000_000 {
            return Err(SpecError::new(
                format!("linux.timeOffsets.{clock}.nanosecs"),
                format!("{nanosecs} is a second or more"),
            ));
        }
        result.push(TimeOffset { clock, secs, nanosecs });
    }
    result.sort_by_key(|offset| offset.clock);
    Ok(result)
}

pub(super) fn id_maps(linux: &oci::Linux, namespaces: &NamespacePlan) -> Result<IdMaps, SpecError> {
    let maps = IdMaps {
        uid: id_map("linux.uidMappings", linux.uid_mappings().as_deref().unwrap_or_default())?,
        gid: id_map("linux.gidMappings", linux.gid_mappings().as_deref().unwrap_or_default())?,
    };
    let created = namespaces.creates(NamespaceKind::User);
    if created && (maps.uid.is_empty() || maps.gid.is_empty()) {
        let field = if maps.uid.is_empty() { "linux.uidMappings" } else { "linux.gidMappings" };
        return Err(SpecError::new(field, "user namespaces enabled, but no mappings found")
            .hint("give at least one mapping for users and one for groups"));
    }
    if !namespaces.has(NamespaceKind::User) && !maps.is_empty() {
        return Err(SpecError::new(
            "linux.uidMappings",
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        )
        .hint("add {\"type\": \"user\"} to linux.namespaces"));
    }
    // The maps of a joined namespace are written already.
    Ok(if created { maps } else { IdMaps::default() })
}

/// One map, checked as the kernel will.
pub(super) fn id_map(field: &str, maps: &[oci::LinuxIdMapping]) -> Result<Vec<IdMap>, SpecError> {
    if maps.len() > MAX_ID_MAPS {
        return Err(SpecError::new(field, format!("{} ranges, the kernel takes {MAX_ID_MAPS}", maps.len())));
    }
    maps.iter()
        .enumerate()
        .map(|(at, map)| {
            let (container, host, size) = (map.container_id(), map.host_id(), map.size());
            if size == 0 {
                return Err(SpecError::new(format!("{field}[{at}].size"), "is 0"));
            }
            if container.checked_add(size).is_none() || host.checked_add(size).is_none() {
                return Err(SpecError::new(format!("{field}[{at}]"), "the range goes past the largest id"));
            }
            Ok(IdMap { container, host, size })
        })
        .collect()
}
