//! Comparisons: measurements of several subjects, as lines of JSON, become tables of medians and ratios.
//!
//! A line is a measurement or a fact:
//!
//! ```text
//! {"suite": "Containers", "case": "run --rm IMAGE true", "unit": "ms", "subject": "berth", "value": 15.2}
//! {"subject": "berth", "version": "0.1.0"}
//! ```

use indexmap::IndexMap;
use serde::Deserialize;

use crate::facts::Facts;
use crate::plot::Forest;
use crate::report::{Page, Section, Table, TableCell};
use crate::statistics::{Ratio, ratio_of_medians, summarize};

/// Measurements by suite, case and subject, in the order they came.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    suites: IndexMap<String, IndexMap<String, Case>>,
    versions: IndexMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Case {
    unit: String,
    subjects: IndexMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Measurement { suite: String, case: String, unit: String, subject: String, value: f64 },
    Fact { subject: String, version: String },
}

/// A line that is neither a measurement nor a fact.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}; a measurement has suite, case, unit, subject and value")]
pub struct NoMeasurement {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Comparison {
    /// Reads lines of JSON; empty ones are passed over.
    ///
    /// # Errors
    /// At the first line that is neither a measurement nor a fact.
    pub fn parse(text: &str) -> Result<Self, NoMeasurement> {
        let mut comparison = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong =
                |error: serde_json::Error| NoMeasurement { line: number + 1, reason: error.to_string() };
            match serde_json::from_str(line).map_err(wrong)? {
                Line::Measurement { suite, case, unit, subject, value } => {
                    let case = comparison.suites.entry(suite).or_default().entry(case).or_default();
                    case.unit = unit;
                    case.subjects.entry(subject).or_default().push(value);
                }
                Line::Fact { subject, version } => {
                    comparison.versions.insert(subject, version);
                }
            }
        }
        Ok(comparison)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }

    /// Subjects of a suite, the baseline first.
    fn subjects(cases: &IndexMap<String, Case>, baseline: &str) -> Vec<String> {
        let mut subjects: Vec<String> = Vec::new();
        for subject in cases.values().flat_map(|case| case.subjects.keys()) {
            if !subjects.contains(subject) {
                subjects.push(subject.clone());
            }
        }
        subjects.sort_by_key(|subject| subject != baseline);
        subjects
    }

    /// Medians of a suite, and how many times the baseline's the others' are.
    fn table(cases: &IndexMap<String, Case>, baseline: &str) -> Table {
        let subjects = Self::subjects(cases, baseline);
        let mut heads = vec!["".to_owned(), "runs".to_owned()];
        heads.extend(subjects.iter().cloned());
        let row = |(name, case): (&String, &Case)| {
            let most = case.subjects.values().map(Vec::len).max().unwrap_or(0);
            let mut row =
                vec![TableCell::Text(format!("{name}, {}", case.unit)), TableCell::Number(most.to_string())];
            for subject in &subjects {
                let values = case.subjects.get(subject).map(Vec::as_slice).unwrap_or_default();
                let Some(summary) = summarize(values) else {
                    row.push(TableCell::Empty);
                    continue;
                };
                let mut text = number(summary.median);
                if let Some(ratio) = case.ratio(subject, baseline).filter(|_| subject != baseline) {
                    text = format!("{text} ({})", times(ratio));
                }
                row.push(TableCell::Number(text));
            }
            row
        };
        Table { heads, rows: cases.iter().map(row).collect() }
    }

    fn forest(title: &str, cases: &IndexMap<String, Case>, baseline: &str) -> Forest {
        let peers: Vec<String> =
            Self::subjects(cases, baseline).into_iter().filter(|subject| subject != baseline).collect();
        let rows = cases.iter().map(|(name, case)| {
            (name.clone(), peers.iter().map(|peer| case.ratio(peer, baseline)).collect::<Vec<_>>())
        });
        let rows = rows.filter(|(_, ratios)| ratios.iter().any(Option::is_some)).collect();
        Forest {
            title: title.to_owned(),
            label: format!(
                "times {baseline}'s median, with 95 % interval; to the right of 1× {baseline} needs less"
            ),
            series: peers,
            rows,
        }
    }

