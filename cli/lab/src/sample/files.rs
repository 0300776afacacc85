//! The files of a control group that are read, and what their text means.

use std::fs::File;
use std::io;
use std::ops::Add;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Column, Group};

/// A limit at or above this is none: version 1 reports the largest multiple of the page size.
const V1_UNLIMITED: f64 = 9.2e18;

/// Files of one container that are open for reading.
#[derive(Debug)]
pub struct Counters {
    sources: Vec<Source>,
    buffer: Vec<u8>,
}

/// What a file's text means.
type Parse = fn(&str, &mut Vec<(Column, f64)>);

#[derive(Debug)]
struct Source {
    file: File,
    parse: Parse,
}

/// Files of version 2's directory.
const V2: &[(&str, Parse)] = &[
    ("cpu.stat", cpu_stat_v2),
    ("cpu.max", cpu_max),
    ("memory.current", |text, out| out.push((Column::Memory, number(text)))),
    ("memory.peak", |text, out| out.push((Column::MemoryPeak, number(text)))),
    ("memory.max", |text, out| out.push((Column::MemoryLimit, limit(text)))),
    ("memory.swap.current", |text, out| out.push((Column::Swap, number(text)))),
    ("memory.events", |text, out| {
        out.extend(field(text, "max").map(|value| (Column::MemoryHits, value)));
        out.extend(field(text, "oom_kill").map(|value| (Column::OomKills, value)));
    }),
    ("pids.current", |text, out| out.push((Column::Pids, number(text)))),
    ("pids.peak", |text, out| out.push((Column::PidsPeak, number(text)))),
    ("pids.max", |text, out| out.push((Column::PidsLimit, limit(text)))),
    ("pids.events", |text, out| out.extend(field(text, "max").map(|value| (Column::PidsDenied, value)))),
    ("io.stat", io_v2),
    ("cpu.pressure", |text, out| out.extend(stalled(text).map(|total| (Column::PsiCpuUs, total)))),
    ("memory.pressure", |text, out| out.extend(stalled(text).map(|total| (Column::PsiMemoryUs, total)))),
    ("io.pressure", |text, out| out.extend(stalled(text).map(|total| (Column::PsiIoUs, total)))),
];

/// Files of version 1's directories, by controller.
const V1: &[(&str, &str, Parse)] = &[
    ("cpuacct", "cpuacct.usage", |text, out| out.push((Column::CpuNs, number(text)))),
    ("cpu", "cpu.stat", cpu_stat_v1),
    ("memory", "memory.usage_in_bytes", |text, out| out.push((Column::Memory, number(text)))),
    ("memory", "memory.max_usage_in_bytes", |text, out| out.push((Column::MemoryPeak, number(text)))),
    ("memory", "memory.limit_in_bytes", |text, out| out.push((Column::MemoryLimit, limit(text)))),
    ("memory", "memory.memsw.usage_in_bytes", memory_and_swap),
    ("memory", "memory.failcnt", |text, out| out.push((Column::MemoryHits, number(text)))),
    ("memory", "memory.oom_control", |text, out| {
        out.extend(field(text, "oom_kill").map(|value| (Column::OomKills, value)));
    }),
    ("pids", "pids.current", |text, out| out.push((Column::Pids, number(text)))),
    ("pids", "pids.peak", |text, out| out.push((Column::PidsPeak, number(text)))),
    ("pids", "pids.max", |text, out| out.push((Column::PidsLimit, limit(text)))),
    ("pids", "pids.events", |text, out| {
        out.extend(field(text, "max").map(|value| (Column::PidsDenied, value)));
    }),
    ("blkio", "blkio.throttle.io_service_bytes_recursive", io_v1),
];

/// Files of the whole machine.
const MACHINE: &[(&str, Parse)] = &[
    ("/proc/stat", busy),
    ("/proc/pressure/cpu", |text, out| out.extend(stalled(text).map(|total| (Column::PsiCpuUs, total)))),
    ("/proc/pressure/memory", |text, out| {
        out.extend(stalled(text).map(|total| (Column::PsiMemoryUs, total)))
    }),
    ("/proc/pressure/io", |text, out| out.extend(stalled(text).map(|total| (Column::PsiIoUs, total)))),
];

