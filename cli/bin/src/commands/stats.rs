//! `berth stats`: a table that goes on, or a recording.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_api::options::{ListContainers, Stats as Sampling};
use berth_api::stats::{ContainerStats, MemoryStats};
use berth_client::Client;
use berth_lab::facts::Facts;
use berth_lab::observe::{self, Observation};
use berth_lab::sample::Sampler;
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::ps::short;
use super::top::spark;
use crate::exit::Exit;
use crate::output::list::{Column, Style, render};
use crate::output::units;
use crate::session::Session;

/// Which containers are shown, and how.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Also containers that do not run
    #[arg(short, long)]
    pub(super) all: bool,
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Once only
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

/// Show what containers use, again and again
#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    look: Look,
    /// Record the kernel's counters to a file, .csv or .json, instead of showing them
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Draw what was recorded to a page, .html
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Readings a second of a recording, at most 10
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    rate: f64,
    /// How long to record; otherwise until ctrl-c, or until all containers have ended
    #[arg(long = "for", value_name = "TIME", value_parser = units::parse_duration)]
    period: Option<i64>,
    /// Containers; all that run if there are none
    containers: Vec<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("'{text}' is no number of readings a second"))?;
    if (0.1..=10.0).contains(&rate) { Ok(rate) } else { Err("from 0.1 to 10 readings a second".to_owned()) }
}

const COLUMNS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// What a terminal shows besides: the processor in the last readings.
const HISTORY: Column = ("CPU, LATELY", "History");
const READINGS: usize = 16;

/// To the upper left corner; the rest of this line away; all below away (ECMA-48 CUP, EL, ED). A screen that is cleared
/// first would flicker.
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\n";
const BELOW: &str = "\x1b[J";

pub(crate) async fn run(session: &Session, args: Stats) -> Result<Exit> {
    let client = session.client().await?;
    if args.record.is_some() || args.plot.is_some() {
        return record(&client, &args).await;
    }
    show(&client, &args.look, &args.containers).await
}

/// Shows containers, all that run if none are named, until the user ends it.
pub(super) async fn show(client: &Client, look: &Look, containers: &[String]) -> Result<Exit> {
    let style = Style { format: look.format.as_deref(), only: None };
    let live = !look.no_stream && style.format.is_none() && std::io::stdout().is_terminal();
    let mut columns = COLUMNS.to_vec();
    columns.extend(live.then_some(HISTORY));
    let mut histories = BTreeMap::new();
    loop {
        let mut rows = rows(client, look, containers).await?;
        remember(&mut histories, &mut rows);
        let text = render(style, &columns, &[("CONTAINER", "Container")], &rows)?;
        let mut out = std::io::stdout().lock();
        if look.no_stream {
            out.write_all(text.as_bytes())?;
            return Ok(Exit::Success);
        }
        write!(out, "{HOME}{}{BELOW}", text.replace('\n', LINE_END))?;
        out.flush()?;
        drop(out);
        // Each sample takes its own time as well: the engine compares it with one a second older.
        tokio::time::sleep(Duration::from_millis(if rows.is_empty() { 1000 } else { 10 })).await;
    }
}

/// Adds to each row how much of the processor it took lately; forgets who is not there any more.
fn remember(histories: &mut BTreeMap<String, Vec<f64>>, rows: &mut [Value]) {
    let name = |row: &Value| row["Container"].as_str().unwrap_or_default().to_owned();
    let present: BTreeSet<String> = rows.iter().map(name).collect();
    histories.retain(|container, _| present.contains(container));
    for row in rows {
        let now = row["CPUPerc"].as_str().and_then(|text| text.trim_end_matches('%').parse().ok());
        let history = histories.entry(name(row)).or_default();
        history.push(now.unwrap_or(0.0));
        history.drain(..history.len().saturating_sub(READINGS));
        // Against a whole processor, or more where more was taken: who idles shows a line, not noise.
        let highest = history.iter().copied().fold(100.0, f64::max);
        row["History"] = spark(history, highest, READINGS).into();
    }
}

