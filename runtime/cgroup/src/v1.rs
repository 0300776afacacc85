//! Files of cgroup version 1 (Documentation/admin-guide/cgroup-v1).

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources};

use crate::plan::{Write, Writes, limit, page_size, pids_max, rdma_max, throttles};
use crate::{CgroupError, Layout};

pub(crate) fn writes(layout: &Layout, resources: &LinuxResources) -> Result<Vec<Write>, CgroupError> {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(CgroupError::invalid(
            "linux.resources.unified",
            "invalid configuration: cannot be used on a host with cgroup version 1 (use the typed fields)",
        ));
    }
    let mut list = Vec::new();
    let mut planner = Planner { layout, list: &mut list };
    planner.cpu(resources)?;
    planner.memory(resources)?;
    if let Some(pids) = resources.pids() {
        planner.controller("pids", "linux.resources.pids")?.push("pids.max", limit(pids_max(pids.limit())));
    }
    planner.block_io(resources)?;
    planner.devices(resources)?;
    for (at, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page_size(at, huge)?;
        let mut writes = planner.controller("hugetlb", "linux.resources.hugepageLimits")?;
        writes.push(&format!("hugetlb.{size}.limit_in_bytes"), huge.limit());
        writes.optional(&format!("hugetlb.{size}.rsvd.limit_in_bytes"), huge.limit());
    }
    for (device, rdma) in resources.rdma().iter().flatten() {
        let mut writes = planner.controller("rdma", "linux.resources.rdma")?;
        writes.push("rdma.max", rdma_max(device, rdma));
    }
    Ok(list)
}

struct Planner<'a> {
    layout: &'a Layout,
    list: &'a mut Vec<Write>,
}

impl Planner<'_> {
    fn controller(&mut self, controller: &'static str, field: &str) -> Result<Writes<'_>, CgroupError> {
        let at = self
            .layout
            .taking_part()
            .position(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller));
        match at {
            Some(directory) => Ok(Writes { list: self.list, directory }),
            None => Err(CgroupError::NoController {
                field: field.to_owned(),
                controller,
                hint: "mount its hierarchy or leave the limit out",
            }),
        }
    }

    fn cpu(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(cpu) = resources.cpu() else { return Ok(()) };
        let field = "linux.resources.cpu";
        let mut files: Vec<(&str, String)> = Vec::new();
        let mut add = |file, value: Option<String>| files.extend(value.map(|value| (file, value)));
        let positive = |value: Option<u64>| value.filter(|value| *value != 0).map(|value| value.to_string());
        let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|value| value.to_string());
        add("cpu.shares", positive(cpu.shares()));
        add("cpu.cfs_period_us", positive(cpu.period()));
        add("cpu.cfs_quota_us", signed(cpu.quota()));
        add("cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string()));
        add("cpu.rt_period_us", positive(cpu.realtime_period()));
        add("cpu.rt_runtime_us", signed(cpu.realtime_runtime()));
        add("cpu.idle", cpu.idle().map(|idle| idle.to_string()));
        if !files.is_empty() {
            let mut writes = self.controller("cpu", field)?;
            files.into_iter().for_each(|(file, value)| writes.push(file, value));
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                self.controller("cpuset", field)?.push(file, value);
            }
        }
        Ok(())
    }

    fn memory(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let (limit, swap) = (memory.limit().unwrap_or(0), swap(memory)?);
        let reservation = memory.reservation().unwrap_or(0);
        let kernel_tcp = memory.kernel_tcp().unwrap_or(0);
        // u64::MAX is the -1 of an engine that leaves the choice to the kernel.
        let swappiness = memory.swappiness().filter(|value| *value != u64::MAX);
        if swappiness.is_some_and(|value| value > 100) {
            return Err(CgroupError::invalid("linux.resources.memory.swappiness", "is not within 0..100"));
        }
        let disable = memory.disable_oom_killer().unwrap_or(false);
        if limit == 0 && swap == 0 && reservation == 0 && kernel_tcp == 0 && swappiness.is_none() && !disable
        {
            return Ok(());
        }
        let mut writes = self.controller("memory", "linux.resources.memory")?;
        // The limit may have to wait for a larger memsw limit: apply retries it after the others.
        if limit != 0 {
            writes.push("memory.limit_in_bytes", limit);
        }
        if swap != 0 {
            writes.optional("memory.memsw.limit_in_bytes", swap);
        }
        if reservation != 0 {
            writes.push("memory.soft_limit_in_bytes", reservation);
        }
        if kernel_tcp != 0 {
            writes.optional("memory.kmem.tcp.limit_in_bytes", kernel_tcp);
        }
        if let Some(value) = swappiness {
            writes.push("memory.swappiness", value);
        }
        if disable {
            writes.push("memory.oom_control", 1);
        }
        Ok(())
    }

    fn block_io(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let Some(io) = resources.block_io() else { return Ok(()) };
        let mut files: Vec<(&str, String, bool)> = Vec::new();
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            // Which one exists depends on the scheduler: CFQ before Linux 5, BFQ since.
            files.push(("blkio.weight", weight.to_string(), true));
            files.push(("blkio.bfq.weight", weight.to_string(), true));
        }
        if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
            files.push(("blkio.leaf_weight", weight.to_string(), true));
        }
        for device in io.weight_device().iter().flatten() {
            let number = format!("{}:{}", device.major(), device.minor());
            if let Some(weight) = device.weight() {
                files.push(("blkio.weight_device", format!("{number} {weight}"), true));
                files.push(("blkio.bfq.weight_device", format!("{number} {weight}"), true));
            }
        }
        for (file, list) in [
            ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
        ] {
            files.extend(throttles(list).map(|(number, rate)| (file, format!("{number} {rate}"), false)));
        }
        if files.is_empty() {
            return Ok(());
        }
        let mut writes = self.controller("blkio", "linux.resources.blockIO")?;
        for (file, value, optional) in files {
            if optional { writes.optional(file, value) } else { writes.push(file, value) }
        }
        Ok(())
    }

    fn devices(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let rules = resources.devices().as_deref().unwrap_or_default();
        if rules.is_empty() {
            return Ok(());
        }
        let mut writes = self.controller("devices", "linux.resources.devices")?;
        for rule in rules {
            let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
            writes.push(file, device_rule(rule));
        }
        Ok(())
    }
}

