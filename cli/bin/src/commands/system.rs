//! `berth system df`, `check` and `shutdown`.

use anyhow::Result;
use berth_api::options::{CheckStore, DiskUsageKinds};
use berth_api::system::DiskUsage;
use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::output::list::{Column, Style, render};
use crate::output::units;
use crate::session::Session;

/// Show the use of disk
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
}

/// Prove that the image store is whole
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Mend what is damaged: unpack layers again, fetch blobs again
    #[arg(long)]
    repair: bool,
    /// Only look whether everything is there; do not read it
    #[arg(long)]
    quick: bool,
}

/// Stop the engine
#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    /// Stop the containers too; they go on otherwise
    #[arg(long)]
    containers: bool,
}

const COLUMNS: &[Column] = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

pub(crate) async fn df(session: &Session, args: Df) -> Result<Exit> {
    let usage = session.client().await?.disk_usage(DiskUsageKinds::default()).await?;
    let style = Style { format: args.format.as_deref(), only: None };
    print!("{}", render(style, COLUMNS, &[], &rows(&usage))?);
    Ok(Exit::Success)
}

fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Value {
    let percent = if size > 0 { format!(" ({}%)", reclaimable * 100 / size) } else { String::new() };
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": units::size(size),
        "Reclaimable": format!("{}{percent}", units::size(reclaimable)),
    })
}

fn rows(usage: &DiskUsage) -> Vec<Value> {
    let images = usage.images.as_deref().unwrap_or_default();
    let in_use = images.iter().filter(|image| image.containers > 0);
    let own = |size: i64, shared: i64| if size < 0 || shared < 0 { 0 } else { size - shared };
    let used: i64 = in_use.clone().map(|image| own(image.size, image.shared_size)).sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let lives = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let idle = containers.iter().filter(|container| !lives(&container.state));
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let volumes: Vec<(i64, bool)> = volumes
        .iter()
        .map(|volume| volume.usage_data.as_ref().map_or((0, false), |u| (u.size.max(0), u.ref_count > 0)))
        .collect();
    let cache = usage.build_cache.as_deref().unwrap_or_default();
    vec![
        row("Images", images.len(), in_use.count(), usage.layers_size, (usage.layers_size - used).max(0)),
        row(
            "Containers",
            containers.len(),
            containers.len() - idle.clone().count(),
            containers.iter().map(|container| container.size_rw).sum(),
            idle.map(|container| container.size_rw).sum(),
        ),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(|(_, used)| *used).count(),
            volumes.iter().map(|(size, _)| size).sum(),
            volumes.iter().filter(|(_, used)| !used).map(|(size, _)| size).sum(),
        ),
        row(
            "Build Cache",
            cache.len(),
            cache.iter().filter(|record| record.in_use).count(),
            cache.iter().filter(|record| !record.shared).map(|record| record.size).sum(),
            cache.iter().filter(|record| !record.shared && !record.in_use).map(|record| record.size).sum(),
        ),
    ]
}

pub(crate) async fn check(session: &Session, args: Check) -> Result<Exit> {
    let options = CheckStore { repair: args.repair, quick: args.quick };
    let report = session.client().await?.check_store(options).await?;
    for problem in &report.problems {
        println!("{}: {}", if problem.repaired { "repaired" } else { "damaged" }, problem.what);
    }
    println!("{} images, {} layers, {} blobs checked", report.images, report.layers, report.blobs);
    let left = report.problems.iter().filter(|problem| !problem.repaired).count();
    if left == 0 {
        return Ok(Exit::Success);
    }
    let next = match args.repair {
        true => "pull or load these images again, or remove them",
        false => "`berth system check --repair` unpacks and fetches again what it can",
    };
    Err(Failure { message: format!("the image store has {left} unrepaired problems: {next}"), code: 1 }
        .into())
}

pub(crate) async fn shutdown(session: &Session, args: Shutdown) -> Result<Exit> {
    let client = match session.client_if_running().await {
        Err(error) if error.is_unreachable() => {
            eprintln!("no engine is running");
            return Ok(Exit::Success);
        }
        other => other?,
    };
    client.shutdown(args.containers).await?;
    Ok(Exit::Success)
}
