//! stress-ng: the table of `--metrics-brief` and `--metrics`, and the document of `--yaml`.

use super::{Part, Tool, ToolResult};

/// What its counters count.
const UNIT: &str = "bogo operations";

pub(super) fn parse(text: &str) -> Option<ToolResult> {
    let parts = table(text);
    let parts = if parts.is_empty() { document(text) } else { parts };
    (!parts.is_empty()).then_some(ToolResult {
        tool: Tool::StressNg,
        parts,
        latency_ms: None,
        latency_p95_ms: None,
    })
}

/// `stress-ng: metrc: [7] cpu 2518 10.00 9.98 0.00 251.77 252.28`: name, bogo operations, real, user and system time in
/// seconds, operations a second of real time and of user and system time. Older ones write `info:`.
fn table(text: &str) -> Vec<Part> {
    let row = |line: &str| {
        let rest = line.trim().strip_prefix("stress-ng: ")?;
        let rest = rest.strip_prefix("metrc: ").or_else(|| rest.strip_prefix("info: "))?.trim_start();
        let mut words = rest.strip_prefix('[')?.split_once(']')?.1.split_whitespace();
        let name = words.next()?;
        let numbers: Vec<f64> = words.take(6).map_while(|word| word.parse().ok()).collect();
        let [operations, _, _, _, per_second, _] = numbers[..] else { return None };
        let (name, unit) = (name.to_owned(), UNIT.to_owned());
        Some(Part { name, operations: Some(operations), per_second, unit })
    };
    text.lines().filter_map(row).collect()
}

/// The list `metrics` of a YAML document, among whatever else was printed.
fn document(text: &str) -> Vec<Part> {
    let begin = text.lines().position(|line| line.trim_end() == "---");
    let Some(begin) = begin else { return Vec::new() };
    // Messages of stress-ng itself may stand between the lines when both go to one place.
    let lines: Vec<&str> = text
        .lines()
        .skip(begin)
        .take_while(|line| line.trim_end() != "...")
        .filter(|line| !line.starts_with("stress-ng: "))
        .collect();
    let documents = berth_yaml::parse(&lines.join("\n"), 0).unwrap_or_default();
    let metrics = documents.iter().find_map(|document| document.root.get("metrics")?.as_list());
    let part = |entry: &berth_yaml::Node| {
        let number = |key: &str| entry.get(key)?.value.to_string().parse().ok();
        Some(Part {
            name: entry.get("stressor")?.value.to_string(),
            operations: number("bogo-ops"),
            per_second: number("bogo-ops-per-second-real-time")?,
            unit: UNIT.to_owned(),
        })
    };
    metrics.into_iter().flatten().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: &str = "\
stress-ng: info:  [9] setting to a 1 second run per stressor
stress-ng: info:  [9] dispatching hogs: 2 cpu, 1 vm
stress-ng: metrc: [9] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s
stress-ng: metrc: [9]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)
stress-ng: metrc: [9] cpu                 482      1.00      1.99      0.00       481.35         242.21
stress-ng: metrc: [9] vm                 1024      1.01      0.50      0.49      1013.86        1034.34
stress-ng: info:  [9] successful run completed in 1.01s
";

    #[test]
    fn the_table() {
        let result = parse(BRIEF).expect("a result");
        assert_eq!(result.tool, Tool::StressNg);
        assert_eq!(result.parts[1].name, "vm");
        assert_eq!(result.parts[0].operations, Some(482.0));
        assert!((result.throughput() - 1495.21).abs() < 1e-9);
        assert_eq!(parse(&BRIEF.replace("metrc: ", "info:  ")).map(|older| older.parts.len()), Some(2));
        assert_eq!(parse("stress-ng: info:  [9] dispatching hogs: 2 cpu\n"), None);
    }

    #[test]
    fn the_document() {
        let text = "---\nsystem-info:\n      stress-ng-version: 0.15.06\n\nmetrics:\n    - stressor: cpu\n      bogo-ops: 50\n      \
                    bogo-ops-per-second-usr-sys-time: 25.5\n      bogo-ops-per-second-real-time: 49.75\n      wall-clock-time: 1.005\n\n...\n";
        let result = parse(text).expect("a result");
        assert_eq!((result.parts[0].operations, result.parts[0].per_second), (Some(50.0), 49.75));
    }
}
