//! The cgroup's counters in the shim protocol's words. Pure.

use berth_cgroup as cgroup;
use berth_shim_protocol::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};

type Counter = fn(&cgroup::IoStats) -> u64;

/// One entry for each device and counter.
fn entries(devices: &[cgroup::IoStats], counters: [(&str, Counter); 3]) -> Vec<BlkioEntry> {
    let of_device = |device: &cgroup::IoStats| {
        let (major, minor) = (device.major, device.minor);
        counters.map(|(op, value)| BlkioEntry { major, minor, op: op.to_owned(), value: value(device) })
    };
    devices.iter().flat_map(of_device).collect()
}

pub(crate) fn translate(stats: cgroup::Stats) -> Stats {
    // Docker shows neither huge pages nor pressure.
    let cgroup::Stats { cpu, memory, pids, io, huge_pages: _, pressure: _ } = stats;
    Stats {
        cpu: CpuStats {
            total_ns: cpu.usage_ns,
            user_ns: cpu.user_ns,
            system_ns: cpu.system_ns,
            per_cpu_ns: cpu.per_cpu_ns,
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_ns: cpu.throttled_ns,
        },
        memory: MemoryStats {
            usage: memory.usage,
            max_usage: (memory.max_usage > 0).then_some(memory.max_usage),
            limit: memory.limit,
            failcnt: memory.failcnt,
            stat: memory.stat,
        },
        pids: PidsStats { current: pids.current, limit: pids.limit },
        blkio: BlkioStats {
            service_bytes: entries(
                &io,
                [
                    ("read", |device| device.read_bytes),
                    ("write", |device| device.write_bytes),
                    ("discard", |device| device.discard_bytes),
                ],
            ),
            serviced: entries(
                &io,
                [
                    ("read", |device| device.read_ios),
                    ("write", |device| device.write_ios),
                    ("discard", |device| device.discard_ios),
                ],
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_its_counters() {
        let disk = cgroup::IoStats { major: 8, minor: 1, read_bytes: 10, write_ios: 3, ..Default::default() };
        let stats = cgroup::Stats { io: vec![disk.clone(), disk], ..Default::default() };
        let BlkioStats { service_bytes, serviced } = translate(stats).blkio;
        assert_eq!((service_bytes.len(), serviced.len()), (6, 6));
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 1, op: op.to_owned(), value };
        assert_eq!(service_bytes[..2], [entry("read", 10), entry("write", 0)]);
        assert_eq!(serviced[4], entry("write", 3));
    }
}
