//! What containers and pods use, as messages.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use berth_engine::{InterfaceUsage, PodUsage, SandboxView};
use jiff::Timestamp;

use crate::convert::{nanoseconds, view};
use crate::v1;

/// Samples further apart than this say nothing about now.
const WINDOW: i64 = 60_000_000_000;

/// The last sample of processor time of each container and pod, for rates.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Sample>>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    used: u64,
    /// The rate that was found then.
    rate: u64,
}

impl Rates {
    /// Cores used since the last sample, in billionths; none at the first one.
    fn of(&self, id: &str, at: i64, used: u64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of containers that are gone.
        samples.retain(|_, sample| at - sample.at < WINDOW);
        let before = samples.get(id).copied();
        let rate = match before {
            Some(before) if at > before.at && used >= before.used => {
                let elapsed = u128::from(at.abs_diff(before.at));
                u64::try_from(u128::from(used - before.used) * 1_000_000_000 / elapsed).ok()
            }
            Some(before) => Some(before.rate),
            None => None,
        };
        samples.insert(id.to_owned(), Sample { at, used, rate: rate.unwrap_or(0) });
        rate.or(Some(0))
    }
}

fn number(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

/// One container.
pub(crate) fn container(usage: &PodUsage, rates: &Rates, mountpoint: &str) -> v1::ContainerStats {
    let at = nanoseconds(Some(usage.at));
    let spec = &usage.container.spec;
    let (bytes, inodes) = usage.writable;
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: usage.container.id.clone(),
            metadata: Some(view::container_metadata(&usage.container)),
            labels: spec.labels.clone().into_iter().collect(),
            annotations: spec.annotations.clone().into_iter().collect(),
        }),
        cpu: cpu(usage, rates, at),
        memory: memory(usage, at),
        writable_layer: Some(v1::FilesystemUsage {
            timestamp: at,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.to_owned() }),
            used_bytes: number(bytes),
            inodes_used: number(inodes),
        }),
        swap: swap(usage, at),
        io: None,
    }
}

fn cpu(usage: &PodUsage, rates: &Rates, at: i64) -> Option<v1::CpuUsage> {
    let used = usage.stats.as_ref()?.cpu.total_ns;
    Some(v1::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: number(used),
        usage_nano_cores: rates.of(&usage.container.id, at, used).and_then(number),
        psi: None,
    })
}

/// What of a memory cgroup is in use and cannot be given up: everything but files that were not used lately.
pub(crate) fn working_set(memory: &berth_engine::MemoryStats) -> u64 {
    let file = ["total_inactive_file", "inactive_file"].iter().find_map(|key| memory.stat.get(*key));
    memory.usage.saturating_sub(file.copied().unwrap_or(0))
}

fn memory(usage: &PodUsage, at: i64) -> Option<v1::MemoryUsage> {
    let memory = &usage.stats.as_ref()?.memory;
    let stat = |names: [&str; 2]| names.iter().find_map(|name| memory.stat.get(*name)).copied().unwrap_or(0);
    let working_set = working_set(memory);
    Some(v1::MemoryUsage {
        timestamp: at,
        working_set_bytes: number(working_set),
        available_bytes: memory.limit.and_then(|limit| number(limit.saturating_sub(working_set))),
        usage_bytes: number(memory.usage),
        rss_bytes: number(stat(["total_rss", "anon"])),
        page_faults: number(stat(["total_pgfault", "pgfault"])),
        major_page_faults: number(stat(["total_pgmajfault", "pgmajfault"])),
        psi: None,
    })
}

fn swap(usage: &PodUsage, at: i64) -> Option<v1::SwapUsage> {
    let memory = &usage.stats.as_ref()?.memory;
    let used = ["total_swap", "swap"].iter().find_map(|name| memory.stat.get(*name)).copied();
    Some(v1::SwapUsage {
        timestamp: at,
        swap_available_bytes: None,
        swap_usage_bytes: number(used.unwrap_or(0)),
    })
}

/// A pod: the sum of its containers, and its network.
pub(crate) fn sandbox(
    sandbox: &SandboxView,
    containers: &[PodUsage],
    interfaces: &[InterfaceUsage],
    rates: &Rates,
    mountpoint: &str,
) -> v1::PodSandboxStats {
    let at = nanoseconds(Some(Timestamp::now()));
    let stats: Vec<_> = containers.iter().filter_map(|usage| usage.stats.as_ref()).collect();
    let sum = |of: &dyn Fn(&berth_engine::Stats) -> u64| stats.iter().map(|stats| of(stats)).sum::<u64>();
    let used = sum(&|stats| stats.cpu.total_ns);
    let stat = |stats: &berth_engine::Stats, names: [&str; 2]| {
        names.iter().find_map(|name| stats.memory.stat.get(*name)).copied().unwrap_or(0)
    };
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: Some(view::pod_metadata(sandbox)),
            labels: sandbox.spec.labels.clone().into_iter().collect(),
            annotations: sandbox.spec.annotations.clone().into_iter().collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: Some(v1::CpuUsage {
                timestamp: at,
                usage_core_nano_seconds: number(used),
                usage_nano_cores: rates.of(&sandbox.id, at, used).and_then(number),
                psi: None,
            }),
            memory: Some(v1::MemoryUsage {
                timestamp: at,
                working_set_bytes: number(sum(&|stats| working_set(&stats.memory))),
                available_bytes: None,
                usage_bytes: number(sum(&|stats| stats.memory.usage)),
                rss_bytes: number(sum(&|stats| stat(stats, ["total_rss", "anon"]))),
                page_faults: number(sum(&|stats| stat(stats, ["total_pgfault", "pgfault"]))),
                major_page_faults: number(sum(&|stats| stat(stats, ["total_pgmajfault", "pgmajfault"]))),
                psi: None,
            }),
            network: network(interfaces, at),
            process: Some(v1::ProcessUsage {
                timestamp: at,
                process_count: number(sum(&|stats| stats.pids.current)),
            }),
            containers: containers.iter().map(|usage| container(usage, rates, mountpoint)).collect(),
            io: None,
        }),
        windows: None,
    }
}

fn network(interfaces: &[InterfaceUsage], timestamp: i64) -> Option<v1::NetworkUsage> {
    let usage = |interface: &InterfaceUsage| v1::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: number(interface.received),
        rx_errors: number(interface.receive_errors),
        tx_bytes: number(interface.sent),
        tx_errors: number(interface.send_errors),
    };
    let (default, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(|one| one.name == "eth0");
    let default_interface = default.first().map(|interface| usage(interface));
    (!interfaces.is_empty()).then(|| v1::NetworkUsage {
        timestamp,
        default_interface,
        interfaces: others.into_iter().map(usage).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples() {
        let rates = Rates::default();
        assert_eq!(rates.of("a", 1_000_000_000, 500), Some(0));
        assert_eq!(rates.of("a", 2_000_000_000, 500_000_500), Some(500_000_000));
        // Asked twice in the same moment.
        assert_eq!(rates.of("a", 2_000_000_000, 500_000_500), Some(500_000_000));
        assert_eq!(rates.of("b", 2_000_000_000, 7), Some(0));
    }
}
