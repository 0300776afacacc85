//! Stats: what a container uses, sampled every second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Time;
use berth_api::options::Stats;
use berth_api::stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    ThrottlingData,
};
use berth_runtime_client::protocol;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use super::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::system;

/// Samples.
pub type StatsStream = BoxStream<'static, ContainerStats>;

const PERIOD: Duration = Duration::from_secs(1);
/// Ticks of /proc/stat per second; the same on every Linux that Rust knows.
const TICK_NS: u64 = 10_000_000;

struct Sampler {
    engine: Arc<Engine>,
    container: Arc<Container>,
    ticks: tokio::time::Interval,
    before: Option<(Time, CpuStats)>,
    left: Option<u32>,
}

impl Engine {
    /// What a container uses: one sample with the one before, one alone, or one every second. A container that does
    /// not run has zeros; a stream of it goes on.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn container_stats(self: &Arc<Self>, name: &str, options: Stats) -> Result<StatsStream> {
        let container = self.containers.find(name)?;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let left = if options.stream { None } else { Some(1) };
        let mut sampler = Sampler { engine: Arc::clone(self), container, ticks, before: None, left };
        if !options.stream && !options.one_shot && sampler.container.phase().is_alive() {
            // The first sample is only there to be the one before.
            sampler.ticks.tick().await;
            sampler.sample().await;
        }
        let samples = stream::unfold(sampler, async |mut sampler| {
            if sampler.left == Some(0) || sampler.container.status().removed {
                return None;
            }
            sampler.left = sampler.left.map(|left| left - 1);
            if sampler.container.phase().is_alive() {
                sampler.ticks.tick().await;
            } else if sampler.left.is_none() {
                // Not an interval's tick: the first one is at once, and zeros need no haste.
                tokio::time::sleep(PERIOD).await;
            }
            let sample = sampler.sample().await;
            Some((sample, sampler))
        });
        Ok(samples.boxed())
    }
}

impl Sampler {
    async fn sample(&mut self) -> ContainerStats {
        let empty = ContainerStats {
            id: self.container.id.clone(),
            name: format!("/{}", self.container.name()),
            os_type: "linux".to_owned(),
            ..ContainerStats::default()
        };
        let Ok(shim) = self.container.shim() else { return empty };
        let stats = match shim.stats().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::debug!(container = self.container.id, %error, "sampling a container");
                return empty;
            }
        };
        let read = Time(Timestamp::now());
        let cpu = cpu(&stats.cpu, self.engine.facts.cpus);
        let (preread, precpu) = self.before.replace((read, cpu.clone())).unwrap_or_default();
        let status = self.container.status();
        let own_network = !self.container.definition().has_host_network();
        ContainerStats {
            read,
            preread,
            precpu_stats: precpu,
            cpu_stats: cpu,
            memory_stats: memory(stats.memory),
            networks: own_network.then(|| network(status.pid)).flatten(),
            pids_stats: PidsStats { current: stats.pids.current, limit: stats.pids.limit.unwrap_or(0) },
            blkio_stats: blkio(stats.blkio),
            ..empty
        }
    }
}

fn cpu(stats: &protocol::CpuStats, cpus: usize) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: stats.total_ns,
            percpu_usage: (!stats.per_cpu_ns.is_empty()).then(|| stats.per_cpu_ns.clone()),
            usage_in_kernelmode: stats.system_ns,
            usage_in_usermode: stats.user_ns,
        },
        system_cpu_usage: system_cpu(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
        online_cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        throttling_data: ThrottlingData {
            periods: stats.periods,
            throttled_periods: stats.throttled_periods,
            throttled_time: stats.throttled_ns,
        },
    }
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq, in ticks; guest time is in user already.
fn system_cpu(text: &str) -> u64 {
    let line = text.lines().next().unwrap_or_default();
    line.split_whitespace().skip(1).take(7).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
        * TICK_NS
}

fn memory(stats: protocol::MemoryStats) -> MemoryStats {
    MemoryStats {
        usage: stats.usage,
        max_usage: stats.max_usage.unwrap_or(0),
        stats: Some(stats.stat),
        failcnt: stats.failcnt,
        limit: stats.limit.map_or_else(system::memory, |limit| limit.min(system::memory())),
    }
}

/// /proc/PID/net/dev: two lines of head, then `eth0: ` and sixteen counters.
fn network(pid: i32) -> Option<BTreeMap<String, NetworkStats>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let interfaces: BTreeMap<_, _> =
        text.lines().skip(2).filter_map(interface).filter(|(name, _)| name != "lo").collect();
    (!interfaces.is_empty()).then_some(interfaces)
}

fn interface(line: &str) -> Option<(String, NetworkStats)> {
    let (name, counters) = line.split_once(':')?;
    let numbers: Vec<u64> = counters.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, ..] = numbers[..] else { return None };
    let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = *numbers.get(8..)? else { return None };
    let stats = NetworkStats {
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    };
    Some((name.trim().to_owned(), stats))
}

fn blkio(stats: protocol::BlkioStats) -> BlkioStats {
    let entries = |list: Vec<protocol::BlkioEntry>| {
        let entry = |one: protocol::BlkioEntry| BlkioEntry {
            major: one.major,
            minor: one.minor,
            op: one.op,
            value: one.value,
        };
        Some(list.into_iter().map(entry).collect())
    };
    BlkioStats {
        io_service_bytes_recursive: entries(stats.service_bytes),
        io_serviced_recursive: entries(stats.serviced),
        ..BlkioStats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(system_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), 28 * TICK_NS);
        let (name, stats) = interface("  eth0: 736 8 1 2 0 0 0 0 126 3 4 5 0 0 0 0").unwrap();
        assert_eq!(name, "eth0");
        assert_eq!((stats.rx_bytes, stats.rx_dropped, stats.tx_bytes, stats.tx_dropped), (736, 2, 126, 5));
        assert!(interface("garbage").is_none());
    }
}
