//! Files of cgroup version 2 (Documentation/admin-guide/cgroup-v2.rst), with the conversions runc makes.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use crate::CgroupError;
use crate::plan::{Write, Writes, limit, page_size, pids_max, rdma_max, throttles};

/// The kernel's default period of a CPU quota.
const DEFAULT_PERIOD_US: u64 = 100_000;

pub(crate) fn writes(resources: &LinuxResources) -> Result<Vec<Write>, CgroupError> {
    let mut list = Vec::new();
    let mut writes = Writes { list: &mut list, directory: 0 };
    if let Some(cpu) = resources.cpu() {
        processor(cpu, &mut writes);
    }
    if let Some(given) = resources.memory() {
        memory(given, &mut writes)?;
    }
    if let Some(pids) = resources.pids() {
        writes.push("pids.max", limit(pids_max(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut writes);
    }
    for (at, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = page_size(at, huge)?;
        writes.push(&format!("hugetlb.{size}.max"), huge.limit());
        writes.optional(&format!("hugetlb.{size}.rsvd.max"), huge.limit());
    }
    for (device, rdma) in resources.rdma().iter().flatten() {
        writes.push("rdma.max", rdma_max(device, rdma));
    }
    unified(resources, &mut writes)?;
    Ok(list)
}

fn processor(cpu: &LinuxCpu, writes: &mut Writes<'_>) {
    if let Some(idle) = cpu.idle() {
        writes.push("cpu.idle", idle);
    }
    // An idle group has no weight of its own.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
        writes.push("cpu.weight", weight(shares));
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if quota != 0 || period != 0 {
        let quota = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let period = if period == 0 { DEFAULT_PERIOD_US } else { period };
        writes.push("cpu.max", format!("{quota} {period}"));
    }
    if let Some(burst) = cpu.burst() {
        writes.push("cpu.max.burst", burst);
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            writes.push(file, value);
        }
    }
}

/// Shares (2 to 262144, default 1024) → weight (1 to 10000, default 100): a quadratic in the logarithm that maps the
/// three points onto each other, as runc has it since the linear formula gave 1024 shares a weight of 39.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(crate) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn memory(memory: &LinuxMemory, writes: &mut Writes<'_>) -> Result<(), CgroupError> {
    let max = memory.limit().unwrap_or(0);
    if let Some(swap) = swap(memory)? {
        // Without swap in the kernel the file is missing, and so is what it limits.
        writes.optional("memory.swap.max", limit(swap));
    }
    if max != 0 {
        writes.push("memory.max", limit(max));
    }
    if let Some(low) = memory.reservation().filter(|low| *low != 0) {
        writes.push("memory.low", limit(low));
    }
    Ok(())
}

/// Version 1 counts memory and swap together, version 2 swap alone.
pub(crate) fn swap(memory: &LinuxMemory) -> Result<Option<i64>, CgroupError> {
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    let field = "linux.resources.memory.swap";
    match (limit, swap) {
        (-1, 0) | (_, -1) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (0, _) => Err(CgroupError::invalid(field, "unable to set swap limit without memory limit")),
        (limit, swap) if limit < 0 || swap < 0 => Err(CgroupError::invalid(field, "is negative")),
        (limit, swap) if swap < limit => {
            Err(CgroupError::invalid(field, "memory+swap limit should be >= memory limit"))
        }
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

fn block_io(io: &LinuxBlockIo, writes: &mut Writes<'_>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        writes.optional("io.bfq.weight", weight);
        // 10..1000 → 1..10000
        let converted = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        writes.optional("io.weight", converted);
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            writes.optional("io.bfq.weight", format!("{}:{} {weight}", device.major(), device.minor()));
        }
    }
    for (key, list) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        for (number, rate) in throttles(list) {
            // No limit, which version 1 calls 0.
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            writes.push("io.max", format!("{number} {key}={rate}"));
        }
    }
}

/// Files by name, verbatim; last, so that they win.
fn unified(resources: &LinuxResources, writes: &mut Writes<'_>) -> Result<(), CgroupError> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort_unstable();
    // An idle group has no weight, and the kernel refuses one.
    let idle =
        resources.unified().iter().flatten().any(|(file, value)| file == "cpu.idle" && value.trim() == "1");
    for (file, value) in entries.into_iter().filter(|(file, _)| !(idle && file.as_str() == "cpu.weight")) {
        if file.is_empty() || file.contains('/') || !file.contains('.') || file.starts_with('.') {
            return Err(CgroupError::invalid(
                format!("linux.resources.unified.{file}"),
                "is not the name of a control file",
            ));
        }
        for line in value.lines() {
            writes.push(file, line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layout, Plan};
    use std::path::Path;

    fn plan(json: &str) -> Result<Vec<String>, CgroupError> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let layout = Layout::V2 { mount: "/sys/fs/cgroup".into() };
        let plan = Plan::new(&layout, Path::new("berth/../berth/x"), &resources)?;
        assert_eq!(plan.directories, [Path::new("/sys/fs/cgroup/berth/x")]);
        Ok(plan.writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect())
    }

    #[test]
    fn conversions() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 59), (2048, 174)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert_eq!(
            plan(r#"{"cpu":{"shares":1024,"quota":50000,"cpus":"0-1"},"memory":{"limit":1000,"swap":1500,"reservation":10},"pids":{"limit":-1}}"#)
                .unwrap(),
            ["cpu.weight=100", "cpu.max=50000 100000", "cpuset.cpus=0-1", "memory.swap.max=500", "memory.max=1000", "memory.low=10", "pids.max=max"]
        );
        assert_eq!(plan(r#"{"cpu":{"quota":-1}}"#).unwrap(), ["cpu.max=max 100000"]);
        assert_eq!(plan(r#"{"memory":{"limit":7,"swap":7}}"#).unwrap()[0], "memory.swap.max=0");
        assert_eq!(plan(r#"{"memory":{"limit":-1}}"#).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(plan("{}").unwrap(), [""; 0]);
    }

    #[test]
    fn refusals() {
        for json in [
            r#"{"memory":{"swap":5}}"#,
            r#"{"memory":{"limit":5,"swap":4}}"#,
            r#"{"unified":{"../memory.max":"1"}}"#,
            r#"{"unified":{"tasks":"1"}}"#,
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
        ] {
            assert!(matches!(plan(json), Err(CgroupError::Invalid { .. })), "{json}");
        }
    }

    #[test]
    fn unified_keys_come_last_line_by_line() {
        let writes = plan(
            r#"{"memory":{"limit":5},"unified":{"memory.high":"4","io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#,
        );
        assert_eq!(
            writes.unwrap(),
            ["memory.max=5", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=4"]
        );
    }
}