impl Counters {
    /// Opens what a container's group has, and the network counters of its process.
    ///
    /// # Errors
    /// If the group has none of the files.
    pub fn open(group: &Group, pid: i64) -> Result<Self, String> {
        let mut counters = Self { sources: Vec::new(), buffer: vec![0; 8192] };
        // On a machine with both, the controllers are with version 1 and version 2 has the pressure.
        let has_controllers = group.v1("memory").is_some() || group.v1("cpu").is_some();
        for (controller, file, parse) in V1 {
            let directory = group.v1(controller);
            if let Some(directory) = directory {
                counters.add(&directory.join(file), *parse);
            }
        }
        if let Some((quota, period)) =
            group.v1("cpu").map(|dir| (dir.join("cpu.cfs_quota_us"), dir.join("cpu.cfs_period_us")))
        {
            counters.add(&quota, |text, out| out.push((Column::CpuLimit, number(text))));
            counters.add(&period, |text, out| {
                // The quota was read right before; -1 is none.
                if let Some((Column::CpuLimit, quota)) = out.last_mut() {
                    *quota = if *quota > 0.0 { *quota / number(text) } else { 0.0 };
                }
            });
        }
        if let Some(directory) = group.v2().filter(|_| !has_controllers) {
            for (file, parse) in V2 {
                counters.add(&directory.join(file), *parse);
            }
        }
        if counters.sources.is_empty() {
            return Err("its control group has gone".to_owned());
        }
        counters.add(Path::new(&format!("/proc/{pid}/net/dev")), network);
        Ok(counters)
    }

    /// Opens the counters of the whole machine.
    #[must_use]
    pub fn of_machine() -> Self {
        let mut counters = Self { sources: Vec::new(), buffer: vec![0; 65_536] };
        for (path, parse) in MACHINE {
            counters.add(Path::new(path), *parse);
        }
        counters
    }

    /// Opens a file; one that this kernel does not have is passed over.
    fn add(&mut self, path: &Path, parse: Parse) {
        self.sources.extend(File::open(path).ok().map(|file| Source { file, parse }));
    }

    /// Reads all files.
    ///
    /// # Errors
    /// If the group has gone with its container (`ENODEV`).
    pub fn read(&mut self, out: &mut Vec<(Column, f64)>) -> io::Result<()> {
        out.clear();
        for source in &self.sources {
            let length = source.file.read_at(&mut self.buffer, 0)?;
            if let Ok(text) = std::str::from_utf8(&self.buffer[..length]) {
                (source.parse)(text, out);
            }
        }
        Ok(())
    }
}

/// Version 1 counts memory and swap together; memory was read just before.
fn memory_and_swap(text: &str, out: &mut Vec<(Column, f64)>) {
    let memory = out.iter().find(|(column, _)| *column == Column::Memory).map_or(0.0, |(_, value)| *value);
    out.push((Column::Swap, (number(text) - memory).max(0.0)));
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or(0.0)
}

/// 0 is none.
fn limit(text: &str) -> f64 {
    let value = number(text);
    if value < V1_UNLIMITED { value } else { 0.0 }
}

/// `name number` lines.
fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn cpu_stat_v2(text: &str, out: &mut Vec<(Column, f64)>) {
    out.extend(field(text, "usage_usec").map(|us| (Column::CpuNs, us * 1000.0)));
    out.extend(field(text, "nr_periods").map(|value| (Column::Periods, value)));
    out.extend(field(text, "nr_throttled").map(|value| (Column::ThrottledPeriods, value)));
    out.extend(field(text, "throttled_usec").map(|us| (Column::ThrottledNs, us * 1000.0)));
}

fn cpu_stat_v1(text: &str, out: &mut Vec<(Column, f64)>) {
    out.extend(field(text, "nr_periods").map(|value| (Column::Periods, value)));
    out.extend(field(text, "nr_throttled").map(|value| (Column::ThrottledPeriods, value)));
    out.extend(field(text, "throttled_time").map(|value| (Column::ThrottledNs, value)));
}

