//! One shape of statistics for both versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::CgroupError;
use crate::dir::Dir;

/// A reading of a cgroup's counters. What a host does not count stays zero or `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub io: Vec<IoStats>,
    /// Huge pages, by size as the kernel writes it (`2MB`).
    pub huge_pages: BTreeMap<String, HugePageStats>,
    /// How long processes had to wait for something.
    pub pressure: PressureStats,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugePageStats {
    /// Reserved or, on kernels before 5.7, in use.
    pub usage: u64,
    /// Highest use seen (version 1 only).
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure stall information (version 2, and a kernel that counts it).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureStats {
    /// For a processor.
    pub cpu: Option<Pressure>,
    /// For memory.
    pub memory: Option<Pressure>,
    /// For block devices.
    pub io: Option<Pressure>,
}

/// Waiting for one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one process waited.
    pub some: Stall,
    /// All processes waited.
    pub full: Stall,
}

/// A share of time spent waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Hundredths of a percent over the last 10, 60 and 300 seconds.
    pub average: [u32; 3],
    /// In all, in microseconds.
    pub total_us: u64,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// Total.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Per processor (version 1 only).
    pub per_cpu_ns: Vec<u64>,
    /// Periods that have passed under a quota.
    pub periods: u64,
    /// Periods in which the group ran out.
    pub throttled_periods: u64,
    /// Time spent throttled.
    pub throttled_ns: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// Current use.
    pub usage: u64,
    /// Highest use seen (0 where the kernel does not say).
    pub max_usage: u64,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
    /// Swap in use beyond memory.
    pub swap_usage: u64,
    /// Limit of swap (version 2: swap alone; version 1: memory and swap).
    pub swap_limit: Option<u64>,
    /// How often the limit was hit (version 1: failcnt; version 2: events `max`).
    pub failcnt: u64,
    /// Processes the OOM killer ended.
    pub oom_kills: u64,
    /// The lines of `memory.stat`, as the kernel names them.
    pub stat: BTreeMap<String, u64>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
}

/// One block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoStats {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ios: u64,
    /// Write operations.
    pub write_ios: u64,
    /// Bytes discarded (version 2).
    pub discard_bytes: u64,
    /// Discard operations (version 2).
    pub discard_ios: u64,
}

/// A limit at or above this is "none": version 1 reports the largest multiple of the page size.
const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

pub(crate) fn read<'a>(
    controller: impl Fn(&str) -> Option<&'a Dir>,
    version: u8,
) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if version == 2 {
        if let Some(dir) = controller("") {
            stats.cpu = cpu_v2(dir)?;
            stats.memory = memory_v2(dir)?;
            stats.io = io_v2(&text(dir, "io.stat")?);
            stats.huge_pages = huge_pages(dir, 2)?;
            stats.pressure = PressureStats {
                cpu: pressure(dir, "cpu.pressure")?,
                memory: pressure(dir, "memory.pressure")?,
                io: pressure(dir, "io.pressure")?,
            };
        }
    } else {
        if let Some(dir) = controller("cpuacct") {
            stats.cpu = cpuacct(dir)?;
        }
        if let Some(dir) = controller("cpu") {
            let stat = table(&text(dir, "cpu.stat")?);
            let field = |name: &str| stat.get(name).copied().unwrap_or(0);
            stats.cpu.periods = field("nr_periods");
            stats.cpu.throttled_periods = field("nr_throttled");
            stats.cpu.throttled_ns = field("throttled_time");
        }
        if let Some(dir) = controller("memory") {
            stats.memory = memory_v1(dir)?;
        }
        if let Some(dir) = controller("blkio") {
            let bytes = text(dir, "blkio.throttle.io_service_bytes_recursive")?;
            stats.io = io_v1(&bytes, &text(dir, "blkio.throttle.io_serviced_recursive")?);
        }
    }
    if let Some(dir) = controller("hugetlb").filter(|_| version == 1) {
        stats.huge_pages = huge_pages(dir, 1)?;
    }
    if let Some(dir) = controller("pids") {
        stats.pids = PidsStats {
            current: number(dir, "pids.current")?,
            limit: text(dir, "pids.max")?.trim().parse().ok(),
        };
    }
    Ok(stats)
}

