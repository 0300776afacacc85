//! The recording of an experiment: everything that was seen, from which every figure can be derived again.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::sample::{Column, Samples};
use crate::tool::ToolResult;

/// A recorded experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Title of the experiment.
    pub name: String,
    /// When it began, as RFC 3339.
    pub began: String,
    /// The machine.
    pub facts: Facts,
    /// Engines, in the order they were named.
    pub engines: Vec<EngineFacts>,
    /// Values of what varies, by setting.
    pub cells: Vec<IndexMap<String, String>>,
    /// Seconds cut off at both ends of the time all containers run.
    pub settle: f64,
    /// Part of one processor the sampling took.
    pub sampling_cost: f64,
    /// Samples a second.
    pub rate: f64,
    /// Runs, in the order they were made.
    pub runs: Vec<Run>,
}

/// An engine that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// What it is called in the report.
    pub name: String,
    /// What it says it is.
    pub version: String,
    /// How it makes groups: `cgroupfs` or `systemd`, and the version.
    pub cgroup: String,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Index of its engine.
    pub engine: usize,
    /// Index of its setting.
    pub cell: usize,
    /// Repetition, from 0.
    pub repetition: u32,
    /// Containers, in the order of the experiment.
    pub containers: Vec<ContainerRecord>,
    /// What was changed while it ran.
    pub changes: Vec<AppliedChange>,
    /// The whole machine meanwhile.
    pub machine: Samples,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedChange {
    /// When it was asked for, in seconds from the beginning of the run.
    pub at: f64,
    /// When the engine had made it.
    pub done: f64,
    /// What, in words: `update load`.
    pub what: String,
}

/// One container in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name in the experiment.
    pub name: String,
    /// How long the engine took to create it, in milliseconds.
    pub create_ms: f64,
    /// How long the engine took to start it, in milliseconds.
    pub start_ms: f64,
    /// When it had been started, in seconds from the beginning of the run.
    pub started: f64,
    /// When the news of its end came.
    pub ended: f64,
    /// Exit code.
    pub exit_code: i64,
    /// Whether the engine says that it ran out of memory.
    pub oom_killed: bool,
    /// What the engine says went wrong.
    pub error: String,
    /// The tool's own result.
    pub tool: Option<ToolResult>,
    /// Samples of its control group.
    pub samples: Samples,
}

impl Run {
    /// The record of a container.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The time all its containers ran, without `settle` at both ends; that of the longest one if they never all did.
    #[must_use]
    pub fn window(&self, settle: f64) -> (f64, f64) {
        let from = self.containers.iter().map(|container| container.started).fold(0.0, f64::max);
        let to = self.containers.iter().map(|container| container.ended).fold(f64::INFINITY, f64::min);
        if to - from > 2.0 * settle {
            return (from + settle, to - settle);
        }
        let ended = self.containers.iter().map(|container| container.ended).fold(0.0, f64::max);
        (settle.min(ended), ended)
    }
}

impl Recording {
    /// Cores that were busy with something else while the experiment ran, on average over its runs; `None` if the machine
    /// does not tell.
    #[must_use]
    pub fn other_work(&self) -> Option<f64> {
        let of_run = |run: &Run| {
            let window = run.window(self.settle);
            let machine = run.machine.rate(Column::CpuNs, window)?;
            let rate = |container: &ContainerRecord| container.samples.rate(Column::CpuNs, window);
            let ours: f64 = run.containers.iter().filter_map(rate).sum();
            Some(((machine - ours) / 1e9).max(0.0))
        };
        let cores: Vec<f64> = self.runs.iter().filter_map(of_run).collect();
        (!cores.is_empty()).then(|| cores.iter().sum::<f64>() / cores.len() as f64)
    }
}

/// Columns of the samples' CSV, in this order: those of both versions and of the machine.
const COLUMNS: &[Column] = &[
    Column::CpuNs,
    Column::CpuLimit,
    Column::Periods,
    Column::ThrottledPeriods,
    Column::ThrottledNs,
    Column::Memory,
    Column::MemoryPeak,
    Column::MemoryLimit,
    Column::Swap,
    Column::MemoryHits,
    Column::OomKills,
    Column::Pids,
    Column::PidsPeak,
    Column::PidsLimit,
    Column::PidsDenied,
    Column::IoRead,
    Column::IoWrite,
    Column::NetReceived,
    Column::NetSent,
    Column::PsiCpuUs,
    Column::PsiMemoryUs,
    Column::PsiIoUs,
];

