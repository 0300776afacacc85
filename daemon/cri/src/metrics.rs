//! Metrics as cAdvisor names them: for a kubelet that asks the runtime instead of the cgroups.
//!
//! A table of descriptors says what there is; each reads its values from a sample.

use berth_engine::{ContainerView, InterfaceUsage, PodUsage, ProcessCounts, SandboxView, Stats};

use crate::convert::nanoseconds;
use crate::stats::working_set;
use crate::v1::{self, MetricType};

/// Labels of every metric, in the order of their values.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// What is known of a container at one moment.
struct Sample {
    usage: PodUsage,
    stats: Stats,
    processes: ProcessCounts,
    disk: Disk,
}

/// The file system of writable layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// A directory on it.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Files that there can be.
    pub(crate) inodes: u64,
    /// Files that there can still be.
    pub(crate) inodes_free: u64,
}

/// Further labels' values, and the metric's.
type Values = Vec<(Vec<String>, u64)>;

struct Metric<T: ?Sized> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    read: fn(&T) -> Values,
}

fn one(value: u64) -> Values {
    vec![(Vec::new(), value)]
}

fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000_000
}

fn stat(sample: &Sample, names: &[&str]) -> u64 {
    names.iter().find_map(|name| sample.stats.memory.stat.get(*name)).copied().unwrap_or(0)
}

fn disk(sample: &Sample, value: u64) -> Values {
    vec![(vec![sample.disk.path.clone()], value)]
}

/// Sums of the devices' counters of these operations, by device.
fn devices(entries: &[berth_engine::BlkioEntry], operation: &str) -> Values {
    let of = |entry: &&berth_engine::BlkioEntry| entry.op == operation;
    let row =
        |entry: &berth_engine::BlkioEntry| (vec![format!("{}:{}", entry.major, entry.minor)], entry.value);
    entries.iter().filter(of).map(row).collect()
}

macro_rules! metrics {
    ($($name:literal, $help:literal, $kind:ident, $labels:expr, $read:expr;)*) => {
        &[$(Metric { name: $name, help: $help, kind: MetricType::$kind, labels: $labels, read: $read }),*]
    };
}

