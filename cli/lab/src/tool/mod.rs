//! What tools in containers report of themselves.

mod stress_ng;
mod sysbench;

use serde::{Deserialize, Serialize};

/// A tool's own result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// Which tool.
    pub tool: Tool,
    /// What it did, by part: a stressor, a kind of operation.
    pub parts: Vec<Part>,
    /// Mean latency in milliseconds, where the tool measures it.
    pub latency_ms: Option<f64>,
    /// The latency below which 95 % of the operations stayed, in milliseconds.
    pub latency_p95_ms: Option<f64>,
}

/// A tool whose output is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// stress-ng, with `--metrics-brief`, `--metrics` or `--yaml`.
    StressNg,
    /// sysbench.
    Sysbench,
}

/// One part of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Stressor or kind of operation.
    pub name: String,
    /// Operations in all, where the tool tells.
    pub operations: Option<f64>,
    /// A second.
    pub per_second: f64,
    /// What is counted: `bogo operations`, `events`, `MiB`.
    pub unit: String,
}

impl ToolResult {
    /// Operations a second of all parts together.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.parts.iter().map(|part| part.per_second).sum()
    }
}

/// Finds a tool's result in what a container printed.
#[must_use]
pub fn parse(stdout: &str, stderr: &str) -> Option<ToolResult> {
    sysbench::parse(stdout).or_else(|| stress_ng::parse(stdout)).or_else(|| stress_ng::parse(stderr))
}
