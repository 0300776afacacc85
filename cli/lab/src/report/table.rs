//! Tables: of what was found, for pages, terminals and spreadsheets.

use std::fmt::Write as _;

use super::number::show;
use crate::experiment::{Expectation, Tolerance, label};
use crate::measure::{Finding, Outcome};
use crate::record::{Recording, csv_text};

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Heads of the columns.
    pub heads: Vec<String>,
    /// Rows.
    pub rows: Vec<Row>,
}

/// A row.
pub type Row = Vec<Cell>;

/// A field of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Text, at the left.
    Text(String),
    /// A number with its unit, at the right.
    Number(String),
    /// Whether something is as it should be.
    Verdict(bool),
    /// Nothing.
    Empty,
}

impl Cell {
    /// As plain text.
    #[must_use]
    pub fn plain(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Verdict(true) => "holds",
            Self::Verdict(false) => "FAILS",
            Self::Empty => "",
        }
    }
}

impl Table {
    /// The table for a terminal: columns by two spaces.
    #[must_use]
    pub fn plain(&self) -> String {
        let width = |column: usize| {
            let cells =
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.plain().chars().count());
            cells.chain([self.heads[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let right =
            |column: usize| self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
        let mut text = String::new();
        let mut line = |cells: Vec<&str>| {
            let mut row = String::new();
            for (column, cell) in cells.into_iter().enumerate() {
                let width = widths[column];
                // Writing into a String does not fail.
                if right(column) {
                    write!(row, "{cell:>width$}  ").ok()
                } else {
                    write!(row, "{cell:<width$}  ").ok()
                };
            }
            text.push_str(row.trim_end());
            text.push('\n');
        };
        line(self.heads.iter().map(String::as_str).collect());
        for row in &self.rows {
            line(row.iter().map(Cell::plain).collect());
        }
        text
    }

    /// The table in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let right =
            |column: usize| self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
        let escape = |text: &str| text.replace('|', "\\|");
        let mut text =
            format!("| {} |\n|", self.heads.iter().map(|head| escape(head)).collect::<Vec<_>>().join(" | "));
        for column in 0..self.heads.len() {
            text.push_str(if right(column) { "---:|" } else { "---|" });
        }
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| escape(cell.plain())).collect();
            writeln!(text, "| {} |", cells.join(" | ")).ok();
        }
        text
    }
}

/// Everything that was found; columns that would be empty are left out.
#[must_use]
pub fn findings(recording: &Recording, outcome: &Outcome) -> Table {
    table_of(recording, outcome.findings.iter())
}

/// What was expected and how it came out; everything if nothing was expected.
#[must_use]
pub fn summary_table(recording: &Recording, outcome: &Outcome) -> Table {
    let expected = || outcome.findings.iter().filter(|finding| finding.expect.is_some());
    if expected().next().is_some() { table_of(recording, expected()) } else { findings(recording, outcome) }
}

fn table_of<'a>(recording: &Recording, findings: impl Iterator<Item = &'a Finding>) -> Table {
    let heads = [
        "setting",
        "measure",
        "engine",
        "mean",
        "95 % interval",
        "deviation",
        "median",
        "runs",
        "expected",
        "off by",
        "",
    ];
    let row = |finding: &Finding| -> Row {
        let number =
            |value: Option<f64>| value.map_or(Cell::Empty, |value| Cell::Number(show(finding.unit, value)));
        let summary = finding.summary;
        let off = finding.deviation().map(|part| Cell::Number(off_by(part)));
        vec![
            Cell::Text(label(&recording.cells[finding.cell])),
            Cell::Text(finding.label.clone()),
            Cell::Text(recording.engines[finding.engine].name.clone()),
            number(summary.map(|summary| summary.mean)),
            match summary.and_then(|summary| summary.confidence) {
                Some(half) => Cell::Number(format!("± {}", show(finding.unit, half))),
                None => Cell::Empty,
            },
            number(summary.and_then(|summary| summary.deviation)),
            number(summary.map(|summary| summary.median)),
            Cell::Number(match finding.values.len() {
                all if all == finding.repetitions => all.to_string(),
                some => format!("{some} of {}", finding.repetitions),
            }),
            finding.expect.map_or(Cell::Empty, |expect| Cell::Text(expected(finding, expect))),
            off.unwrap_or(Cell::Empty),
            finding.holds().map_or(Cell::Empty, Cell::Verdict),
        ]
    };
    let rows: Vec<Row> = findings.map(row).collect();
    without_empty_columns(Table { heads: heads.map(str::to_owned).to_vec(), rows })
}

fn off_by(part: f64) -> String {
    let percent = (part * 10_000.0).round() / 100.0;
    if percent == 0.0 { "0.00 %".to_owned() } else { format!("{percent:+.2} %") }
}

fn expected(finding: &Finding, expect: Expectation) -> String {
    let show = |value| show(finding.unit, value);
    match expect {
        Expectation::Equals { value, within: Tolerance::Relative(part) } => {
            format!("{} ± {} %", show(value), (part * 1000.0).round() / 10.0)
        }
        Expectation::Equals { value, within: Tolerance::Absolute(0.0) } => show(value),
        Expectation::Equals { value, within: Tolerance::Absolute(by) } => {
            format!("{} ± {}", show(value), show(by))
        }
        Expectation::AtLeast(least) => format!("at least {}", show(least)),
        Expectation::AtMost(most) => format!("at most {}", show(most)),
    }
}

fn without_empty_columns(table: Table) -> Table {
    let used: Vec<bool> = (0..table.heads.len())
        .map(|column| table.rows.iter().any(|row| !row[column].plain().is_empty()))
        .collect();
    let keep = |column: &usize| used[*column];
    let columns: Vec<usize> = (0..table.heads.len()).filter(keep).collect();
    Table {
        heads: columns.iter().map(|column| table.heads[*column].clone()).collect(),
        rows: table
            .rows
            .iter()
            .map(|row| columns.iter().map(|column| row[*column].clone()).collect())
            .collect(),
    }
}

/// Every measure of every run, in plain units: seconds, bytes, parts of one.
pub(super) fn measures_csv(recording: &Recording, outcome: &Outcome) -> String {
    let mut csv = String::from("engine,setting,measure,unit,value\n");
    for finding in &outcome.findings {
        let engine = csv_text(&recording.engines[finding.engine].name);
        let setting = csv_text(&label(&recording.cells[finding.cell]));
        let measure = csv_text(&finding.label);
        for value in &finding.values {
            let unit = match finding.unit {
                crate::experiment::Unit::Share => "",
                other => other.symbol(),
            };
            writeln!(csv, "{engine},{setting},{measure},{unit},{value}").ok();
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |name: &str, number: &str, holds| {
            vec![
                Cell::Text(name.to_owned()),
                Cell::Number(number.to_owned()),
                Cell::Empty,
                Cell::Verdict(holds),
            ]
        };
        let heads = ["measure", "mean", "nothing", ""].map(str::to_owned).to_vec();
        Table { heads, rows: vec![row("a|b", "1.5", true), row("c", "10", false)] }
    }

    #[test]
    fn tables_for_terminals_and_markdown() {
        let table = without_empty_columns(table());
        assert_eq!(table.plain(), "measure  mean\na|b       1.5  holds\nc          10  FAILS\n");
        assert_eq!(
            table.markdown(),
            "| measure | mean |  |\n|---|---:|---|\n| a\\|b | 1.5 | holds |\n| c | 10 | FAILS |\n"
        );
    }
}
