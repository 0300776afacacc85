//! The cgroup's counters in the shim protocol's words. Pure.

use berth_cgroup as cgroup;
use berth_shim_protocol::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};

pub(crate) fn translate(stats: cgroup::Stats) -> Stats {
    let cgroup::Stats { cpu, memory, pids, io } = stats;
    let entries = |counters: [(&str, fn(&cgroup::IoStats) -> u64); 3]| {
        let of_device = |device: &cgroup::IoStats| {
            let (major, minor) = (device.major, device.minor);
            counters.map(|(op, value)| BlkioEntry { major, minor, op: op.to_owned(), value: value(device) })
        };
        io.iter().flat_map(of_device).collect()
    };
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
            service_bytes: entries([
                ("read", |device| device.read_bytes),
                ("write", |device| device.write_bytes),
                ("discard", |device| device.discard_bytes),
            ]),
            serviced: entries([
                ("read", |device| device.read_ios),
                ("write", |device| device.write_ios),
                ("discard", |device| device.discard_ios),
            ]),
        },
    }
}
