//! Answer of `GET /containers/{id}/stats`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::{Time, is_default};

/// One sample of a container's use of resources, with the one before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStats {
    /// Container's id.
    pub id: String,
    /// Container's name with a leading slash.
    pub name: String,
    /// `linux`.
    pub os_type: String,
    /// When the sample was taken; zero when the container does not run.
    pub read: Time,
    /// CPU.
    pub cpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// Interface → counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<BTreeMap<String, NetworkStats>>,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Block I/O.
    pub blkio_stats: BlkioStats,
    /// Windows only.
    pub num_procs: u32,
    /// Windows only.
    pub storage_stats: crate::Empty,
    /// When the sample before was taken; zero if there is none.
    pub preread: Time,
    /// CPU in the sample before.
    pub precpu_stats: CpuStats,
}

/// CPU.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// Time used.
    pub cpu_usage: CpuUsage,
    /// Time the whole host has passed, idle included, in nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub system_cpu_usage: u64,
    /// CPUs.
    #[serde(skip_serializing_if = "is_default")]
    pub online_cpus: u32,
    /// How the quota held it back.
    pub throttling_data: ThrottlingData,
}

/// CPU time in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All.
    pub total_usage: u64,
    /// By CPU (cgroup v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percpu_usage: Option<Vec<u64>>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user space.
    pub usage_in_usermode: u64,
}

/// How the CPU quota held a container back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottlingData {
    /// Periods passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Nanoseconds lost.
    pub throttled_time: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// In use, page cache included.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// Most ever in use (cgroup v1).
    #[serde(skip_serializing_if = "is_default")]
    pub max_usage: u64,
    /// Lines of memory.stat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<BTreeMap<String, u64>>,
    /// Times the limit was hit.
    #[serde(skip_serializing_if = "is_default")]
    pub failcnt: u64,
    /// The limit, or the host's memory.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// Counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStats {
    /// Bytes in.
    pub rx_bytes: u64,
    /// Packets in.
    pub rx_packets: u64,
    /// Errors in.
    pub rx_errors: u64,
    /// Dropped in.
    pub rx_dropped: u64,
    /// Bytes out.
    pub tx_bytes: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Errors out.
    pub tx_errors: u64,
    /// Dropped out.
    pub tx_dropped: u64,
}

/// Processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// How many.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// How many may be.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// Block I/O. `None` (`null`) where the kernel tells nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
    /// Operations.
    pub io_serviced_recursive: Option<Vec<BlkioEntry>>,
    /// Waiting operations.
    pub io_queue_recursive: Option<Vec<BlkioEntry>>,
    /// Time served.
    pub io_service_time_recursive: Option<Vec<BlkioEntry>>,
    /// Time waited.
    pub io_wait_time_recursive: Option<Vec<BlkioEntry>>,
    /// Merged operations.
    pub io_merged_recursive: Option<Vec<BlkioEntry>>,
    /// Device time.
    pub io_time_recursive: Option<Vec<BlkioEntry>>,
    /// Sectors.
    pub sectors_recursive: Option<Vec<BlkioEntry>>,
}

/// One block I/O counter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// Major number of the device.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `read`, `write`, …
    pub op: String,
    /// Count.
    pub value: u64,
}