    /// The page.
    #[must_use]
    pub fn to_html(&self, title: &str, baseline: &str, facts: &Facts, began: &str) -> String {
        let mut sections = vec![Section::Text(method(baseline))];
        for (name, cases) in &self.suites {
            sections.push(Section::Heading(name.clone()));
            let forest = Self::forest(name, cases, baseline);
            if !forest.rows.is_empty() {
                sections.push(Section::Plots(vec![(forest.draw(), false)]));
            }
            sections.push(Section::Table(Self::table(cases, baseline)));
        }
        sections.push(Section::Heading("Machine and versions".to_owned()));
        sections.push(Section::Table(self.facts_table(facts)));
        Page { title: title.to_owned(), subtitle: format!("Measured {began}"), verdict: None, sections }
            .render()
    }

    /// The tables in Markdown.
    #[must_use]
    pub fn to_markdown(&self, title: &str, baseline: &str, facts: &Facts, began: &str) -> String {
        let mut text = format!("# {title}\n\nMeasured {began}. {}\n", method(baseline));
        for (name, cases) in &self.suites {
            text.push_str(&format!("\n## {name}\n\n{}", Self::table(cases, baseline).markdown()));
        }
        text.push_str(&format!("\n## Machine and versions\n\n{}", self.facts_table(facts).markdown()));
        text
    }

    fn facts_table(&self, facts: &Facts) -> Table {
        let row = |(name, value): (&String, &String)| {
            vec![TableCell::Text(name.clone()), TableCell::Text(value.clone())]
        };
        let machine = facts.machine.iter().map(|(name, value)| row((name, value)));
        Table {
            heads: vec!["fact".to_owned(), "value".to_owned()],
            rows: machine.chain(self.versions.iter().map(row)).collect(),
        }
    }
}

impl Case {
    fn ratio(&self, subject: &str, baseline: &str) -> Option<Ratio> {
        ratio_of_medians(self.subjects.get(subject)?, self.subjects.get(baseline)?)
    }
}

fn method(baseline: &str) -> String {
    format!(
        "The subjects take turns, so that they see the same machine. Figures are medians; in brackets stands how many \
         times {baseline}'s median that is, with the 95 % interval of that ratio (percentile bootstrap)."
    )
}

/// `9.0×, 8.7 to 9.4`.
fn times(ratio: Ratio) -> String {
    let show = |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    format!("{}×, {} to {}", show(ratio.ratio), show(ratio.low), show(ratio.high))
}

fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> String {
        let line = |subject: &str, value: f64| {
            format!(
                r#"{{"suite": "S", "case": "run", "unit": "ms", "subject": "{subject}", "value": {value}}}"#
            )
        };
        let mut lines: Vec<String> = vec![line("dockerd", 90.0)];
        for step in 0..5 {
            lines.push(line("berth", 10.0 + f64::from(step) / 10.0));
            lines.push(line("dockerd", 90.0 + f64::from(step)));
        }
        lines.push(r#"{"subject": "berth", "version": "0.1.0"}"#.to_owned());
        lines.join("\n")
    }

    #[test]
    fn medians_and_ratios() {
        let comparison = Comparison::parse(&lines()).expect("valid");
        let markdown = comparison.to_markdown("T", "berth", &Facts::default(), "now");
        assert!(markdown.contains("|  | runs | berth | dockerd |"), "{markdown}");
        assert!(markdown.contains("| run, ms | 6 | 10.2 | 91.5 (8.97×, "), "{markdown}");
        assert!(markdown.contains("| berth | 0.1.0 |"), "{markdown}");
        let html = comparison.to_html("T", "berth", &Facts::default(), "now");
        assert!(html.contains("<svg") && html.contains("10×"), "{html}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = Comparison::parse("\n{\"suite\": 1}\n").expect_err("wrong");
        assert!(error.to_string().starts_with("line 2: "), "{error}");
    }
}
