//! What an experiment's file says.
//!
//! ```text
//! text ─▶ tree with places ─▶ one tree per setting of `vary` (`${name}` filled in) ─▶ typed scenarios
//! ```
//!
//! Everything is decoded before anything runs, for each setting: a mistake in the last one is found at once.

mod cells;
mod decode;
mod fields;
mod metric;
mod quantity;

use std::{path::Path, time::Duration};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use decode::load;
pub use metric::{Metric, Series, Unit};
pub use quantity::{format_bytes, parse_bytes};

/// What the command line may say instead of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// How long the load runs.
    pub duration: Option<Duration>,
    /// How often each setting is run.
    pub repetitions: Option<u32>,
    /// The image of containers that name none.
    pub image: Option<String>,
    /// Values of names used as `${name}`; a name of `vary` then has this value only.
    pub variables: IndexMap<String, String>,
}

/// An experiment, decoded and checked.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its title.
    pub name: String,
    /// What it is about and what to expect, in paragraphs.
    pub description: String,
    /// How long the load runs; `${duration}` in the file, in seconds.
    pub duration: Duration,
    /// How often each setting is run.
    pub repetitions: u32,
    /// Samples a second.
    pub rate: f64,
    /// What is cut off at both ends of the time all containers run, before anything is measured.
    pub settle: Duration,
    /// The settings, in the order of the file.
    pub cells: Vec<Cell>,
    /// Names of `vary`, in order.
    pub varied: Vec<String>,
    /// What is drawn.
    pub plots: Vec<Plot>,
    /// The file's text, kept with the results.
    pub text: String,
}

/// One setting of what varies.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Values of the names of `vary`.
    pub values: IndexMap<String, String>,
    /// What is run with them.
    pub scenario: Scenario,
}

impl Cell {
    /// `cpus = 0.5, workers = 2`; empty if nothing varies.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.values)
    }
}

/// `cpus = 0.5, workers = 2`.
#[must_use]
pub fn label(values: &IndexMap<String, String>) -> String {
    let parts: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    parts.join(", ")
}

/// What is run, and what is measured of it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Containers, in the order of the file.
    pub containers: Vec<Container>,
    /// What happens while they run, in order of time.
    pub changes: Vec<Change>,
    /// What is measured.
    pub measures: Vec<Measure>,
}

/// A container of an experiment.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its name within the experiment.
    pub name: String,
    /// Image.
    pub image: String,
    /// Program and arguments; empty runs the image's.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// When it is started, from the beginning of the run.
    pub start: Duration,
    /// When it is killed, if it has not ended by then.
    pub stop: Option<Duration>,
    /// Network mode; `none` unless said otherwise.
    pub network: String,
    /// Directories in memory.
    pub tmpfs: Vec<String>,
    /// Limits it is created with.
    pub limits: Limits,
}

/// Limits; `None` is not said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Processors' worth of time.
    pub cpus: Option<f64>,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Processors it may run on: `0`, `0-1`.
    pub cpuset: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Bytes of memory it is pushed back to under pressure.
    pub memory_reservation: Option<u64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Bytes a second read from a device.
    pub read_bps: Option<Throttle>,
    /// Bytes a second written to a device.
    pub write_bps: Option<Throttle>,
    /// Reads a second.
    pub read_iops: Option<Throttle>,
    /// Writes a second.
    pub write_iops: Option<Throttle>,
}

/// A rate on a block device: `/dev/sda:1m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// Path of the device.
    pub device: String,
    /// Bytes or operations a second.
    pub rate: u64,
}

/// Something that happens during a run.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, from the beginning of the run.
    pub at: Duration,
    /// Whom it happens to.
    pub container: String,
    /// What happens.
    pub action: Action,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Its limits change.
    Update(Box<Limits>),
    /// It is frozen.
    Pause,
    /// It goes on.
    Unpause,
    /// It is killed.
    Kill,
}

/// A number taken of each run.
#[derive(Debug, Clone)]
pub struct Measure {
    /// What it is called in tables; unique.
    pub label: String,
    /// What is read.
    pub of: Quantity,
    /// What it is divided by, if it is a ratio.
    pub over: Option<Quantity>,
    /// When; otherwise while all containers run, without [`Experiment::settle`].
    pub during: Option<(Duration, Duration)>,
    /// What it should be.
    pub expect: Option<Expectation>,
}

impl Measure {
    /// The unit of its values.
    #[must_use]
    pub fn unit(&self) -> Unit {
        if self.over.is_some() { Unit::Ratio } else { self.of.metric.unit() }
    }
}

/// One metric of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// Container.
    pub container: String,
    /// What of it.
    pub metric: Metric,
}

/// What a measure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// This, give or take.
    Equals {
        /// The ideal.
        value: f64,
        /// How far from it is still right.
        within: Tolerance,
    },
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// How far from the ideal is still right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// A part of the ideal; 0.02 is 2 %.
    Relative(f64),
    /// In the measure's unit.
    Absolute(f64),
}

impl Expectation {
    /// Whether a value is as it should be.
    #[must_use]
    pub fn holds(self, found: f64) -> bool {
        match self {
            Self::Equals { value, within: Tolerance::Relative(part) } => {
                (found - value).abs() <= part * value.abs()
            }
            Self::Equals { value, within: Tolerance::Absolute(by) } => (found - value).abs() <= by,
            Self::AtLeast(least) => found >= least,
            Self::AtMost(most) => found <= most,
        }
    }

    /// The line to draw: the ideal or the bound.
    #[must_use]
    pub fn line(self) -> f64 {
        match self {
            Self::Equals { value, .. } | Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }
}

/// A plot of the report.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Its title, if the file gives one.
    pub title: Option<String>,
    /// What is drawn.
    pub kind: PlotKind,
}

/// What is drawn. Measures are named by their labels.
#[derive(Debug, Clone)]
pub enum PlotKind {
    /// Samples over time, one panel per setting.
    Time(Series),
    /// Measures against a name of `vary`.
    Against {
        /// The name.
        name: String,
        /// Labels of measures.
        measures: Vec<String>,
    },
    /// Measures side by side.
    Bars(Vec<String>),
    /// Which part of the runs stayed below which value.
    Distribution(Vec<String>),
}

/// The file name an experiment's results are kept under: that of its file.
#[must_use]
pub fn slug(file: &Path) -> String {
    file.file_stem().map_or_else(|| "experiment".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
