//! Limits: as plugins, as the engine and as config.json have them.

use berth_engine::PodResources;
use serde_json::{Value, json};

use crate::api;

/// A change of a container that exists. Only what the engine can change while a container runs.
pub(crate) fn change(wanted: &api::LinuxResources) -> PodResources {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let memory = wanted.memory.unwrap_or_default();
    let cpu = wanted.cpu.clone().unwrap_or_default();
    PodResources {
        cpu_period: cpu.period.map_or(0, |period| signed(period.value)),
        cpu_quota: cpu.quota.map_or(0, |quota| quota.value),
        cpu_shares: cpu.shares.map_or(0, |shares| signed(shares.value)),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        memory: memory.limit.map_or(0, |limit| limit.value),
        memory_swap: memory.swap.map_or(0, |limit| limit.value),
        memory_reservation: memory.reservation.map_or(0, |limit| limit.value),
        pids: wanted.pids.map_or(0, |pids| pids.limit),
        hugepages: wanted
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: wanted.unified.clone(),
        ..PodResources::default()
    }
}

/// A change as plugins are told.
pub(crate) fn told(change: &PodResources) -> api::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(api::OptionalInt64 { value });
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value != 0);
    api::LinuxResources {
        memory: Some(api::LinuxMemory {
            limit: signed(change.memory),
            swap: signed(change.memory_swap),
            reservation: signed(change.memory_reservation),
            ..Default::default()
        }),
        cpu: Some(api::LinuxCpu {
            shares: unsigned(change.cpu_shares).map(|value| api::OptionalUInt64 { value }),
            quota: signed(change.cpu_quota),
            period: unsigned(change.cpu_period).map(|value| api::OptionalUInt64 { value }),
            cpus: change.cpuset_cpus.clone(),
            mems: change.cpuset_mems.clone(),
            ..Default::default()
        }),
        hugepage_limits: change
            .hugepages
            .iter()
            .map(|(size, limit)| api::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: change.unified.clone(),
        pids: (change.pids != 0).then_some(api::LinuxPids { limit: change.pids }),
        ..Default::default()
    }
}

/// What a later word says replaces what an earlier one said.
pub(crate) fn over(earlier: PodResources, later: PodResources) -> PodResources {
    let number = |old, new| if new == 0 { old } else { new };
    let text = |old, new: String| if new.is_empty() { old } else { new };
    PodResources {
        cpu_period: number(earlier.cpu_period, later.cpu_period),
        cpu_quota: number(earlier.cpu_quota, later.cpu_quota),
        cpu_shares: number(earlier.cpu_shares, later.cpu_shares),
        cpuset_cpus: text(earlier.cpuset_cpus, later.cpuset_cpus),
        cpuset_mems: text(earlier.cpuset_mems, later.cpuset_mems),
        memory: number(earlier.memory, later.memory),
        memory_swap: number(earlier.memory_swap, later.memory_swap),
        memory_reservation: number(earlier.memory_reservation, later.memory_reservation),
        pids: number(earlier.pids, later.pids),
        oom_score_adj: earlier.oom_score_adj,
        hugepages: earlier.hugepages.into_iter().chain(later.hugepages).collect(),
        unified: earlier.unified.into_iter().chain(later.unified).collect(),
    }
}

/// Sets limits in config.json.
pub(crate) fn set(config: &mut Value, wanted: &api::LinuxResources) -> Result<(), String> {
    if wanted.blockio_class.is_some() || wanted.rdt_class.is_some() {
        return Err("classes of block I/O and of RDT are not configured on this node".to_owned());
    }
    let resources = &mut config["linux"]["resources"];
    if let Some(memory) = &wanted.memory {
        let values = [
            ("limit", memory.limit.map(|v| json!(v.value))),
            ("reservation", memory.reservation.map(|v| json!(v.value))),
            ("swap", memory.swap.map(|v| json!(v.value))),
            ("kernel", memory.kernel.map(|v| json!(v.value))),
            ("kernelTCP", memory.kernel_tcp.map(|v| json!(v.value))),
            ("swappiness", memory.swappiness.map(|v| json!(v.value))),
            ("disableOOMKiller", memory.disable_oom_killer.map(|v| json!(v.value))),
            ("useHierarchy", memory.use_hierarchy.map(|v| json!(v.value))),
        ];
        put(&mut resources["memory"], values);
    }
    if let Some(cpu) = &wanted.cpu {
        let text = |text: &str| (!text.is_empty()).then(|| json!(text));
        let values = [
            ("shares", cpu.shares.map(|v| json!(v.value))),
            ("quota", cpu.quota.map(|v| json!(v.value))),
            ("period", cpu.period.map(|v| json!(v.value))),
            ("realtimeRuntime", cpu.realtime_runtime.map(|v| json!(v.value))),
            ("realtimePeriod", cpu.realtime_period.map(|v| json!(v.value))),
            ("cpus", text(&cpu.cpus)),
            ("mems", text(&cpu.mems)),
        ];
        put(&mut resources["cpu"], values);
    }
    for limit in &wanted.hugepage_limits {
        let entry = json!({"pageSize": limit.page_size, "limit": limit.limit});
        crate::adjust::replace(&mut resources["hugepageLimits"], "pageSize", &limit.page_size, Some(entry));
    }
    for (key, value) in &wanted.unified {
        resources["unified"][key] = json!(value);
    }
    if let Some(pids) = wanted.pids {
        resources["pids"]["limit"] = json!(pids.limit);
    }
    Ok(())
}

fn put<const N: usize>(object: &mut Value, values: [(&str, Option<Value>); N]) {
    for (key, value) in values {
        if let Some(value) = value {
            object[key] = value;
        }
    }
}

/// The limits that config.json has, for plugins.
pub(crate) fn view(config: &Value) -> api::LinuxResources {
    let resources = &config["linux"]["resources"];
    let (memory, cpu) = (&resources["memory"], &resources["cpu"]);
    let signed = |value: &Value| value.as_i64().map(|value| api::OptionalInt64 { value });
    let unsigned = |value: &Value| value.as_u64().map(|value| api::OptionalUInt64 { value });
    let boolean = |value: &Value| value.as_bool().map(|value| api::OptionalBool { value });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    api::LinuxResources {
        memory: memory.is_object().then(|| api::LinuxMemory {
            limit: signed(&memory["limit"]),
            reservation: signed(&memory["reservation"]),
            swap: signed(&memory["swap"]),
            kernel: signed(&memory["kernel"]),
            kernel_tcp: signed(&memory["kernelTCP"]),
            swappiness: unsigned(&memory["swappiness"]),
            disable_oom_killer: boolean(&memory["disableOOMKiller"]),
            use_hierarchy: boolean(&memory["useHierarchy"]),
        }),
        cpu: cpu.is_object().then(|| api::LinuxCpu {
            shares: unsigned(&cpu["shares"]),
            quota: signed(&cpu["quota"]),
            period: unsigned(&cpu["period"]),
            realtime_runtime: signed(&cpu["realtimeRuntime"]),
            realtime_period: unsigned(&cpu["realtimePeriod"]),
            cpus: text(&cpu["cpus"]),
            mems: text(&cpu["mems"]),
        }),
        hugepage_limits: crate::adjust::list(&resources["hugepageLimits"])
            .map(|limit| api::HugepageLimit {
                page_size: text(&limit["pageSize"]),
                limit: limit["limit"].as_u64().unwrap_or(0),
            })
            .collect(),
        unified: crate::view::texts(&resources["unified"]),
        pids: resources["pids"]["limit"].as_i64().map(|limit| api::LinuxPids { limit }),
        ..Default::default()
    }
}