pub(crate) fn oom_kills(dir: &Dir, version: u8) -> Result<u64, CgroupError> {
    let file = if version == 2 { "memory.events" } else { "memory.oom_control" };
    Ok(table(&text(dir, file)?).get("oom_kill").copied().unwrap_or(0))
}

/// A file's text; empty if this kernel does not have it.
fn text(dir: &Dir, file: &str) -> Result<String, CgroupError> {
    Ok(dir.read_optional(file)?.unwrap_or_default())
}

fn number(dir: &Dir, file: &str) -> Result<u64, CgroupError> {
    Ok(text(dir, file)?.trim().parse().unwrap_or(0))
}

/// Lines of `name number`.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn cpu_v2(dir: &Dir) -> Result<CpuStats, CgroupError> {
    let stat = table(&text(dir, "cpu.stat")?);
    let field = |name: &str| stat.get(name).copied().unwrap_or(0);
    let nanoseconds = |name: &str| field(name).saturating_mul(1000);
    Ok(CpuStats {
        usage_ns: nanoseconds("usage_usec"),
        user_ns: nanoseconds("user_usec"),
        system_ns: nanoseconds("system_usec"),
        per_cpu_ns: Vec::new(),
        periods: field("nr_periods"),
        throttled_periods: field("nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
    })
}

fn cpuacct(dir: &Dir) -> Result<CpuStats, CgroupError> {
    let per_cpu = text(dir, "cpuacct.usage_percpu")?;
    Ok(CpuStats {
        usage_ns: number(dir, "cpuacct.usage")?,
        user_ns: number(dir, "cpuacct.usage_user")?,
        system_ns: number(dir, "cpuacct.usage_sys")?,
        per_cpu_ns: per_cpu.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
        ..CpuStats::default()
    })
}

fn memory_v2(dir: &Dir) -> Result<MemoryStats, CgroupError> {
    let events = table(&text(dir, "memory.events")?);
    Ok(MemoryStats {
        usage: number(dir, "memory.current")?,
        max_usage: number(dir, "memory.peak")?,
        limit: text(dir, "memory.max")?.trim().parse().ok(),
        swap_usage: number(dir, "memory.swap.current")?,
        swap_limit: text(dir, "memory.swap.max")?.trim().parse().ok(),
        failcnt: events.get("max").copied().unwrap_or(0),
        oom_kills: events.get("oom_kill").copied().unwrap_or(0),
        stat: table(&text(dir, "memory.stat")?),
    })
}

fn memory_v1(dir: &Dir) -> Result<MemoryStats, CgroupError> {
    let limit = |file| number(dir, file).map(|limit| (limit != 0 && limit < V1_UNLIMITED).then_some(limit));
    let usage = number(dir, "memory.usage_in_bytes")?;
    Ok(MemoryStats {
        usage,
        max_usage: number(dir, "memory.max_usage_in_bytes")?,
        limit: limit("memory.limit_in_bytes")?,
        swap_usage: number(dir, "memory.memsw.usage_in_bytes")?.saturating_sub(usage),
        swap_limit: limit("memory.memsw.limit_in_bytes")?,
        failcnt: number(dir, "memory.failcnt")?,
        oom_kills: oom_kills(dir, 1)?,
        stat: table(&text(dir, "memory.stat")?),
    })
}