/// Samples until the time is over, the user ends it, or nobody is left; then writes.
async fn record(client: &Client, args: &Stats) -> Result<Exit> {
    let ends_with = |path: &PathBuf, ends: &[&str]| {
        path.extension().is_some_and(|extension| ends.iter().any(|end| extension.eq_ignore_ascii_case(end)))
    };
    if let Some(path) = args.record.as_ref().filter(|path| !ends_with(path, &["csv", "json"])) {
        bail!("--record {}: the name must end in .csv or .json", path.display());
    }
    if let Some(path) = args.plot.as_ref().filter(|path| !ends_with(path, &["html"])) {
        bail!("--plot {}: the name must end in .html", path.display());
    }
    let (facts, began) = (Facts::gather(), jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let (sampler, origin) = (Sampler::start(args.rate)?, Instant::now());
    let containers = match args.containers.as_slice() {
        [] => client.container_list(&ListContainers::default()).await?.into_iter().map(|c| c.id).collect(),
        named => named.to_vec(),
    };
    let mut watches = Vec::new();
    for container in &containers {
        match observe::watch(client, &sampler, container, origin).await? {
            Some(watch) => watches.push(watch),
            None => bail!("container {container} does not run: there is nothing to record"),
        }
    }
    if watches.is_empty() {
        bail!("no container runs: there is nothing to record");
    }
    eprintln!("recording {} containers; ctrl-c ends it", watches.len());
    let until = args.period.map(|nanoseconds| origin + Duration::from_nanos(nanoseconds.unsigned_abs()));
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    while watches.iter().any(|(_, watch)| !watch.is_over())
        && until.is_none_or(|until| Instant::now() < until)
    {
        tokio::select! {
            _ = tokio::time::sleep(Duration::from_millis(50)) => {}
            _ = &mut interrupt => break,
        }
    }
    let tracks = watches.into_iter().map(|(name, watch)| (name, watch.finish())).collect();
    let seen = Observation { began, facts, rate: args.rate, sampling_cost: sampler.finish(), tracks };
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &args.record {
        write(path, if ends_with(path, &["json"]) { seen.to_json() } else { seen.to_csv() })?;
    }
    if let Some(path) = &args.plot {
        write(path, seen.to_html())?;
    }
    let readings: usize = seen.tracks.iter().map(|(_, samples)| samples.at.len()).sum();
    eprintln!("{readings} readings; taking them took {:.3} % of one processor", seen.sampling_cost * 100.0);
    Ok(Exit::Success)
}

async fn rows(client: &Client, look: &Look, containers: &[String]) -> Result<Vec<Value>> {
    let named = !containers.is_empty();
    let containers = if named {
        containers.to_vec()
    } else {
        let options = ListContainers { all: look.all, ..ListContainers::default() };
        client.container_list(&options).await?.into_iter().map(|container| container.id).collect()
    };
    let samples = containers.iter().map(async |container| match sample(client, container).await {
        // One that nobody named may have gone since it was listed.
        Err(error) if !named && error.is_not_found() => Ok(None),
        Err(error) => Err(error),
        Ok(None) => Ok(None),
        Ok(Some(stats)) => Ok(Some(row(container, &stats, look.no_trunc))),
    });
    Ok(try_join_all(samples).await?.into_iter().flatten().collect())
}

async fn sample(client: &Client, container: &str) -> berth_client::Result<Option<ContainerStats>> {
    client.container_stats(container, Sampling { stream: false, one_shot: false }).await?.next().await
}

fn row(container: &str, stats: &ContainerStats, whole: bool) -> Value {
    let decimal = |bytes: u64| units::size(i64::try_from(bytes).unwrap_or(i64::MAX));
    let used = memory(&stats.memory_stats);
    let limit = stats.memory_stats.limit;
    let (received, sent) = stats
        .networks
        .iter()
        .flatten()
        .fold((0, 0), |(received, sent), (_, net)| (received + net.rx_bytes, sent + net.tx_bytes));
    let (read, written) = blocks(stats);
    json!({
        "Container": container,
        "ID": if whole { &stats.id } else { short(&stats.id) },
        "Name": stats.name.trim_start_matches('/'),
        "CPUPerc": format!("{:.2}%", cpu(stats)),
        "MemUsage": format!("{} / {}", units::memory(used), units::memory(limit)),
        "MemPerc": format!("{:.2}%", if limit == 0 { 0.0 } else { used as f64 / limit as f64 * 100.0 }),
        "NetIO": format!("{} / {}", decimal(received), decimal(sent)),
        "BlockIO": format!("{} / {}", decimal(read), decimal(written)),
        "PIDs": stats.pids_stats.current,
    })
}

/// Percent of one processor.
fn cpu(stats: &ContainerStats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let used = now.cpu_usage.total_usage.saturating_sub(before.cpu_usage.total_usage) as f64;
    let passed = now.system_cpu_usage.saturating_sub(before.system_cpu_usage) as f64;
    let by_cpu = now.cpu_usage.percpu_usage.as_ref().map_or(0, Vec::len);
    let cpus = if now.online_cpus > 0 { f64::from(now.online_cpus) } else { by_cpu as f64 };
    if passed > 0.0 { used / passed * cpus * 100.0 } else { 0.0 }
}

/// Memory without the page cache that can be dropped, as docker's CLI counts it on cgroup v1 and v2.
fn memory(memory: &MemoryStats) -> u64 {
    let stat = |key| memory.stats.as_ref().and_then(|stats| stats.get(key)).copied();
    let cache = stat("total_inactive_file").or_else(|| stat("inactive_file")).unwrap_or(0);
    if cache < memory.usage { memory.usage - cache } else { memory.usage }
}

fn blocks(stats: &ContainerStats) -> (u64, u64) {
    let entries = stats.blkio_stats.io_service_bytes_recursive.iter().flatten();
    entries.fold((0, 0), |(read, written), entry| match entry.op.bytes().next() {
        Some(b'r' | b'R') => (read + entry.value, written),
        Some(b'w' | b'W') => (read, written + entry.value),
        _ => (read, written),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_was_lately() {
        let mut histories = BTreeMap::new();
        let rows = |percent: &str| vec![json!({"Container": "c", "CPUPerc": percent})];
        remember(&mut histories, &mut rows("0.00%"));
        let mut now = rows("100.00%");
        remember(&mut histories, &mut now);
        assert_eq!(now[0]["History"], "▁█");
        remember(&mut histories, &mut []);
        assert!(histories.is_empty());
    }

    #[test]
    fn a_row() {
        let text = r#"{"name": "/n", "id": "0123456789abcdef",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 2097152, "limit": 67108864, "stats": {"total_inactive_file": 1048576}},
            "networks": {"eth0": {"rx_bytes": 656, "tx_bytes": 0}}, "pids_stats": {"current": 1},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 1000}, {"op": "write", "value": 5}]}}"#;
        let row = row("c", &serde_json::from_str(text).expect("valid"), false);
        assert_eq!(row["CPUPerc"], "20.00%");
        assert_eq!(row["MemUsage"], "1MiB / 64MiB");
        assert_eq!(
            (&row["MemPerc"], &row["NetIO"], &row["BlockIO"]),
            (&json!("1.56%"), &json!("656B / 0B"), &json!("1kB / 5B"))
        );
        assert_eq!(
            (&row["Name"], &row["ID"], &row["PIDs"]),
            (&json!("n"), &json!("0123456789ab"), &json!(1))
        );
    }
}
