//! Who has adjusted what. Two plugins must not set the same thing, unless the later one says that it takes the earlier
//! one's away.

use std::collections::BTreeMap;

use crate::adjust::marked;
use crate::api;

/// Field, entry of it (empty for a plain field) and whether what was there is taken away first.
pub(crate) type Claim = (api::Field, String, bool);

/// Who has set what, of every container.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<String, BTreeMap<(i32, String), String>>);

impl Owners {
    /// Makes a plugin the owner of what it sets, or tells with whom it is at odds.
    pub(crate) fn claim(&mut self, container: &str, plugin: &str, claims: &[Claim]) -> Result<(), String> {
        let of = self.0.entry(container.to_owned()).or_default();
        for (field, entry, taken) in claims {
            let key = (*field as i32, entry.clone());
            let other = of.get(&key).filter(|owner| *owner != plugin && !taken);
            if let Some(other) = other {
                let what = if entry.is_empty() { String::new() } else { format!(" ({entry})") };
                return Err(format!(
                    "plugins {other} and {plugin} both set {}{what} of container {container}",
                    field.as_str_name()
                ));
            }
            of.insert(key, plugin.to_owned());
        }
        Ok(())
    }

    /// As validating plugins are told.
    pub(crate) fn told(&self) -> api::OwningPlugins {
        let mut told = api::OwningPlugins::default();
        for (container, fields) in &self.0 {
            let owners = told.owners.entry(container.clone()).or_default();
            for ((field, entry), plugin) in fields {
                if entry.is_empty() {
                    owners.simple.insert(*field, plugin.clone());
                } else {
                    let of = owners.compound.entry(*field).or_default();
                    of.owners.insert(entry.clone(), plugin.clone());
                }
            }
        }
        told
    }
}

/// Entries of a list or map; those marked for removal only say that what was there may be replaced.
fn entries<'a>(
    field: api::Field,
    keys: impl Iterator<Item = &'a str> + Clone,
) -> impl Iterator<Item = Claim> {
    let removed: Vec<String> = keys.clone().filter_map(marked).map(str::to_owned).collect();
    let set = keys.filter(|key| marked(key).is_none()).map(str::to_owned);
    let mut all: Vec<Claim> = set.map(|key| (field, key.clone(), removed.contains(&key))).collect();
    let lone = removed.into_iter().filter(|key| !all.iter().any(|(_, set, _)| set == key));
    let lone: Vec<Claim> = lone.map(|key| (field, key, true)).collect();
    all.extend(lone);
    all.into_iter()
}

