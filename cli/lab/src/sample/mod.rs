//! Samples of the kernel's own counters.
//!
//! ```text
//! process id ──/proc/PID/cgroup──▶ directories ──▶ files, opened once ──pread, 10 times a second──▶ columns
//! ```
//!
//! The files are opened once and read again from their beginning; a reading of a container takes some tens of
//! microseconds. The sampler counts the processor time it takes itself, and the report tells it.

mod files;
mod group;
mod sampler;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use files::Counters;
pub use group::Group;
pub use sampler::{Sampler, Watch};

/// One counter or gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// Processor time used, in nanoseconds.
    CpuNs,
    /// Periods of the scheduler under a quota.
    Periods,
    /// Those in which the quota ran out.
    ThrottledPeriods,
    /// Time throttled, in nanoseconds.
    ThrottledNs,
    /// Processors' worth of the quota; 0 is none.
    CpuLimit,
    /// Bytes of memory in use.
    Memory,
    /// Most bytes in use so far.
    MemoryPeak,
    /// Limit in bytes; 0 is none.
    MemoryLimit,
    /// Bytes of swap in use.
    Swap,
    /// Hits of the memory limit.
    MemoryHits,
    /// Processes killed for want of memory.
    OomKills,
    /// Tasks.
    Pids,
    /// Most tasks so far.
    PidsPeak,
    /// Limit of tasks; 0 is none.
    PidsLimit,
    /// Forks that were refused.
    PidsDenied,
    /// Bytes read from devices.
    IoRead,
    /// Bytes written to devices.
    IoWrite,
    /// Bytes received.
    NetReceived,
    /// Bytes sent.
    NetSent,
    /// Microseconds in which some task waited for a processor.
    PsiCpuUs,
    /// The same for memory.
    PsiMemoryUs,
    /// The same for a device.
    PsiIoUs,
}

/// Readings over time. Columns that the machine does not have are not there; all others have one value per time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// Seconds since the beginning of the run.
    pub at: Vec<f64>,
    /// Values, as many as times.
    pub columns: BTreeMap<Column, Vec<f64>>,
}

impl Samples {
    /// Adds a reading.
    pub fn push(&mut self, at: f64, reading: &[(Column, f64)]) {
        let before = self.at.len();
        self.at.push(at);
        for &(column, value) in reading {
            let values = self.columns.entry(column).or_default();
            // A file that appeared late was empty until then.
            values.resize(before, 0.0);
            values.push(value);
        }
        for values in self.columns.values_mut() {
            // One that has gone keeps its last value.
            if values.len() == before {
                values.push(values.last().copied().unwrap_or(0.0));
            }
        }
    }

    /// Forgets all but the last readings.
    fn keep(&mut self, readings: usize) {
        let surplus = self.at.len().saturating_sub(readings);
        self.at.drain(..surplus);
        self.columns.values_mut().for_each(|values| drop(values.drain(..surplus)));
    }

    /// A column.
    #[must_use]
    pub fn column(&self, column: Column) -> Option<&[f64]> {
        self.columns.get(&column).map(Vec::as_slice)
    }

    /// First and last reading within a time, if there are two.
    fn window(&self, from: f64, to: f64) -> Option<(usize, usize)> {
        let first = self.at.iter().position(|at| *at >= from)?;
        let last = self.at.iter().rposition(|at| *at <= to)?;
        (first < last).then_some((first, last))
    }

    /// How fast a counter grew within a time, a second.
    #[must_use]
    pub fn rate(&self, column: Column, (from, to): (f64, f64)) -> Option<f64> {
        let (first, last) = self.window(from, to)?;
        let values = self.column(column)?;
        Some((values[last] - values[first]) / (self.at[last] - self.at[first]))
    }

    /// How much a counter grew within a time.
    #[must_use]
    pub fn growth(&self, column: Column, (from, to): (f64, f64)) -> Option<f64> {
        let (first, last) = self.window(from, to)?;
        let values = self.column(column)?;
        Some(values[last] - values[first])
    }

    /// A gauge's mean within a time, weighted by how long each value was seen.
    #[must_use]
    pub fn mean(&self, column: Column, (from, to): (f64, f64)) -> Option<f64> {
        let (first, last) = self.window(from, to)?;
        let values = self.column(column)?;
        let step =
            |index: usize| (values[index] + values[index + 1]) / 2.0 * (self.at[index + 1] - self.at[index]);
        Some((first..last).map(step).sum::<f64>() / (self.at[last] - self.at[first]))
    }

    /// The highest value.
    #[must_use]
    pub fn highest(&self, column: Column) -> Option<f64> {
        self.column(column)?.iter().copied().max_by(f64::total_cmp)
    }

    /// The last value up to a time.
    #[must_use]
    pub fn last(&self, column: Column, to: f64) -> Option<f64> {
        let last = self.at.iter().rposition(|at| *at <= to)?;
        Some(self.column(column)?[last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_means_are_of_the_window() {
        let mut samples = Samples::default();
        for second in 0..=10_u32 {
            let used = if second < 5 { 0.0 } else { f64::from(second - 5) * 5e8 };
            samples.push(f64::from(second), &[(Column::CpuNs, used), (Column::Memory, f64::from(second))]);
        }
        assert_eq!(samples.rate(Column::CpuNs, (5.0, 10.0)), Some(5e8));
        assert_eq!(samples.rate(Column::CpuNs, (0.0, 10.0)), Some(2.5e8));
        assert_eq!(samples.mean(Column::Memory, (2.0, 4.0)), Some(3.0));
        assert_eq!(samples.rate(Column::CpuNs, (9.5, 9.9)), None, "no two readings");
        assert_eq!(samples.rate(Column::Swap, (0.0, 10.0)), None);
    }

    #[test]
    fn columns_that_come_or_go_stay_aligned() {
        let mut samples = Samples::default();
        samples.push(0.0, &[(Column::Memory, 1.0)]);
        samples.push(1.0, &[(Column::Memory, 2.0), (Column::Swap, 3.0)]);
        samples.push(2.0, &[(Column::Swap, 4.0)]);
        assert_eq!(samples.column(Column::Memory), Some([1.0, 2.0, 2.0].as_slice()));
        assert_eq!(samples.column(Column::Swap), Some([0.0, 3.0, 4.0].as_slice()));
    }
}