/// `c 1:3 rwm`; a rule for all types is the letter alone.
fn device_rule(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => number.to_string(),
        _ => "*".to_owned(),
    };
    match rule.typ() {
        None | Some(LinuxDeviceType::A) => "a".to_owned(),
        Some(typ) => {
            let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
            format!("{} {}:{} {access}", typ.as_str(), number(rule.major()), number(rule.minor()))
        }
    }
}

/// memory + swap. Unlimited memory means unlimited swap unless it was given.
fn swap(memory: &LinuxMemory) -> Result<i64, CgroupError> {
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if limit > 0 && swap > 0 && swap < limit {
        return Err(CgroupError::invalid(
            "linux.resources.memory.swap",
            "is below linux.resources.memory.limit",
        ));
    }
    Ok(if limit == -1 && swap == 0 { -1 } else { swap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hierarchy, Plan};
    use std::path::Path;

    fn plan(controllers: &[&str], json: &str) -> Result<Vec<String>, CgroupError> {
        let hierarchy = |name: &&str| Hierarchy {
            mount: Path::new("/sys/fs/cgroup").join(name),
            controllers: vec![(*name).to_owned()],
            name: None,
        };
        let layout = Layout::V1 { hierarchies: controllers.iter().map(hierarchy).collect() };
        let plan = Plan::new(&layout, Path::new("/x"), &serde_json::from_str(json).unwrap())?;
        Ok(plan.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect())
    }

    #[test]
    fn huge_pages_and_rdma_have_controllers_of_their_own() {
        let huge = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        let rdma = r#"{"rdma":{"mlx5_0":{"hcaHandles":3}}}"#;
        assert_eq!(
            plan(&["hugetlb"], huge).unwrap(),
            ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"]
        );
        assert_eq!(plan(&["rdma"], rdma).unwrap(), ["rdma.max=mlx5_0 hca_handle=3 hca_object=max"]);
        for (json, field) in [(huge, "hugepageLimits"), (rdma, "rdma")] {
            let error = plan(&["memory"], json).unwrap_err();
            assert!(matches!(error, CgroupError::NoController { .. }), "{error}");
            assert!(error.to_string().contains(&format!("linux.resources.{field} needs the")), "{error}");
        }
    }
}