/// What an adjustment sets.
pub(crate) fn of_adjustment(adjust: &api::ContainerAdjustment) -> Vec<Claim> {
    use api::Field as F;
    let plain = |field, set: bool| set.then_some((field, String::new(), false));
    let mut all: Vec<Claim> =
        entries(F::Annotations, adjust.annotations.keys().map(String::as_str)).collect();
    all.extend(entries(F::Mounts, adjust.mounts.iter().map(|mount| mount.destination.as_str())));
    all.extend(entries(F::Env, adjust.env.iter().map(|variable| variable.key.as_str())));
    all.extend(entries(F::CdiDevices, adjust.cdi_devices.iter().map(|device| device.name.as_str())));
    all.extend(entries(F::Rlimits, adjust.rlimits.iter().map(|limit| limit.r#type.as_str())));
    // An empty first word: the arguments may be another plugin's.
    let replaces = adjust.args.first().is_some_and(String::is_empty);
    all.extend((!adjust.args.is_empty()).then_some((F::Args, String::new(), replaces)));
    let Some(linux) = &adjust.linux else { return all };
    all.extend(entries(F::Devices, linux.devices.iter().map(|device| device.path.as_str())));
    all.extend(entries(F::Namespace, linux.namespaces.iter().map(|namespace| namespace.r#type.as_str())));
    all.extend(entries(F::Sysctl, linux.sysctl.keys().map(String::as_str)));
    all.extend(entries(F::LinuxNetDevices, linux.net_devices.keys().map(String::as_str)));
    all.extend(plain(F::CgroupsPath, !linux.cgroups_path.is_empty()));
    all.extend(plain(F::OomScoreAdj, linux.oom_score_adj.is_some()));
    all.extend(plain(F::IoPriority, linux.io_priority.is_some()));
    all.extend(plain(F::SeccompPolicy, linux.seccomp_policy.is_some()));
    all.extend(plain(F::LinuxSched, linux.scheduler.is_some()));
    all.extend(plain(F::MemoryPolicy, linux.memory_policy.is_some()));
    if let Some(rdt) = &linux.rdt {
        let fields = [
            (F::RdtClosId, rdt.clos_id.is_some()),
            (F::RdtSchemata, rdt.schemata.is_some()),
            (F::RdtEnableMonitoring, rdt.enable_monitoring.is_some()),
        ];
        let set = fields.into_iter().filter(|(_, set)| *set || rdt.remove);
        all.extend(set.map(|(field, _)| (field, String::new(), rdt.remove)));
    }
    all.extend(linux.resources.iter().flat_map(of_resources));
    all
}

/// What limits are set.
pub(crate) fn of_resources(resources: &api::LinuxResources) -> Vec<Claim> {
    use api::Field as F;
    let memory = resources.memory.unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let plain = [
        (F::MemLimit, memory.limit.is_some()),
        (F::MemReservation, memory.reservation.is_some()),
        (F::MemSwapLimit, memory.swap.is_some()),
        (F::MemKernelLimit, memory.kernel.is_some()),
        (F::MemTcpLimit, memory.kernel_tcp.is_some()),
        (F::MemSwappiness, memory.swappiness.is_some()),
        (F::MemDisableOomKiller, memory.disable_oom_killer.is_some()),
        (F::MemUseHierarchy, memory.use_hierarchy.is_some()),
        (F::CpuShares, cpu.shares.is_some()),
        (F::CpuQuota, cpu.quota.is_some()),
        (F::CpuPeriod, cpu.period.is_some()),
        (F::CpuRealtimeRuntime, cpu.realtime_runtime.is_some()),
        (F::CpuRealtimePeriod, cpu.realtime_period.is_some()),
        (F::CpuSetCpUs, !cpu.cpus.is_empty()),
        (F::CpuSetMems, !cpu.mems.is_empty()),
        (F::PidsLimit, resources.pids.is_some()),
        (F::BlockioClass, resources.blockio_class.is_some()),
        (F::RdtClass, resources.rdt_class.is_some()),
    ];
    let set = plain.into_iter().filter(|(_, set)| *set);
    let mut all: Vec<Claim> = set.map(|(field, _)| (field, String::new(), false)).collect();
    all.extend(entries(F::HugepageLimits, resources.hugepage_limits.iter().map(|l| l.page_size.as_str())));
    all.extend(entries(F::CgroupsUnified, resources.unified.keys().map(String::as_str)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(keys: &[&str]) -> Vec<Claim> {
        of_adjustment(&api::ContainerAdjustment {
            env: keys.iter().map(|key| api::KeyValue { key: (*key).into(), value: "x".into() }).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn what_one_plugin_set_another_may_only_replace_when_it_says_so() {
        let mut owners = Owners::default();
        owners.claim("c", "00-a", &env(&["A", "B"])).unwrap();
        owners.claim("c", "00-a", &env(&["A"])).unwrap();
        let error = owners.claim("c", "10-b", &env(&["A"])).unwrap_err();
        assert_eq!(error, "plugins 00-a and 10-b both set Env (A) of container c");
        owners.claim("c", "10-b", &env(&["-A", "A"])).unwrap();
        owners.claim("other", "10-b", &env(&["B"])).unwrap();
        let told = owners.told();
        let of = &told.owners["c"].compound[&(api::Field::Env as i32)].owners;
        assert_eq!((of["A"].as_str(), of["B"].as_str()), ("10-b", "00-a"));
    }
}
