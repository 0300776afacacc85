//! `berth system df`.

use anyhow::Result;
use berth_api::options::DiskUsageKinds;
use berth_api::system::DiskUsage;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ps::{short, truncated};
use crate::exit::Exit;
use crate::output::list::{Column, Style, render};
use crate::output::units;
use crate::session::Session;

/// Show the use of disk
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
    /// Each image, container, volume and cache record
    #[arg(short, long, conflicts_with = "format")]
    verbose: bool,
}

const COLUMNS: &[Column] = &[
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
];

const IMAGES: &[Column] = &[
    ("IMAGE", "Image"),
    ("IMAGE ID", "ID"),
    ("CREATED", "Created"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "Shared"),
    ("UNIQUE SIZE", "Unique"),
    ("CONTAINERS", "Containers"),
];

const CONTAINERS: &[Column] = &[
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "Volumes"),
    ("SIZE", "Size"),
    ("CREATED", "Created"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
];

const VOLUMES: &[Column] = &[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")];

const CACHE: &[Column] = &[
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "Type"),
    ("SIZE", "Size"),
    ("CREATED", "Created"),
    ("LAST USED", "LastUsed"),
    ("USAGE", "Uses"),
    ("SHARED", "Shared"),
];

pub(crate) async fn run(session: &Session, args: Df) -> Result<Exit> {
    let usage = session.client().await?.disk_usage(DiskUsageKinds::default()).await?;
    if args.verbose {
        return verbose(&usage);
    }
    let style = Style { format: args.format.as_deref(), only: None };
    print!("{}", render(style, COLUMNS, &[], rows(&usage))?);
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
    let mut rows = vec![
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
    ];
    // A dockerd does not say.
    if let Some(size) = usage.blobs_size {
        rows.push(json!({
            "Type": "Compressed Layers", "TotalCount": "", "Active": "", "Size": units::size(size), "Reclaimable": "",
        }));
    }
    rows
}

fn verbose(usage: &DiskUsage) -> Result<Exit> {
    let since = |seconds: i64| units::ago(Timestamp::from_second(seconds).unwrap_or_default());
    let images = usage.images.iter().flatten().map(|image| {
        json!({
            "Image": image.repo_tags.first().map_or("<none>", String::as_str),
            "ID": short(&image.id),
            "Created": since(image.created),
            "Size": units::size(image.size),
            "Shared": units::size(image.shared_size.max(0)),
            "Unique": units::size(image.size - image.shared_size.max(0)),
            "Containers": image.containers.max(0).to_string(),
        })
    });
    let containers = usage.containers.iter().flatten().map(|container| {
        let names: Vec<&str> = container.names.iter().map(|name| name.trim_start_matches('/')).collect();
        json!({
            "ID": short(&container.id),
            "Image": container.image.strip_prefix("sha256:").map_or(container.image.as_str(), short),
            "Command": format!("\"{}\"", truncated(&container.command, 20)),
            "Volumes": container.mounts.iter().filter(|mount| !mount.name.is_empty()).count().to_string(),
            "Size": units::size(container.size_rw),
            "Created": since(container.created),
            "Status": container.status,
            "Names": names.join(","),
        })
    });
    let volumes = usage.volumes.iter().flatten().map(|volume| {
        let used = volume.usage_data.as_ref();
        json!({
            "Name": volume.name,
            "Links": used.map_or(0, |used| used.ref_count).to_string(),
            "Size": units::size(used.map_or(0, |used| used.size.max(0))),
        })
    });
    let cache = usage.build_cache.iter().flatten().map(|record| {
        json!({
            "ID": short(&record.id),
            "Type": record.kind,
            "Size": units::size(record.size),
            "Created": units::ago(record.created_at.0),
            "LastUsed": record.last_used_at.map(|at| units::ago(at.0)),
            "Uses": record.usage_count.to_string(),
            "Shared": record.shared.to_string(),
        })
    });
    let table = |title: &str, columns: &[Column], rows: Vec<Value>| -> Result<()> {
        println!("{title}:\n\n{}", render(Style::default(), columns, &[], &rows)?);
        Ok(())
    };
    table("Images space usage", IMAGES, images.collect())?;
    table("Containers space usage", CONTAINERS, containers.collect())?;
    table("Local Volumes space usage", VOLUMES, volumes.collect())?;
    table("Build cache usage", CACHE, cache.collect())?;
    if let Some(size) = usage.blobs_size {
        println!("Compressed layers, kept to be pushed as they came: {}", units::size(size));
    }
    Ok(Exit::Success)
}
