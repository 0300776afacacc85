//! Top: the processes of a container, as ps(1) of the host shows them. Docker's `ps_args` are ps(1)'s own, so the
//! program itself is asked; nothing hot goes this way.

use std::sync::Arc;

use berth_api::container::TopResponse;
use tokio::process::Command;

use super::machine::Phase;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// The processes of a container. No arguments mean `-ef`.
    ///
    /// # Errors
    /// When it does not run, or ps(1) is not there or refuses the arguments.
    pub async fn top_container(self: &Arc<Self>, name: &str, ps_args: &str) -> Result<TopResponse> {
        let container = self.containers.find(name)?;
        if container.phase() == Phase::Restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let pids = container.shim()?.pids().await?;
        let args = if ps_args.trim().is_empty() { "-ef" } else { ps_args };
        let output = Command::new("ps").args(args.split_whitespace()).output().await;
        let output = output.map_err(|error| {
            EngineError::internal(format!("ps: {error}: install procps on the host to list processes"))
        })?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let first = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let first = first.strip_prefix("ps: ").unwrap_or(first);
            return Err(EngineError::internal(format!("ps: {first}")));
        }
        let table = parse(&String::from_utf8_lossy(&output.stdout), &pids)?;
        self.events.publish("container", "top", &container.id, container.attributes(&[]));
        Ok(table)
    }
}

/// The lines of these processes. The last column takes what is left of the line.
fn parse(text: &str, pids: &[i32]) -> Result<TopResponse> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| EngineError::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words.get(column).and_then(|word| word.parse::<i32>().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) || words.len() < titles.len() {
            continue;
        }
        let (fixed, rest) = words.split_at(titles.len() - 1);
        processes.push(fixed.iter().map(|word| (*word).to_owned()).chain([rest.join(" ")]).collect());
    }
    Ok(TopResponse { processes, titles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_stay() {
        let text = "UID PID PPID CMD\nroot 1 0 init\nroot 20 1 sh -c  sleep 1\n";
        let table = parse(text, &[20]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(table.processes, [["root", "20", "1", "sh -c sleep 1"]]);
        assert!(parse("A B\n", &[]).is_err());
    }
}