/// `50000 100000` or `max 100000`.
fn cpu_max(text: &str, out: &mut Vec<(Column, f64)>) {
    let mut words = text.split_whitespace();
    let (Some(quota), Some(period)) = (words.next(), words.next()) else { return };
    out.push((Column::CpuLimit, quota.parse().map_or(0.0, |quota: f64| quota / number(period).max(1.0))));
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`
fn stalled(text: &str) -> Option<f64> {
    text.lines().next()?.strip_prefix("some ")?.rsplit_once("total=")?.1.trim().parse().ok()
}

/// `8:0 rbytes=1 wbytes=2 …`
fn io_v2(text: &str, out: &mut Vec<(Column, f64)>) {
    let sum = |key: &str| {
        let words = text.split_whitespace().filter_map(|word| word.strip_prefix(key));
        words.filter_map(|value| value.parse::<f64>().ok()).fold(0.0, f64::add)
    };
    out.push((Column::IoRead, sum("rbytes=")));
    out.push((Column::IoWrite, sum("wbytes=")));
}

/// `8:0 Read 123`
fn io_v1(text: &str, out: &mut Vec<(Column, f64)>) {
    let sum = |kind: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(kind));
        lines.filter_map(|(_, value)| value.trim().parse::<f64>().ok()).fold(0.0, f64::add)
    };
    out.push((Column::IoRead, sum(" Read ")));
    out.push((Column::IoWrite, sum(" Write ")));
}

/// Two heading lines, then `eth0: received packets … sent …`; the loopback is nobody else's business.
fn network(text: &str, out: &mut Vec<(Column, f64)>) {
    let (mut received, mut sent) = (0.0, 0.0);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let mut words = counters.split_whitespace().map(number);
        received += words.next().unwrap_or(0.0);
        sent += words.nth(7).unwrap_or(0.0);
    }
    out.push((Column::NetReceived, received));
    out.push((Column::NetSent, sent));
}

/// `cpu user nice system idle iowait irq softirq steal …` in hundredths of a second.
fn busy(text: &str, out: &mut Vec<(Column, f64)>) {
    let Some(line) = text.lines().next() else { return };
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(number).collect();
    let idle = ticks.iter().skip(3).take(2).sum::<f64>();
    // Guest time (9th on) is within user time already.
    let all = ticks.iter().take(8).sum::<f64>();
    out.push((Column::CpuNs, (all - idle) * 1e7));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parse: Parse, text: &str) -> Vec<(Column, f64)> {
        let mut out = Vec::new();
        parse(text, &mut out);
        out
    }

    #[test]
    fn both_versions_mean_the_same() {
        let v2 =
            read(cpu_stat_v2, "usage_usec 5\nuser_usec 3\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7\n");
        assert_eq!(v2[0], (Column::CpuNs, 5000.0));
        assert_eq!(v2[1..3], read(cpu_stat_v1, "nr_periods 10\nnr_throttled 4\nthrottled_time 7000\n")[..2]);
        assert_eq!(read(cpu_max, "50000 100000\n"), [(Column::CpuLimit, 0.5)]);
        assert_eq!(read(cpu_max, "max 100000\n"), [(Column::CpuLimit, 0.0)]);
        let io = [(Column::IoRead, 4.0), (Column::IoWrite, 6.0)];
        assert_eq!(read(io_v2, "8:0 rbytes=1 wbytes=2 rios=9\n8:16 rbytes=3 wbytes=4\n"), io);
        assert_eq!(read(io_v1, "8:0 Read 1\n8:0 Write 2\n8:16 Read 3\n8:16 Write 4\nTotal 10\n"), io);
    }

    #[test]
    fn limits_that_are_none_are_zero() {
        assert_eq!((limit("max\n"), limit("9223372036854771712\n"), limit("64\n")), (0.0, 0.0, 64.0));
    }

    #[test]
    fn swap_of_version_1_is_what_exceeds_memory() {
        let mut out = vec![(Column::Memory, 10.0)];
        memory_and_swap("14\n", &mut out);
        assert_eq!(out[1], (Column::Swap, 4.0));
    }

    #[test]
    fn pressure_and_network() {
        assert_eq!(stalled("some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull total=1\n"), Some(42.0));
        let text =
            "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9\n  eth0: 100 1 0 0 0 0 0 0 200 2\n";
        assert_eq!(read(network, text), [(Column::NetReceived, 100.0), (Column::NetSent, 200.0)]);
    }

    #[test]
    fn this_machine_has_counters() {
        let mut out = Vec::new();
        Counters::of_machine().read(&mut out).expect("readable");
        assert!(out.iter().any(|(column, value)| *column == Column::CpuNs && *value > 0.0), "{out:?}");
    }
}