/// `hugetlb.2MB.rsvd.current` and its like; which sizes there are the directory tells.
fn huge_pages(dir: &Dir, version: u8) -> Result<BTreeMap<String, HugePageStats>, CgroupError> {
    let current = if version == 2 { "current" } else { "usage_in_bytes" };
    let mut sizes = BTreeMap::new();
    for name in dir.names()? {
        let parts: Vec<&str> = name.split('.').collect();
        let ["hugetlb", size, last] = parts[..] else { continue };
        if last != current {
            continue;
        }
        let reserved = format!("hugetlb.{size}.rsvd.{current}");
        let usage = match dir.read_optional(&reserved)? {
            Some(text) => text.trim().parse().unwrap_or(0),
            None => number(dir, &name)?,
        };
        let stats = if version == 2 {
            let events = table(&text(dir, &format!("hugetlb.{size}.events"))?);
            HugePageStats { usage, max_usage: 0, failcnt: events.get("max").copied().unwrap_or(0) }
        } else {
            HugePageStats {
                usage,
                max_usage: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes"))?,
                failcnt: number(dir, &format!("hugetlb.{size}.failcnt"))?,
            }
        };
        sizes.insert(size.to_owned(), stats);
    }
    Ok(sizes)
}

fn pressure(dir: &Dir, file: &str) -> Result<Option<Pressure>, CgroupError> {
    Ok(dir.read_optional(file)?.filter(|text| !text.is_empty()).map(|text| parse_pressure(&text)))
}

/// `some avg10=0.00 avg60=1.50 avg300=0.20 total=123` and the same with `full` (Documentation/accounting/psi.rst).
fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ').unwrap_or_default();
        let mut stall = Stall::default();
        for (key, value) in rest.split(' ').filter_map(|word| word.split_once('=')) {
            // Two digits behind the point, always.
            let hundredths = || value.replace('.', "").parse().unwrap_or(0);
            match key {
                "avg10" => stall.average[0] = hundredths(),
                "avg60" => stall.average[1] = hundredths(),
                "avg300" => stall.average[2] = hundredths(),
                "total" => stall.total_us = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            "some" => pressure.some = stall,
            "full" => pressure.full = stall,
            _ => {}
        }
    }
    pressure
}

fn device(number: &str) -> Option<IoStats> {
    let (major, minor) = number.split_once(':')?;
    Some(IoStats { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoStats::default() })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn io_v2(text: &str) -> Vec<IoStats> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut stats = device(words.next()?)?;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => stats.read_bytes = value,
                "wbytes" => stats.write_bytes = value,
                "rios" => stats.read_ios = value,
                "wios" => stats.write_ios = value,
                "dbytes" => stats.discard_bytes = value,
                "dios" => stats.discard_ios = value,
                _ => {}
            }
        }
        Some(stats)
    };
    text.lines().filter_map(line).collect()
}

/// `8:0 Read 123` for bytes and for operations.
fn io_v1(bytes: &str, operations: &str) -> Vec<IoStats> {
    let mut all: BTreeMap<(u64, u64), IoStats> = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(number), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else {
                continue; // the closing `Total` line
            };
            let (Some(empty), Ok(value)) = (device(number), value.parse()) else { continue };
            let stats = all.entry((empty.major, empty.minor)).or_insert(empty);
            match (kind, is_bytes) {
                ("Read", true) => stats.read_bytes = value,
                ("Write", true) => stats.write_bytes = value,
                ("Discard", true) => stats.discard_bytes = value,
                ("Read", false) => stats.read_ios = value,
                ("Write", false) => stats.write_ios = value,
                ("Discard", false) => stats.discard_ios = value,
                _ => {}
            }
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_in_hundredths_of_a_percent() {
        let text = "some avg10=0.07 avg60=12.50 avg300=100.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
        let expected = Pressure {
            some: Stall { average: [7, 1250, 10_000], total_us: 42 },
            full: Stall { average: [0; 3], total_us: 1 },
        };
        assert_eq!(parse_pressure(text), expected);
    }

    #[test]
    fn block_device_counters_have_one_shape() {
        let expected = IoStats {
            major: 8,
            minor: 0,
            read_bytes: 1,
            write_bytes: 2,
            read_ios: 3,
            write_ios: 4,
            ..IoStats::default()
        };
        let v2 = io_v2("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n");
        assert_eq!(v2[0], expected);
        let v1 =
            io_v1("8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n", "8:0 Read 3\n8:0 Write 4\nTotal 7\n");
        assert_eq!(v1, [expected]);
    }
}
