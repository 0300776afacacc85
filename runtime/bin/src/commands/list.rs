//! `list`: all containers.

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::state::Store;

#[derive(Debug, Args)]
pub(crate) struct List {
    /// How they are shown
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl List {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let containers = store.list()?;
        if self.quiet {
            for container in &containers {
                println!("{}", container.record.id);
            }
            return Ok(0);
        }
        if self.format == Format::Json {
            let shown: Vec<_> = containers.iter().map(|c| c.record.shown(c.status(), c.owner())).collect();
            println!("{}", serde_json::to_string(&shown).context("list")?);
            return Ok(0);
        }
        let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
        let mut rows = vec![header];
        for container in &containers {
            let record = &container.record;
            let status = container.status();
            rows.push([
                record.id.clone(),
                if status == crate::state::Status::Stopped { 0 } else { record.pid }.to_string(),
                status.name().to_owned(),
                record.bundle.display().to_string(),
                record.created.clone(),
                container.owner(),
            ]);
        }
        print!("{}", table(&rows));
        Ok(0)
    }
}

/// Columns as wide as their widest cell, at least 12, three blanks apart, as runc's.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["ID".to_owned(), "PID".to_owned()], ["a-long-identifier".to_owned(), "1".to_owned()]];
        assert_eq!(table(&rows), "ID                  PID\na-long-identifier   1\n");
    }
}
