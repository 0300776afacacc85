//! Health checks: one task per run asks the container at intervals how it is.
//!
//! ```text
//!              success                 `retries` failures in a row
//!   starting ─────────▶ healthy ◀──────────────────────▶ unhealthy
//!       │                          success
//!       └── failures count only once the start period is over ──▶ unhealthy
//! ```

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Time;
use berth_api::container::{ContainerConfig, Health, HealthConfig, HealthLogEntry};
use berth_api::exec::ExecConfig;
use berth_runtime_client::protocol::{self, Framing};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;

use super::Container;
use super::exit::elapsed;
use super::machine::Phase;
use super::signal::SIGKILL;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

const STARTING: &str = "starting";
const HEALTHY: &str = "healthy";
const UNHEALTHY: &str = "unhealthy";

/// So many results are shown.
const KEPT: usize = 5;
/// So much of a check's output is shown.
const MAX_OUTPUT: usize = 4096;
/// The code of a check that could not be made, or took too long.
const FAILED: i64 = -1;

/// A check, with docker's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

/// What a client is told of a check of a kind that there is not: dockerd takes it, and never makes it.
pub(super) fn warning(check: &HealthConfig) -> Option<String> {
    let kind = check.test.as_ref()?.first()?;
    (!["", "NONE", "CMD", "CMD-SHELL"].contains(&kind.as_str())).then(|| {
        format!("Unknown healthcheck type '{kind}' (expected 'CMD' or 'CMD-SHELL'): the container's health is not checked")
    })
}

/// Refuses what cannot be a check.
pub(super) fn validate(check: &HealthConfig) -> Result<()> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        if time != 0 && time < 1_000_000 {
            return Err(EngineError::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(EngineError::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

impl Check {
    fn of(config: &ContainerConfig) -> Option<Self> {
        let check = config.healthcheck.as_ref()?;
        let test = check.test.as_deref().unwrap_or_default();
        let command = match test.split_first()? {
            (kind, words) if kind == "CMD" && !words.is_empty() => words.to_vec(),
            (kind, [text, ..]) if kind == "CMD-SHELL" => {
                let shell =
                    config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                shell.into_iter().chain([text.clone()]).collect()
            }
            _ => return None,
        };
        let time = |nanos: i64, default: u64| match u64::try_from(nanos) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: time(check.interval, 30),
            timeout: time(check.timeout, 30),
            start_period: time(check.start_period, 0),
            start_interval: time(check.start_interval, 5),
            retries: if check.retries > 0 { check.retries } else { 3 },
        })
    }

    /// How long until the next check.
    fn pause(&self, health: &Health, running: Duration) -> Duration {
        if health.status == STARTING && running < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// The health after a result.
    fn judge(&self, health: &Health, result: HealthLogEntry, running: Duration) -> Health {
        let mut next = health.clone();
        if result.exit_code == 0 {
            next.failing_streak = 0;
            HEALTHY.clone_into(&mut next.status);
        } else if health.status != STARTING || running >= self.start_period {
            next.failing_streak += 1;
            if next.failing_streak >= self.retries {
                UNHEALTHY.clone_into(&mut next.status);
            }
        }
        let log = next.log.get_or_insert_default();
        log.push(result);
        let surplus = log.len().saturating_sub(KEPT);
        log.drain(..surplus);
        next
    }
}

/// The health of a container that has just been started; none without a check.
pub(super) fn at_start(config: &ContainerConfig) -> Option<Health> {
    Check::of(config).map(|_| Health {
        status: STARTING.to_owned(),
        failing_streak: 0,
        log: Some(Vec::new()),
    })
}

impl Engine {
    /// Checks a container until its run ends.
    pub(crate) fn watch_health(self: &Arc<Self>, container: &Arc<Container>) {
        let Some(check) = Check::of(&container.definition().config) else { return };
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        let mut status = container.watch();
        let ends = status.borrow().ends;
        tokio::spawn(async move {
            loop {
                let now = container.status();
                let health = now.health.unwrap_or_default();
                let pause = check.pause(&health, running(now.started_at));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = status.wait_for(|status| status.ends != ends || status.removed) => return,
                    () = engine.closed.cancelled() => return,
                }
                if container.phase() == Phase::Paused {
                    continue;
                }
                let result = engine.check_once(&container, &check).await;
                if container.status().ends != ends {
                    return;
                }
                engine.note_health(&container, &check, result);
            }
        });
    }

    fn note_health(&self, container: &Container, check: &Check, result: HealthLogEntry) {
        let now = container.status();
        let before = now.health.unwrap_or_default();
        let after = check.judge(&before, result, running(now.started_at));
        let text = after.status.clone();
        let changed = text != before.status;
        self.note(container.note(&self.db, |status| status.health = Some(after)));
        if changed {
            let action = format!("health_status: {text}");
            self.events.publish("container", action, &container.id, container.attributes(&[]));
        }
    }

    async fn check_once(self: &Arc<Self>, container: &Arc<Container>, check: &Check) -> HealthLogEntry {
        let start = Time::now();
        let result = tokio::time::timeout(check.timeout, self.run_check(container, check)).await;
        let (exit_code, output) = match result {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => (FAILED, error.to_string()),
            Err(_) => (FAILED, format!("Health check exceeded timeout ({:?})", check.timeout)),
        };
        HealthLogEntry { start, end: Time::now(), exit_code, output }
    }

    async fn run_check(self: &Arc<Self>, container: &Arc<Container>, check: &Check) -> Result<(i64, String)> {
        let failed = |error: std::io::Error| EngineError::io("make a stream for", "the health check", error);
        let config = ExecConfig { cmd: Some(check.command.clone()), ..ExecConfig::default() };
        let exec = self.register_exec(container, config, Vec::new(), true);
        let shim = container.shim()?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let attach = protocol::Attach::output(Framing::Raw);
        // Dropped when the time is up: the process is killed then.
        let mut guard = KillOnDrop { shim: Some(shim), id: exec.id().to_owned() };
        self.run_exec(&exec, None, Some((attach, OwnedFd::from(theirs)))).await?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut stream = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        let mut output = Vec::new();
        let mut piece = vec![0; MAX_OUTPUT];
        loop {
            let read = stream.read(&mut piece).await.map_err(failed)?;
            if read == 0 {
                break;
            }
            output.extend_from_slice(&piece[..read.min(MAX_OUTPUT.saturating_sub(output.len()))]);
        }
        let code = exec.ended().await;
        guard.shim = None;
        let mut text = String::from_utf8_lossy(&output).into_owned();
        if output.len() == MAX_OUTPUT {
            text.push_str("...");
        }
        Ok((i64::from(code), text))
    }
}

struct KillOnDrop {
    shim: Option<berth_runtime_client::Shim>,
    id: String,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let Some(shim) = self.shim.take() else { return };
        let id = std::mem::take(&mut self.id);
        tokio::spawn(async move {
            if let Err(error) = shim.kill_exec(&id, SIGKILL).await {
                tracing::debug!(%error, "ending a health check");
            }
        });
    }
}