const CONTAINER: &[Metric<Sample>] = metrics! {
    "container_blkio_device_usage_total", "Blkio device bytes usage", Counter, &["device", "operation"], |s| {
        let row = |e: &berth_engine::BlkioEntry| (vec![format!("{}:{}", e.major, e.minor), e.op.clone()], e.value);
        s.stats.blkio.service_bytes.iter().map(row).collect()
    };
    "container_cpu_cfs_periods_total", "Elapsed enforcement periods", Counter, &[], |s| one(s.stats.cpu.periods);
    "container_cpu_cfs_throttled_periods_total", "Throttled periods", Counter, &[],
        |s| one(s.stats.cpu.throttled_periods);
    "container_cpu_cfs_throttled_seconds_total", "Time throttled", Counter, &[],
        |s| one(seconds(s.stats.cpu.throttled_ns));
    "container_cpu_system_seconds_total", "Processor time in the kernel", Counter, &[],
        |s| one(seconds(s.stats.cpu.system_ns));
    "container_cpu_usage_seconds_total", "Processor time", Counter, &["cpu"],
        |s| vec![(vec!["total".to_owned()], seconds(s.stats.cpu.total_ns))];
    "container_cpu_user_seconds_total", "Processor time in user mode", Counter, &[],
        |s| one(seconds(s.stats.cpu.user_ns));
    "container_file_descriptors", "Open descriptors", Gauge, &[], |s| one(s.processes.descriptors);
    "container_fs_inodes_free", "Files that there can still be", Gauge, &["device"], |s| disk(s, s.disk.inodes_free);
    "container_fs_inodes_total", "Files that there can be", Gauge, &["device"], |s| disk(s, s.disk.inodes);
    "container_fs_limit_bytes", "Size of the file system", Gauge, &["device"], |s| disk(s, s.disk.size);
    "container_fs_reads_bytes_total", "Bytes read", Counter, &["device"],
        |s| devices(&s.stats.blkio.service_bytes, "read");
    "container_fs_reads_total", "Reads", Counter, &["device"], |s| devices(&s.stats.blkio.serviced, "read");
    "container_fs_usage_bytes", "Bytes of the writable layer", Gauge, &["device"], |s| disk(s, s.usage.writable.0);
    "container_fs_writes_bytes_total", "Bytes written", Counter, &["device"],
        |s| devices(&s.stats.blkio.service_bytes, "write");
    "container_fs_writes_total", "Writes", Counter, &["device"], |s| devices(&s.stats.blkio.serviced, "write");
    "container_last_seen", "When it was seen last", Gauge, &[], |s| one(epoch(s.usage.at));
    "container_memory_cache", "Page cache", Gauge, &[], |s| one(stat(s, &["total_cache", "file"]));
    "container_memory_failcnt", "How often the limit was hit", Counter, &[], |s| one(s.stats.memory.failcnt);
    "container_memory_failures_total", "Page faults", Counter, &["failure_type", "scope"], |s| {
        let row = |kind: &str, value| (vec![kind.to_owned(), "container".to_owned()], value);
        vec![row("pgfault", stat(s, &["total_pgfault", "pgfault"])),
            row("pgmajfault", stat(s, &["total_pgmajfault", "pgmajfault"]))]
    };
    "container_memory_kernel_usage", "Memory of the kernel", Gauge, &[], |s| one(stat(s, &["kernel", "slab"]));
    "container_memory_mapped_file", "Mapped files", Gauge, &[], |s| one(stat(s, &["total_mapped_file", "file_mapped"]));
    "container_memory_max_usage_bytes", "The most memory there was", Gauge, &[],
        |s| one(s.stats.memory.max_usage.unwrap_or(s.stats.memory.usage));
    "container_memory_rss", "Anonymous memory", Gauge, &[], |s| one(stat(s, &["total_rss", "anon"]));
    "container_memory_swap", "Memory that is swapped out", Gauge, &[], |s| one(stat(s, &["total_swap", "swap"]));
    "container_memory_usage_bytes", "Memory", Gauge, &[], |s| one(s.stats.memory.usage);
    "container_memory_working_set_bytes", "Memory that cannot be given up", Gauge, &[],
        |s| one(working_set(&s.stats.memory));
    "container_oom_events_total", "Whether the kernel killed for want of memory", Counter, &[],
        |s| one(u64::from(s.usage.container.status.oom_killed));
    "container_processes", "Processes", Gauge, &[], |s| one(s.processes.processes);
    "container_sockets", "Open sockets", Gauge, &[], |s| one(s.processes.sockets);
    "container_spec_cpu_period", "Length of a period", Gauge, &[], |s| one(limit(spec(s).cpu_period));
    "container_spec_cpu_quota", "Processor time in a period", Gauge, &[], |s| one(limit(spec(s).cpu_quota));
    "container_spec_cpu_shares", "Relative weight", Gauge, &[], |s| one(limit(spec(s).cpu_shares));
    "container_spec_memory_limit_bytes", "Limit of memory", Gauge, &[], |s| one(limit(spec(s).memory));
    "container_spec_memory_swap_limit_bytes", "Limit of memory and swap", Gauge, &[],
        |s| one(limit(spec(s).memory_swap));
    "container_start_time_seconds", "When it was started", Gauge, &[],
        |s| one(s.usage.container.status.started.map_or(0, epoch));
    "container_threads", "Threads", Gauge, &[], |s| one(s.stats.pids.current.max(s.processes.processes));
    "container_threads_max", "Limit of threads; 0 is none", Gauge, &[], |s| one(s.stats.pids.limit.unwrap_or(0));
};

const POD: &[Metric<InterfaceUsage>] = metrics! {
    "container_network_receive_bytes_total", "Bytes received", Counter, &["interface"], |i| by(i, i.received);
    "container_network_receive_errors_total", "Errors while receiving", Counter, &["interface"],
        |i| by(i, i.receive_errors);
    "container_network_receive_packets_dropped_total", "Received packets that were dropped", Counter, &["interface"],
        |i| by(i, i.receive_dropped);
    "container_network_receive_packets_total", "Packets received", Counter, &["interface"],
        |i| by(i, i.packets_received);
    "container_network_transmit_bytes_total", "Bytes sent", Counter, &["interface"], |i| by(i, i.sent);
    "container_network_transmit_errors_total", "Errors while sending", Counter, &["interface"],
        |i| by(i, i.send_errors);
    "container_network_transmit_packets_dropped_total", "Packets to be sent that were dropped", Counter,
        &["interface"], |i| by(i, i.send_dropped);
    "container_network_transmit_packets_total", "Packets sent", Counter, &["interface"], |i| by(i, i.packets_sent);
};

