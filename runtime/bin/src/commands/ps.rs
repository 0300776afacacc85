//! `ps`: the processes of a container.

use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::state::{Status, Store};

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// How they are shown
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
    /// Options for ps(1), whose output is filtered
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS-OPTIONS")]
    options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Ps {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        // One that has ended may have left processes behind.
        let pids = match (container.cgroup()?, container.status()) {
            (Some(cgroup), _) => cgroup.pids()?,
            (None, Status::Stopped) => Vec::new(),
            (None, _) => bail!("the cgroup {} is gone", container.record.cgroup.display()),
        };
        if self.format == Format::Json {
            println!("{}", serde_json::to_string(&pids).context("ps")?);
            return Ok(0);
        }
        let options = if self.options.is_empty() { vec!["-ef".to_owned()] } else { self.options.clone() };
        let output = Command::new("ps")
            .args(&options)
            .output()
            .context("run ps (install procps, or use --format json)")?;
        if !output.status.success() {
            bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        print!("{}", filter(&String::from_utf8_lossy(&output.stdout), &pids)?);
        Ok(0)
    }
}

/// The header, and the lines whose PID column holds one of the pids.
fn filter(text: &str, pids: &[i32]) -> anyhow::Result<String> {
    let mut lines = text.lines();
    let header = lines.next().context("ps printed nothing")?;
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .context("ps printed no PID column (choose other options)")?;
    let wanted = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(header).chain(lines.filter(wanted)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_stay() {
        let text = "UID PID PPID CMD\nroot 1 0 init\nroot 42 1 sh\nroot 43 42 sleep 1\n";
        assert_eq!(filter(text, &[42]).unwrap(), "UID PID PPID CMD\nroot 42 1 sh\n");
        assert!(filter("UID CMD\n", &[1]).is_err());
    }
}
