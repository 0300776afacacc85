//! Counters in the shape of runc's `events` (types/events.go there): its callers parse that.

use berth_cgroup::{IoStats, Stats};
use serde_json::{Value, json};

/// An unlimited limit, as runc prints it.
const UNLIMITED: u64 = u64::MAX;

pub(crate) fn runc(stats: &Stats) -> Value {
    let Stats { cpu, memory, pids, io } = stats;
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "cache": memory.stat.get("cache").or_else(|| memory.stat.get("file")).copied().unwrap_or(0),
            "usage": {
                "limit": memory.limit.unwrap_or(UNLIMITED),
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.failcnt,
            },
            "swap": { "limit": memory.swap_limit.unwrap_or(UNLIMITED), "usage": memory.swap_usage, "failcnt": 0 },
            "raw": memory.stat,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": per_device(io, |d| [d.read_bytes, d.write_bytes, d.discard_bytes]),
            "ioServicedRecursive": per_device(io, |d| [d.read_ios, d.write_ios, d.discard_ios]),
        },
        "network_interfaces": null,
    })
}

fn per_device(io: &[IoStats], counters: impl Fn(&IoStats) -> [u64; 3]) -> Vec<Value> {
    let of_device = |device: &IoStats| {
        let (major, minor) = (device.major, device.minor);
        let named = ["Read", "Write", "Discard"].into_iter().zip(counters(device));
        named.map(move |(op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
    };
    io.iter().flat_map(of_device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_runcs() {
        let io = vec![IoStats { major: 8, write_bytes: 7, ..IoStats::default() }];
        let shown = runc(&Stats { io, ..Stats::default() });
        assert_eq!(shown["memory"]["usage"]["limit"], UNLIMITED);
        assert_eq!(
            shown["blkio"]["ioServiceBytesRecursive"][1],
            json!({ "major": 8, "minor": 0, "op": "Write", "value": 7 })
        );
    }
}
