//! Limits and ulimits of a container as config.json has them.

use std::os::unix::fs::MetadataExt as _;

use berth_api::container::{Resources, ThrottleDevice, Ulimit, WeightDevice};
use berth_spec::oci;

use crate::error::{EngineError, IoContext as _, Result};

/// Device path → (major, minor).
fn numbers(path: &str) -> Result<(i64, i64)> {
    let rdev = std::fs::metadata(path).during("find the device", path)?.rdev();
    let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
    Ok((i64::try_from(major).unwrap_or(0), i64::try_from(minor).unwrap_or(0)))
}

/// The limits.
pub(crate) fn limits(wanted: &Resources) -> Result<oci::LinuxResources> {
    let mut resources = oci::LinuxResources::default();
    resources.set_devices(None);
    resources.set_memory(memory(wanted));
    resources.set_cpu(cpu(wanted));
    if let Some(limit) = wanted.pids_limit.filter(|limit| *limit > 0) {
        let mut pids = oci::LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    resources.set_block_io(block_io(wanted)?);
    Ok(resources)
}

/// A limit on processes that is none.
pub(crate) fn no_pids_limit() -> oci::LinuxPids {
    let mut pids = oci::LinuxPids::default();
    pids.set_limit(-1);
    pids
}

fn memory(wanted: &Resources) -> Option<oci::LinuxMemory> {
    let mut memory = oci::LinuxMemory::default();
    let positive = |value: i64| (value != 0).then_some(value);
    memory.set_limit(positive(wanted.memory));
    memory.set_swap(positive(wanted.memory_swap));
    memory.set_reservation(positive(wanted.memory_reservation));
    memory.set_swappiness(wanted.memory_swappiness.and_then(|value| u64::try_from(value).ok()));
    memory.set_disable_oom_killer(wanted.oom_kill_disable.filter(|disable| *disable));
    (memory != oci::LinuxMemory::default()).then_some(memory)
}

fn cpu(wanted: &Resources) -> Option<oci::LinuxCpu> {
    const PERIOD: i64 = 100_000;
    let mut cpu = oci::LinuxCpu::default();
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    cpu.set_shares(unsigned(wanted.cpu_shares));
    cpu.set_period(unsigned(wanted.cpu_period));
    cpu.set_quota((wanted.cpu_quota != 0).then_some(wanted.cpu_quota));
    if wanted.nano_cpus > 0 {
        cpu.set_period(unsigned(PERIOD));
        cpu.set_quota(Some((wanted.nano_cpus / (1_000_000_000 / PERIOD)).max(1_000)));
    }
    cpu.set_realtime_period(unsigned(wanted.cpu_realtime_period));
    cpu.set_realtime_runtime((wanted.cpu_realtime_runtime != 0).then_some(wanted.cpu_realtime_runtime));
    cpu.set_cpus(text(&wanted.cpuset_cpus));
    cpu.set_mems(text(&wanted.cpuset_mems));
    (cpu != oci::LinuxCpu::default()).then_some(cpu)
}

fn block_io(wanted: &Resources) -> Result<Option<oci::LinuxBlockIo>> {
    let weight = |device: &WeightDevice| -> Result<oci::LinuxWeightDevice> {
        let (major, minor) = numbers(&device.path)?;
        let built =
            oci::LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(device.weight).build();
        built.map_err(|error| EngineError::internal(error.to_string()))
    };
    let throttle = |devices: &Option<Vec<ThrottleDevice>>| -> Result<Option<Vec<oci::LinuxThrottleDevice>>> {
        let list = devices.iter().flatten().map(|device| {
            let (major, minor) = numbers(&device.path)?;
            let built = oci::LinuxThrottleDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .rate(device.rate)
                .build();
            built.map_err(|error| EngineError::internal(error.to_string()))
        });
        let list = list.collect::<Result<Vec<_>>>()?;
        Ok((!list.is_empty()).then_some(list))
    };
    let mut block = oci::LinuxBlockIo::default();
    block.set_weight((wanted.blkio_weight != 0).then_some(wanted.blkio_weight));
    let weights = wanted.blkio_weight_device.iter().flatten().map(weight).collect::<Result<Vec<_>>>()?;
    block.set_weight_device((!weights.is_empty()).then_some(weights));
    block.set_throttle_read_bps_device(throttle(&wanted.blkio_device_read_bps)?);
    block.set_throttle_write_bps_device(throttle(&wanted.blkio_device_write_bps)?);
    block.set_throttle_read_iops_device(throttle(&wanted.blkio_device_read_iops)?);
    block.set_throttle_write_iops_device(throttle(&wanted.blkio_device_write_iops)?);
    Ok((block != oci::LinuxBlockIo::default()).then_some(block))
}

/// The limits of setrlimit(2).
pub(crate) fn ulimits(wanted: Option<&Vec<Ulimit>>) -> Result<Vec<oci::PosixRlimit>> {
    let list = wanted.into_iter().flatten().map(|ulimit| {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let unknown = || EngineError::invalid(format!("invalid ulimit type: {}", ulimit.name));
        let typ: oci::PosixRlimitType =
            serde_json::from_value(serde_json::Value::String(name)).map_err(|_| unknown())?;
        let (soft, hard) = (ulimit.soft, ulimit.hard);
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(EngineError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        // -1 is RLIM_INFINITY, all bits set.
        let bits = |value: i64| if value < 0 { u64::MAX } else { value.unsigned_abs() };
        let built = oci::PosixRlimitBuilder::default().typ(typ).soft(bits(soft)).hard(bits(hard)).build();
        built.map_err(|error| EngineError::internal(error.to_string()))
    });
    list.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota() {
        let wanted = Resources { nano_cpus: 1_500_000_000, ..Resources::default() };
        let cpu = cpu(&wanted).unwrap();
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
        assert!(super::cpu(&Resources::default()).is_none());
    }

    #[test]
    fn ulimits_know_infinity_and_their_names() {
        let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let list = ulimits(Some(&vec![ulimit("nofile", 10, 20), ulimit("core", -1, -1)])).unwrap();
        assert_eq!((list[0].soft(), list[0].hard()), (10, 20));
        assert_eq!(list[1].hard(), u64::MAX);
        assert_eq!(
            ulimits(Some(&vec![ulimit("bogus", 1, 1)])).unwrap_err().message(),
            "invalid ulimit type: bogus"
        );
        assert!(ulimits(Some(&vec![ulimit("nofile", 30, 20)])).is_err());
    }

    #[test]
    fn memory_is_left_out_when_unlimited() {
        assert!(memory(&Resources { oom_kill_disable: Some(false), ..Resources::default() }).is_none());
        let memory = memory(&Resources { memory: 1 << 30, memory_swap: -1, ..Resources::default() }).unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(1 << 30), Some(-1)));
    }
}