fn by(interface: &InterfaceUsage, value: u64) -> Values {
    vec![(vec![interface.name.clone()], value)]
}

fn epoch(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn spec(sample: &Sample) -> &berth_engine::PodResources {
    &sample.usage.container.spec.resources
}

/// What metrics there are.
pub(crate) fn descriptors() -> Vec<v1::MetricDescriptor> {
    let descriptor = |name: &str, help: &str, labels: &[&str]| v1::MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: LABELS.iter().chain(labels).map(|label| (*label).to_owned()).collect(),
    };
    let containers = CONTAINER.iter().map(|metric| descriptor(metric.name, metric.help, metric.labels));
    containers.chain(POD.iter().map(|metric| descriptor(metric.name, metric.help, metric.labels))).collect()
}

fn read<T>(metrics: &[Metric<T>], of: &T, base: &[String], timestamp: i64) -> Vec<v1::Metric> {
    let rows = metrics.iter().flat_map(|metric| (metric.read)(of).into_iter().map(move |row| (metric, row)));
    rows.map(|(metric, (labels, value))| v1::Metric {
        name: metric.name.to_owned(),
        timestamp,
        metric_type: metric.kind as i32,
        label_values: base.iter().cloned().chain(labels).collect(),
        value: Some(v1::UInt64Value { value }),
    })
    .collect()
}

fn labels(sandbox: &SandboxView, container: Option<&ContainerView>) -> Vec<String> {
    let of = |value: fn(&ContainerView) -> &str| container.map(value).unwrap_or_default().to_owned();
    let id = container.map_or(&sandbox.id, |container| &container.id);
    vec![
        of(|container| &container.spec.name),
        format!("{}/{id}", sandbox.spec.cgroup_parent),
        of(|container| &container.image_name),
        id.clone(),
        sandbox.spec.namespace.clone(),
        sandbox.spec.name.clone(),
    ]
}

/// The metrics of a pod.
pub(crate) fn sandbox(
    sandbox: &SandboxView,
    containers: &[(PodUsage, ProcessCounts)],
    interfaces: &[InterfaceUsage],
    disk: &Disk,
) -> v1::PodSandboxMetrics {
    let now = nanoseconds(Some(jiff::Timestamp::now()));
    let base = labels(sandbox, None);
    let container = |(usage, processes): &(PodUsage, ProcessCounts)| {
        let stats = usage.stats.clone()?;
        let sample = Sample { usage: usage.clone(), stats, processes: *processes, disk: disk.clone() };
        let base = labels(sandbox, Some(&usage.container));
        let at = nanoseconds(Some(usage.at));
        Some(v1::ContainerMetrics {
            container_id: usage.container.id.clone(),
            metrics: read(CONTAINER, &sample, &base, at),
        })
    };
    v1::PodSandboxMetrics {
        pod_sandbox_id: sandbox.id.clone(),
        metrics: interfaces.iter().flat_map(|interface| read(POD, interface, &base, now)).collect(),
        container_metrics: containers.iter().filter_map(container).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_once_and_explained() {
        let all = descriptors();
        let mut names: Vec<_> = all.iter().map(|descriptor| &descriptor.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|descriptor| !descriptor.help.is_empty() && descriptor.label_keys.len() >= 6));
    }

    #[test]
    fn values_have_as_many_labels_as_keys() {
        let interface = InterfaceUsage { name: "eth0".into(), received: 5, ..InterfaceUsage::default() };
        for (metric, described) in POD.iter().zip(&descriptors()[CONTAINER.len()..]) {
            let rows = read(std::slice::from_ref(metric), &interface, &vec![String::new(); 6], 1);
            assert_eq!(rows[0].label_values.len(), described.label_keys.len(), "{}", metric.name);
        }
    }
}
