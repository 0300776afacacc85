//! `events`: what a container uses and when it ran out of memory, one JSON object a line.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use berth_cgroup::{Cgroup, OomWatch};
use clap::Args;
use jiff::SignedDuration;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::state::{Container, Status, Store};
use crate::stats;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Time between two readings of the counters, such as 500ms or 5s
    #[arg(long, default_value = "5s", value_parser = interval)]
    interval: Duration,
    /// Show the counters once, and end
    #[arg(long)]
    stats: bool,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|error| format!("{error} (try 5s or 500ms)"))?;
    match Duration::try_from(parsed) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        _ => Err("duration interval must be greater than 0".to_owned()),
    }
}

impl Events {
    pub(crate) fn run(&self, store: &Store) -> anyhow::Result<u8> {
        let container = store.load(&self.id)?;
        if matches!(container.status(), Status::Stopped | Status::Creating) {
            bail!("container with id {} is not running", self.id);
        }
        let cgroup = container.live_cgroup()?;
        if self.stats {
            self.tell_stats(&container, &cgroup)?;
        } else {
            self.follow(&container, &cgroup)?;
        }
        Ok(0)
    }

    /// Until the container ends, or nobody listens any more.
    fn follow(&self, container: &Container, cgroup: &Cgroup) -> anyhow::Result<()> {
        let Some(init) = container.init()? else { return Ok(()) };
        let watch = cgroup.oom_watch()?;
        let mut seen = cgroup.oom_kills()?;
        let mut due = Instant::now() + self.interval;
        loop {
            if wait(&init, watch.as_ref(), due)? {
                return Ok(());
            }
            if let Some(watch) = &watch {
                watch.drain()?;
            }
            match cgroup.oom_kills() {
                // The group goes a moment before its last process is reaped.
                Err(error) if error.is_not_found() => return Ok(()),
                kills => {
                    let kills = kills?;
                    (seen..kills).try_for_each(|_| tell(&json!({ "type": "oom", "id": self.id })))?;
                    seen = kills;
                }
            }
            if Instant::now() >= due {
                self.tell_stats(container, cgroup)?;
                due = Instant::now() + self.interval;
            }
        }
    }

    fn tell_stats(&self, container: &Container, cgroup: &Cgroup) -> anyhow::Result<()> {
        let rdt = container.rdt()?.map(|group| group.stats()).transpose()?;
        let data = stats::runc(&cgroup.stats()?, &rdt.unwrap_or_default());
        tell(&json!({ "type": "stats", "id": self.id, "data": data }))
    }
}

/// Sleeps until something may have happened; true if the container has ended.
fn wait(init: &OwnedFd, watch: Option<&OomWatch>, due: Instant) -> anyhow::Result<bool> {
    let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    fds.extend(watch.map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
    let left = due.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(fds[0].any().unwrap_or(false)),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// One line, at once: the reader is a program that waits for it. `type` and `id` come first, as runc writes them.
fn tell(event: &serde_json::Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", ordered(event)).and_then(|()| stdout.flush()).context("write to standard output")
}

fn ordered(event: &serde_json::Value) -> String {
    let head = format!("{{\"type\":{},\"id\":{}", event["type"], event["id"]);
    match event.get("data") {
        Some(data) => format!("{head},\"data\":{data}}}"),
        None => format!("{head}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "-1s", "soon"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_kind_comes_first() {
        let line = ordered(&json!({ "data": { "a": 1 }, "id": "c", "type": "stats" }));
        assert_eq!(line, r#"{"type":"stats","id":"c","data":{"a":1}}"#);
        assert_eq!(ordered(&json!({ "type": "oom", "id": "c" })), r#"{"type":"oom","id":"c"}"#);
    }
}
