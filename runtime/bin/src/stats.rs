//! Counters in the shape of runc's `events` (types/events.go there): its callers parse that.

use berth_cgroup::resctrl::RdtStats;
use berth_cgroup::{IoStats, Pressure, Stall, Stats};
use serde_json::{Value, json};

/// An unlimited limit, as runc prints it.
const UNLIMITED: u64 = u64::MAX;

pub(crate) fn runc(stats: &Stats, rdt: &RdtStats) -> Value {
    let Stats { cpu, memory, pids, io, huge_pages, pressure } = stats;
    let mut shown = json!({
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
            "swap": { "limit": memory.swap_limit.unwrap_or(UNLIMITED), "usage": memory.usage + memory.swap_usage, "failcnt": 0 },
            "raw": memory.stat,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": per_device(io, |d| [d.read_bytes, d.write_bytes, d.discard_bytes]),
            "ioServicedRecursive": per_device(io, |d| [d.read_ios, d.write_ios, d.discard_ios]),
        },
        "hugetlb": huge_pages.iter().map(|(size, pages)| {
            let shown = json!({ "usage": pages.usage, "max": pages.max_usage, "failcnt": pages.failcnt });
            (size.clone(), shown)
        }).collect::<serde_json::Map<_, _>>(),
        "intel_rdt": rdt,
        "network_interfaces": null,
    });
    for (group, pressure) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("blkio", pressure.io)] {
        if let Some(pressure) = pressure {
            shown[group]["psi"] = psi(pressure);
        }
    }
    shown
}

fn psi(Pressure { some, full }: Pressure) -> Value {
    let stall = |Stall { average, total_us }: Stall| {
        let [avg10, avg60, avg300] = average.map(|hundredths| f64::from(hundredths) / 100.0);
        json!({ "avg10": avg10, "avg60": avg60, "avg300": avg300, "total": total_us })
    };
    json!({ "some": stall(some), "full": stall(full) })
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
        let shown = runc(&Stats { io, ..Stats::default() }, &RdtStats::default());
        assert_eq!(shown["intel_rdt"], json!({}));
        assert_eq!(shown["memory"]["usage"]["limit"], UNLIMITED);
        assert_eq!(
            shown["blkio"]["ioServiceBytesRecursive"][1],
            json!({ "major": 8, "minor": 0, "op": "Write", "value": 7 })
        );
    }
}
