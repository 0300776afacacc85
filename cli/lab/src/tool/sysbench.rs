//! sysbench: cpu, memory, threads, mutex and fileio.

use super::{Part, Tool, ToolResult};

pub(super) fn parse(text: &str) -> Option<ToolResult> {
    if !text.trim_start().starts_with("sysbench ") {
        return None;
    }
    let value = |key: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches([':', ' ']).split([' ', 's']).next()?.parse::<f64>().ok()
    };
    let mut parts = Vec::new();
    let mut part = |name: &str, unit: &str, operations: Option<f64>, per_second: Option<f64>| {
        parts.extend(per_second.map(|per_second| Part {
            name: name.to_owned(),
            operations,
            per_second,
            unit: unit.to_owned(),
        }));
    };
    let events = value("total number of events:");
    // `10240.00 MiB transferred (8530.47 MiB/sec)`
    let transferred = text.lines().find(|line| line.contains(" MiB transferred ("));
    let speed = transferred.and_then(|line| line.split_once('(')?.1.split(' ').next()?.parse().ok());
    if let Some(line) = transferred {
        part("memory", "MiB", line.split(' ').next().and_then(|word| word.parse().ok()), speed);
    } else if value("reads/s:").is_some() {
        part("reads", "operations", None, value("reads/s:"));
        part("writes", "operations", None, value("writes/s:"));
    } else {
        let seconds = value("total time:");
        let counted = events.zip(seconds).map(|(events, seconds)| events / seconds);
        part("events", "events", events, value("events per second:").or(counted));
    }
    if parts.is_empty() {
        return None;
    }
    Some(ToolResult {
        tool: Tool::Sysbench,
        parts,
        latency_ms: value("avg:"),
        latency_p95_ms: value("95th percentile:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        let text = "\
sysbench 1.0.20 (using system LuaJIT 2.1.0-beta3)

Running the test with following options:
Number of threads: 2

CPU speed:
    events per second:  2354.34

General statistics:
    total time:                          10.0003s
    total number of events:              23545

Latency (ms):
         min:                                    0.81
         avg:                                    0.85
         max:                                   12.37
         95th percentile:                        0.87
         sum:                                19986.28
";
        let result = parse(text).expect("a result");
        assert_eq!((result.throughput(), result.parts[0].operations), (2354.34, Some(23545.0)));
        assert_eq!((result.latency_ms, result.latency_p95_ms), (Some(0.85), Some(0.87)));
        let counted = parse(&text.replace("events per second", "x")).expect("a result");
        assert!((counted.throughput() - 23545.0 / 10.0003).abs() < 1e-6);
    }

    #[test]
    fn memory_and_files() {
        let memory = "sysbench 1.0.20\n\n10240.00 MiB transferred (8530.47 MiB/sec)\n\n    total number of events:  10485760\n";
        let result = parse(memory).expect("a result");
        assert_eq!((result.throughput(), result.parts[0].unit.as_str()), (8530.47, "MiB"));
        let files = "sysbench 1.0.20\nFile operations:\n    reads/s:                      120.50\n    writes/s:                     80.25\n";
        assert_eq!(parse(files).map(|result| result.throughput()), Some(200.75));
        assert_eq!(parse("hello"), None);
    }
}
