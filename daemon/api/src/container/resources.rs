//! Resource limits and devices: the part of `HostConfig` that `docker update` changes.

use std::collections::BTreeMap;

use crate::wire::is_default;

wire! {
    /// Limits of one container. 0 or `None` means no limit.
    pub struct Resources {
        /// Relative CPU weight (2 to 262144).
        pub cpu_shares: i64,
        /// Memory limit in bytes.
        pub memory: i64,
        /// CPUs in units of 10⁻⁹.
        pub nano_cpus: i64,
        /// Parent cgroup.
        pub cgroup_parent: String,
        /// Relative block I/O weight (10 to 1000).
        pub blkio_weight: u16,
        /// Weights per device.
        pub blkio_weight_device: Option<Vec<WeightDevice>>,
        /// Read limits in bytes per second.
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        /// Write limits in bytes per second.
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        /// Read limits in operations per second.
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        /// Write limits in operations per second.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// CFS period in microseconds.
        pub cpu_period: i64,
        /// CFS quota in microseconds per period.
        pub cpu_quota: i64,
        /// Real-time period in microseconds.
        pub cpu_realtime_period: i64,
        /// Real-time run time in microseconds per period.
        pub cpu_realtime_runtime: i64,
        /// CPUs allowed, `0-2,4`.
        pub cpuset_cpus: String,
        /// Memory nodes allowed.
        pub cpuset_mems: String,
        /// Devices of the host.
        pub devices: Option<Vec<DeviceMapping>>,
        /// Device cgroup rules, `c 7:* rmw`.
        pub device_cgroup_rules: Option<Vec<String>>,
        /// Requests to device drivers (GPUs, CDI).
        pub device_requests: Option<Vec<DeviceRequest>>,
        /// Hard limit for kernel memory (API before 1.42).
        #[serde(skip_serializing_if = "is_default")]
        pub kernel_memory: i64,
        /// Hard limit for TCP buffers (API before 1.42).
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
        pub kernel_memory_tcp: i64,
        /// Soft limit in bytes.
        pub memory_reservation: i64,
        /// Memory plus swap in bytes; -1 is unlimited swap.
        pub memory_swap: i64,
        /// Swappiness, 0 to 100; `None` leaves the kernel's.
        pub memory_swappiness: Option<i64>,
        /// Whether the OOM killer spares the container (cgroup v1 only).
        pub oom_kill_disable: Option<bool>,
        /// Number of processes; 0, -1 and `None` are no limit.
        pub pids_limit: Option<i64>,
        /// Resource limits of setrlimit(2).
        pub ulimits: Option<Vec<Ulimit>>,
        /// Windows only.
        pub cpu_count: i64,
        /// Windows only.
        pub cpu_percent: i64,
        /// Windows only.
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        /// Windows only.
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
    }

    /// Block I/O weight of one device.
    pub struct WeightDevice {
        /// Device path on the host.
        pub path: String,
        /// 10 to 1000.
        pub weight: u16,
    }

    /// Block I/O rate of one device.
    pub struct ThrottleDevice {
        /// Device path on the host.
        pub path: String,
        /// Bytes or operations per second.
        pub rate: u64,
    }

    /// A host device made visible in the container.
    pub struct DeviceMapping {
        /// Path on the host.
        pub path_on_host: String,
        /// Path in the container.
        pub path_in_container: String,
        /// Any of `rwm`.
        pub cgroup_permissions: String,
    }

    /// A request that a device driver resolves.
    pub struct DeviceRequest {
        /// Driver, `nvidia` or `cdi`.
        pub driver: String,
        /// How many devices; -1 is all.
        pub count: i64,
        /// Device ids.
        #[serde(rename = "DeviceIDs")]
        pub device_ids: Option<Vec<String>>,
        /// Alternatives (or) of capability sets (and).
        pub capabilities: Option<Vec<Vec<String>>>,
        /// Driver options.
        pub options: Option<BTreeMap<String, String>>,
    }

    /// One setrlimit(2) limit.
    pub struct Ulimit {
        /// Name without `RLIMIT_`, in small letters.
        pub name: String,
        /// Hard limit; -1 is infinite.
        pub hard: i64,
        /// Soft limit; -1 is infinite.
        pub soft: i64,
    }
}