fn running(since: Option<Timestamp>) -> Duration {
    since.map_or(Duration::ZERO, |since| elapsed(since, Timestamp::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Option<Check> {
        Check::of(&serde_json::from_str::<ContainerConfig>(json).unwrap())
    }

    fn result(exit_code: i64) -> HealthLogEntry {
        HealthLogEntry { exit_code, ..HealthLogEntry::default() }
    }

    #[test]
    fn checks_have_dockers_defaults() {
        assert_eq!(check("{}"), None);
        assert_eq!(check(r#"{"Healthcheck":{"Test":["NONE"]}}"#), None);
        let shell =
            check(r#"{"Healthcheck":{"Test":["CMD-SHELL","exit 0"],"Interval":2000000000}}"#).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!((shell.interval, shell.timeout), (Duration::from_secs(2), Duration::from_secs(30)));
        assert_eq!((shell.retries, shell.start_interval), (3, Duration::from_secs(5)));
        assert_eq!(check(r#"{"Healthcheck":{"Test":["CMD","a","b"]}}"#).unwrap().command, ["a", "b"]);
    }

    #[test]
    fn failures_count_after_the_start_period() {
        let check =
            check(r#"{"Healthcheck":{"Test":["CMD","x"],"Retries":2,"StartPeriod":10000000000}}"#).unwrap();
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(11));
        let start = Health { status: STARTING.into(), ..Health::default() };
        assert_eq!(check.pause(&start, early), check.start_interval);
        assert_eq!(check.pause(&start, late), check.interval);
        let same = check.judge(&start, result(1), early);
        assert_eq!((same.status.as_str(), same.failing_streak), (STARTING, 0));
        let once = check.judge(&same, result(1), late);
        assert_eq!((once.status.as_str(), once.failing_streak), (STARTING, 1));
        let twice = check.judge(&once, result(-1), late);
        assert_eq!((twice.status.as_str(), twice.failing_streak), (UNHEALTHY, 2));
        let well = check.judge(&twice, result(0), late);
        assert_eq!((well.status.as_str(), well.failing_streak), (HEALTHY, 0));
        // One failure of a healthy container counts at once, whatever the start period.
        assert_eq!(check.judge(&well, result(1), early).failing_streak, 1);
    }

    #[test]
    fn only_the_last_results_are_kept() {
        let check = check(r#"{"Healthcheck":{"Test":["CMD","x"]}}"#).unwrap();
        let mut health = Health::default();
        for code in 1..=9 {
            health = check.judge(&health, result(code), Duration::ZERO);
        }
        let codes: Vec<i64> = health.log.unwrap().iter().map(|entry| entry.exit_code).collect();
        assert_eq!(codes, [5, 6, 7, 8, 9]);
    }

    #[test]
    fn nonsense_is_refused() {
        let message =
            |json: &str| validate(&serde_json::from_str(json).unwrap()).unwrap_err().message().to_owned();
        let warned = |json: &str| warning(&serde_json::from_str(json).unwrap());
        assert!(warned(r#"{"Test":["X"]}"#).unwrap().contains("Unknown healthcheck type 'X'"));
        assert_eq!(warned(r#"{"Test":["CMD","X"]}"#), None);
        assert_eq!(message(r#"{"Interval":5}"#), "Interval in Healthcheck cannot be less than 1ms");
        assert_eq!(message(r#"{"Retries":-1}"#), "Retries in Healthcheck cannot be negative");
    }
}
