//! From recordings to numbers: the measures of each run, summed up over repetitions and held against what was expected.

use serde::{Deserialize, Serialize};

use crate::experiment::{Expectation, Experiment, Measure, Metric, Quantity, Unit};
use crate::record::{Recording, Run};
use crate::sample::Column;
use crate::statistics::{Summary, summarize};

/// What an experiment found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Every measure of every engine and setting.
    pub findings: Vec<Finding>,
}

/// One measure of one engine in one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Index of the engine.
    pub engine: usize,
    /// Index of the setting.
    pub cell: usize,
    /// The measure's label.
    pub label: String,
    /// Unit of the values.
    pub unit: Unit,
    /// One value per repetition that gave one.
    pub values: Vec<f64>,
    /// How many repetitions there were.
    pub repetitions: usize,
    /// The values summed up.
    pub summary: Option<Summary>,
    /// What it should be.
    pub expect: Option<Expectation>,
}

impl Finding {
    /// Whether it is as it should be: the mean of all repetitions, of which none may be without a value. `None` if nothing
    /// was expected.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        let expect = self.expect?;
        let complete = self.values.len() == self.repetitions;
        Some(complete && self.summary.is_some_and(|summary| expect.holds(summary.mean)))
    }

    /// How far the mean is from the ideal, as a part of it.
    #[must_use]
    pub fn deviation(&self) -> Option<f64> {
        let (Some(Expectation::Equals { value, .. }), Some(summary)) = (self.expect, self.summary) else {
            return None;
        };
        (value != 0.0).then(|| summary.mean / value - 1.0)
    }
}

impl Outcome {
    /// Takes all measures of a recording.
    #[must_use]
    pub fn of(experiment: &Experiment, recording: &Recording) -> Self {
        let mut findings = Vec::new();
        for (cell, setting) in experiment.cells.iter().enumerate() {
            for measure in &setting.scenario.measures {
                for engine in 0..recording.engines.len() {
                    findings.push(finding(measure, engine, cell, recording));
                }
            }
        }
        Self { findings }
    }

    /// What was expected and is not so.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.holds() == Some(false))
    }

    /// A finding.
    #[must_use]
    pub fn find(&self, engine: usize, cell: usize, label: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.engine == engine && f.cell == cell && f.label == label)
    }
}

fn finding(measure: &Measure, engine: usize, cell: usize, recording: &Recording) -> Finding {
    let runs: Vec<&Run> =
        recording.runs.iter().filter(|run| run.engine == engine && run.cell == cell).collect();
    let values: Vec<f64> = runs.iter().filter_map(|run| value(measure, run, recording.settle)).collect();
    Finding {
        engine,
        cell,
        label: measure.label.clone(),
        unit: measure.unit(),
        summary: summarize(&values),
        values,
        repetitions: runs.len(),
        expect: measure.expect,
    }
}

/// A measure of one run; `None` if the run does not tell.
#[must_use]
pub fn value(measure: &Measure, run: &Run, settle: f64) -> Option<f64> {
    let window = match measure.during {
        Some((from, to)) => (from.as_secs_f64(), to.as_secs_f64()),
        None => run.window(settle),
    };
    let of = quantity(&measure.of, run, window)?;
    match &measure.over {
        Some(over) => Some(of / quantity(over, run, window)?).filter(|ratio| ratio.is_finite()),
        None => Some(of),
    }
}

fn quantity(quantity: &Quantity, run: &Run, window: (f64, f64)) -> Option<f64> {
    let container = run.container(&quantity.container)?;
    let samples = &container.samples;
    let flag = |is: bool| if is { 1.0 } else { 0.0 };
    let tool = container.tool.as_ref();
    // Pressure of the group itself where the kernel counts it, of the machine otherwise.
    let pressure = |column| {
        let rate = samples.rate(column, window).or_else(|| run.machine.rate(column, window))?;
        Some(rate / 1e6)
    };
    match quantity.metric {
        Metric::Cpu => samples.rate(Column::CpuNs, window).map(|rate| rate / 1e9),
        Metric::Throttled => {
            let periods = samples.growth(Column::Periods, window)?;
            let throttled = samples.growth(Column::ThrottledPeriods, window)?;
            Some(if periods > 0.0 { throttled / periods } else { 0.0 })
        }
        Metric::Memory => samples.mean(Column::Memory, window),
        Metric::MemoryPeak => samples.highest(Column::MemoryPeak).or_else(|| samples.highest(Column::Memory)),
        Metric::MemoryLimit => samples.last(Column::MemoryLimit, window.1),
        Metric::Swap => samples.mean(Column::Swap, window),
        Metric::SwapPeak => samples.highest(Column::Swap),
        Metric::OomKills => samples.highest(Column::OomKills),
        Metric::OomKilled => Some(flag(container.oom_killed)),
        Metric::MemoryHits => samples.highest(Column::MemoryHits),
        Metric::Pids => samples.mean(Column::Pids, window),
        Metric::PidsPeak => samples.highest(Column::PidsPeak).or_else(|| samples.highest(Column::Pids)),
        Metric::PidsDenied => samples.highest(Column::PidsDenied),
        Metric::IoRead => samples.rate(Column::IoRead, window),
        Metric::IoWrite => samples.rate(Column::IoWrite, window),
        Metric::NetReceived => samples.rate(Column::NetReceived, window),
        Metric::NetSent => samples.rate(Column::NetSent, window),
        Metric::PsiCpu => pressure(Column::PsiCpuUs),
        Metric::PsiMemory => pressure(Column::PsiMemoryUs),
        Metric::PsiIo => pressure(Column::PsiIoUs),
        Metric::ExitCode => Some(container.exit_code as f64),
        Metric::Throughput => tool.map(crate::tool::ToolResult::throughput),
        Metric::Latency => tool.and_then(|tool| tool.latency_ms),
        Metric::LatencyP95 => tool.and_then(|tool| tool.latency_p95_ms),
        Metric::CreateTime => Some(container.create_ms),
        Metric::StartTime => Some(container.start_ms),
        Metric::TotalTime => {
            // `started` is when the engine had answered the start.
            Some(
                container.create_ms
                    + container.start_ms
                    + (container.ended - container.started).max(0.0) * 1e3,
            )
        }
        Metric::Lifetime => Some(container.ended - container.started),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Tolerance;

    fn finding(values: &[f64], repetitions: usize) -> Finding {
        Finding {
            engine: 0,
            cell: 0,
            label: "a.cpu".to_owned(),
            unit: Unit::Cores,
            values: values.to_vec(),
            repetitions,
            summary: summarize(values),
            expect: Some(Expectation::Equals { value: 0.5, within: Tolerance::Relative(0.02) }),
        }
    }

    #[test]
    fn a_mean_is_held_against_what_was_expected() {
        assert_eq!(finding(&[0.49, 0.51], 2).holds(), Some(true));
        assert_eq!(finding(&[0.48, 0.48], 2).holds(), Some(false));
        assert_eq!(finding(&[0.5], 2).holds(), Some(false), "a repetition without a value proves nothing");
        assert!((finding(&[0.51, 0.51], 2).deviation().expect("known") - 0.02).abs() < 1e-9);
    }
}
