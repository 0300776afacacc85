//! Containers that run anyway, watched: `stats --record` and `--plot`, and the numbers of `top`.

use berth_client::Client;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::Series;
use crate::facts::Facts;
use crate::plot::Size;
use crate::record::{csv_heads, csv_rows, csv_text};
use crate::report::{Page, Section, Table, TableCell, time_chart};
use crate::sample::{Counters, Group, Sampler, Samples, Watch};

/// Watches a container of an engine on this machine; `None` if it does not run.
///
/// # Errors
/// If the engine refuses, or the container's process is not on this machine.
pub async fn watch(
    client: &Client,
    sampler: &Sampler,
    container: &str,
    origin: std::time::Instant,
) -> Result<Option<(String, Watch)>> {
    let inspected = client.container_inspect(container, false).await.map_err(|source| Error::Engine {
        engine: "the engine".to_owned(),
        what: format!("inspect {container}"),
        source,
    })?;
    let (name, pid) = (inspected.name.trim_start_matches('/').to_owned(), inspected.state.pid);
    if pid == 0 {
        return Ok(None);
    }
    match Group::of(pid).and_then(|group| Counters::open(&group, pid)) {
        Ok(counters) => Ok(Some((name, sampler.watch(counters, origin)))),
        Err(reason) => Err(Error::Sampling { container: name, pid, reason }),
    }
}

/// What was seen of some containers.
#[derive(Debug, Serialize)]
pub struct Observation {
    /// When it began, as RFC 3339.
    pub began: String,
    /// The machine.
    pub facts: Facts,
    /// Samples a second.
    pub rate: f64,
    /// Part of one processor the sampling took.
    pub sampling_cost: f64,
    /// Containers with their samples.
    pub tracks: Vec<(String, Samples)>,
}

/// What is drawn, in this order, where the machine counts it.
const DRAWN: &[Series] = &[
    Series::Cpu,
    Series::Throttled,
    Series::Memory,
    Series::Swap,
    Series::Pids,
    Series::PsiCpu,
    Series::PsiMemory,
    Series::PsiIo,
    Series::IoRead,
    Series::IoWrite,
    Series::NetReceived,
    Series::NetSent,
];

impl Observation {
    /// Every reading, one line each.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut csv = format!("container,seconds{}\n", csv_heads());
        for (name, samples) in &self.tracks {
            csv_rows(&mut csv, &csv_text(name), samples);
        }
        csv
    }

    /// Everything.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts serialise")
    }

    /// Plots of everything that happened, in one page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let tracks: Vec<(String, usize, bool, &Samples)> = self
            .tracks
            .iter()
            .enumerate()
            .map(|(colour, (name, samples))| (name.clone(), colour, false, samples))
            .collect();
        let chart = |series: &Series| time_chart(capital(series.title()), *series, &tracks, Vec::new());
        let seen = |chart: &crate::plot::Chart| {
            chart.layers.iter().flat_map(|layer| &layer.points).any(|(_, value)| *value > 0.0)
        };
        let charts = DRAWN.iter().map(chart).filter(seen);
        let plots = charts.map(|chart| (chart.draw(Size::PANEL), true)).collect();
        let facts = self.facts.machine.iter();
        let facts =
            facts.map(|(name, value)| vec![TableCell::Text(name.clone()), TableCell::Text(value.clone())]);
        let names: Vec<&str> = self.tracks.iter().map(|(name, _)| name.as_str()).collect();
        let seconds =
            self.tracks.iter().filter_map(|(_, samples)| samples.at.last()).copied().fold(0.0, f64::max);
        Page {
            title: names.join(", "),
            subtitle: format!("Recorded {} · {seconds:.0} s, {} samples a second", self.began, self.rate),
            verdict: None,
            sections: vec![
                Section::Plots(plots),
                Section::Text(format!(
                    "What never happened is not drawn. Rates are taken over half a second. Sampling took {:.3} % of one \
                     processor.",
                    self.sampling_cost * 100.0
                )),
                Section::Heading("Machine".to_owned()),
                Section::Table(Table { heads: vec!["Fact".to_owned(), "Value".to_owned()], rows: facts.collect() }),
            ],
        }
        .render()
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Column;

    #[test]
    fn what_was_seen_becomes_csv_json_and_plots() {
        let mut samples = Samples::default();
        for tenth in 0..20_u32 {
            let at = f64::from(tenth) / 10.0;
            samples.push(at, &[(Column::CpuNs, at * 1e9), (Column::Memory, 1e6), (Column::Swap, 0.0)]);
        }
        let seen = Observation {
            began: "now".to_owned(),
            facts: Facts::default(),
            rate: 10.0,
            sampling_cost: 0.0,
            tracks: vec![("web".to_owned(), samples)],
        };
        assert_eq!(seen.to_csv().lines().count(), 21);
        assert!(seen.to_csv().starts_with("container,seconds,cpu_ns,"));
        let html = seen.to_html();
        assert!(
            html.contains("processor time (cores)")
                && html.contains("memory (KiB)")
                && !html.contains("swap (")
        );
        assert!(seen.to_json().contains("\"cpu_ns\""));
    }
}
