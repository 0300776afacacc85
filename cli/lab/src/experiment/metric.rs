//! What can be measured and drawn, with names and units.

use serde::{Deserialize, Serialize};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Processors' worth of time.
    Cores,
    /// A part of a whole, shown in percent.
    Share,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Something countable.
    Count,
    /// What a tool counts, a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// One measure in terms of another.
    Ratio,
}

impl Unit {
    /// As it stands behind a number or in the label of an axis; empty for plain numbers.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Share => "%",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes/s",
            Self::Count | Self::Ratio => "",
            Self::PerSecond => "1/s",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }
}

/// Names an enumeration's values as files write them.
macro_rules! named {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal, $unit:ident, $title:literal;)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As files write it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// Its unit.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit),* }
            }

            /// As axes and tables name it.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// The one of this name.
            #[must_use]
            pub fn of_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

named! {
    /// A number taken of one container in one run.
    Metric {
        /// Processor time over time, in the window.
        Cpu = "cpu", Cores, "processor time";
        /// Part of the scheduler's periods in which the quota ran out.
        Throttled = "throttled", Share, "throttled periods";
        /// Mean use of memory in the window.
        Memory = "memory", Bytes, "memory";
        /// Highest use of memory in the whole run.
        MemoryPeak = "memory_peak", Bytes, "highest use of memory";
        /// The limit of memory the kernel has at the window's end.
        MemoryLimit = "memory_limit", Bytes, "memory limit";
        /// Mean use of swap in the window.
        Swap = "swap", Bytes, "swap";
        /// Highest use of swap in the whole run.
        SwapPeak = "swap_peak", Bytes, "highest use of swap";
        /// Processes the kernel killed for want of memory, in the whole run.
        OomKills = "oom_kills", Count, "processes killed for want of memory";
        /// 1 if the engine says that the container ran out of memory.
        OomKilled = "oom_killed", Count, "container reported as out of memory";
        /// How often the memory limit was hit, in the whole run.
        MemoryHits = "memory_hits", Count, "hits of the memory limit";
        /// Mean number of tasks in the window.
        Pids = "pids", Count, "tasks";
        /// Highest number of tasks seen in the whole run.
        PidsPeak = "pids_peak", Count, "most tasks";
        /// Forks the kernel refused, in the whole run.
        PidsDenied = "pids_denied", Count, "refused forks";
        /// Bytes read from block devices, a second, in the window.
        IoRead = "io_read", BytesPerSecond, "read from devices";
        /// Bytes written to block devices, a second, in the window.
        IoWrite = "io_write", BytesPerSecond, "written to devices";
        /// Bytes received a second, in the window.
        NetReceived = "net_received", BytesPerSecond, "received";
        /// Bytes sent a second, in the window.
        NetSent = "net_sent", BytesPerSecond, "sent";
        /// Part of the window in which some task waited for a processor.
        PsiCpu = "psi_cpu", Share, "waiting for a processor";
        /// Part of the window in which some task waited for memory.
        PsiMemory = "psi_memory", Share, "waiting for memory";
        /// Part of the window in which some task waited for a device.
        PsiIo = "psi_io", Share, "waiting for a device";
        /// The exit code.
        ExitCode = "exit_code", Count, "exit code";
        /// What the tool in the container counted, a second: stress-ng's bogo operations, sysbench's events.
        Throughput = "throughput", PerSecond, "throughput";
        /// The tool's mean latency.
        Latency = "latency", Milliseconds, "latency";
        /// The latency below which 95 % of the tool's operations stayed.
        LatencyP95 = "latency_p95", Milliseconds, "95th percentile of latency";
        /// How long the engine took to create the container.
        CreateTime = "create_time", Milliseconds, "time to create";
        /// How long the engine took to start it.
        StartTime = "start_time", Milliseconds, "time to start";
        /// From the request to create it to the news of its end, without waiting in between.
        TotalTime = "total_time", Milliseconds, "time to create, start and end";
        /// How long it ran.
        Lifetime = "lifetime", Seconds, "lifetime";
    }
}

named! {
    /// What is drawn over time.
    Series {
        /// Processor time, with the quota.
        Cpu = "cpu", Cores, "processor time";
        /// Part of the periods in which the quota ran out.
        Throttled = "throttled", Share, "throttled periods";
        /// Memory, with the limit.
        Memory = "memory", Bytes, "memory";
        /// Swap.
        Swap = "swap", Bytes, "swap";
        /// Processes killed for want of memory, added up.
        OomKills = "oom_kills", Count, "processes killed for want of memory";
        /// Tasks, with the limit.
        Pids = "pids", Count, "tasks";
        /// Read from devices.
        IoRead = "io_read", BytesPerSecond, "read from devices";
        /// Written to devices.
        IoWrite = "io_write", BytesPerSecond, "written to devices";
        /// Received.
        NetReceived = "net_received", BytesPerSecond, "received";
        /// Sent.
        NetSent = "net_sent", BytesPerSecond, "sent";
        /// Waiting for a processor.
        PsiCpu = "psi_cpu", Share, "waiting for a processor";
        /// Waiting for memory.
        PsiMemory = "psi_memory", Share, "waiting for memory";
        /// Waiting for a device.
        PsiIo = "psi_io", Share, "waiting for a device";
    }
}