impl Recording {
    /// The recording as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts serialise")
    }

    /// All samples as CSV: one line per reading, a column that a machine does not have is empty.
    #[must_use]
    pub fn samples_csv(&self) -> String {
        let varied: Vec<&String> = self.cells.first().map(|cell| cell.keys().collect()).unwrap_or_default();
        let mut csv = String::from("engine");
        for name in &varied {
            csv.push(',');
            csv.push_str(&csv_text(name));
        }
        csv.push_str(&format!(",repetition,container,seconds{}\n", csv_heads()));
        for run in &self.runs {
            let mut head = csv_text(&self.engines[run.engine].name);
            for name in &varied {
                head.push(',');
                head.push_str(&csv_text(&self.cells[run.cell][*name]));
            }
            let tracks = run.containers.iter().map(|container| (container.name.as_str(), &container.samples));
            for (name, samples) in tracks.chain([("(machine)", &run.machine)]) {
                csv_rows(&mut csv, &format!("{head},{},{name}", run.repetition + 1), samples);
            }
        }
        csv
    }
}

/// Names of the columns, each behind a comma.
pub(crate) fn csv_heads() -> String {
    let name = |column| serde_json::to_value(column).expect("a name");
    COLUMNS.iter().map(|column| format!(",{}", name(column).as_str().unwrap_or_default())).collect()
}

pub(crate) fn csv_rows(csv: &mut String, head: &str, samples: &Samples) {
    for (index, at) in samples.at.iter().enumerate() {
        // Writing into a String does not fail.
        write!(csv, "{head},{at:.4}").ok();
        for column in COLUMNS {
            match samples.column(*column) {
                Some(values) => write!(csv, ",{}", values[index]).ok(),
                None => write!(csv, ",").ok(),
            };
        }
        csv.push('\n');
    }
}

/// A field of a CSV file (RFC 4180).
pub(crate) fn csv_text(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, started: f64, ended: f64) -> ContainerRecord {
        let mut samples = Samples::default();
        samples.push(started, &[(Column::CpuNs, 1e9), (Column::Memory, 5.0)]);
        ContainerRecord {
            name: name.to_owned(),
            create_ms: 1.0,
            start_ms: 2.0,
            started,
            ended,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            tool: None,
            samples,
        }
    }

    fn run(containers: Vec<ContainerRecord>) -> Run {
        Run {
            engine: 0,
            cell: 0,
            repetition: 0,
            containers,
            changes: Vec::new(),
            machine: Samples::default(),
        }
    }

    #[test]
    fn the_window_is_when_all_run() {
        let both = run(vec![container("a", 0.1, 9.0), container("b", 2.0, 10.0)]);
        assert_eq!(both.window(1.0), (3.0, 8.0));
        let never = run(vec![container("a", 0.1, 1.0), container("b", 2.0, 10.0)]);
        assert_eq!(never.window(1.0), (1.0, 10.0));
    }

    #[test]
    fn a_recording_goes_to_json_and_back_and_to_csv() {
        let recording = Recording {
            name: "n".to_owned(),
            began: "2026-01-01T00:00:00Z".to_owned(),
            facts: Facts::default(),
            engines: vec![EngineFacts {
                name: "b,c".to_owned(),
                version: String::new(),
                cgroup: String::new(),
            }],
            cells: vec![IndexMap::from([("cpus".to_owned(), "0.5".to_owned())])],
            settle: 1.0,
            sampling_cost: 0.001,
            rate: 10.0,
            runs: vec![run(vec![container("a", 0.5, 9.0)])],
        };
        let back: Recording = serde_json::from_str(&recording.to_json()).expect("valid");
        assert_eq!(back, recording);
        let csv = recording.samples_csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(
            lines[0].starts_with("engine,cpus,repetition,container,seconds,cpu_ns,cpu_limit,"),
            "{}",
            lines[0]
        );
        assert!(lines[1].starts_with("\"b,c\",0.5,1,a,0.5000,1000000000,,,,,5,"), "{}", lines[1]);
    }
}
