//! `berth builder`: the build cache, and the builds of the past.

use anyhow::Result;
use berth_api::options::DiskUsageKinds;
use clap::{Args, Subcommand};
use serde_json::json;

use super::confirm;
use super::ps::truncated;
use crate::exit::Exit;
use crate::flags::filter;
use crate::output::list::{Column, Style, render};
use crate::output::units;
use crate::session::Session;

/// Commands for the build cache and past builds
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Builder {
    /// Build an image of a Dockerfile
    Build(Box<super::build::Build>),
    Du(Du),
    Prune(Prune),
    History(History),
    /// Show what a build of the past printed
    Logs(Which),
    /// Show the steps of a build of the past
    Inspect(Which),
}

/// Show what the build cache holds
#[derive(Debug, Args)]
pub(crate) struct Du {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
}

/// Remove build cache
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also what images share
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// So much may stay, what was used last
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory, alias = "keep-storage", alias = "max-used-space")]
    reserved_space: Option<i64>,
    /// Only until so much of the file system is free
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    min_free_space: Option<i64>,
    /// Filter: until=24h, id=…, type=…
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Show builds of the past
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Format: table, json or a template
    #[arg(long)]
    format: Option<String>,
}

// A build.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Id of the build; none is the newest
    id: Option<String>,
}

const CACHE: &[Column] = &[
    ("ID", "ID"),
    ("TYPE", "Type"),
    ("SIZE", "Size"),
    ("LAST USED", "LastUsed"),
    ("USES", "Uses"),
    ("SHARED", "Shared"),
    ("DESCRIPTION", "Description"),
];

const BUILDS: &[Column] = &[
    ("BUILD ID", "ID"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED", "CreatedSince"),
    ("DURATION", "Duration"),
    ("CACHED", "Cached"),
];

const STEPS: &[Column] =
    &[("STEP", "Number"), ("STAGE", "Stage"), ("TIME", "Time"), ("CACHE", "Cache"), ("INSTRUCTION", "Text")];

pub(crate) async fn run(session: &Session, command: Builder) -> Result<Exit> {
    match command {
        Builder::Build(args) => super::build::run(session, *args).await,
        Builder::Du(args) => du(session, args).await,
        Builder::Prune(args) => prune(session, args).await,
        Builder::History(args) => history(session, args).await,
        Builder::Logs(which) => {
            let client = session.client().await?;
            let id = match which.id {
                Some(id) => id,
                None => client.past_builds().await?.into_iter().next().map(|b| b.id).unwrap_or_default(),
            };
            print!("{}", client.past_build_log(&id).await?);
            Ok(Exit::Success)
        }
        Builder::Inspect(which) => inspect(session, which).await,
    }
}

async fn du(session: &Session, args: Du) -> Result<Exit> {
    let kinds = DiskUsageKinds { build_cache: true, containers: false, images: false, volumes: false };
    let records = session.client().await?.disk_usage(kinds).await?.build_cache.unwrap_or_default();
    let total: i64 = records.iter().map(|record| record.size).sum();
    let freeable: i64 = records.iter().filter(|r| !r.shared && !r.in_use).map(|r| r.size).sum();
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            json!({
                "ID": record.id.get(..12).unwrap_or(&record.id),
                "Type": record.kind,
                "Size": units::size(record.size),
                "LastUsed": record.last_used_at.map(|at| units::ago(at.0)),
                "Uses": record.usage_count.to_string(),
                "Shared": record.shared.to_string(),
                "Description": truncated(&record.description, 60),
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: None };
    print!("{}", render(style, CACHE, &[], &rows)?);
    if args.format.is_none() {
        println!("Reclaimable:\t{}", units::size(freeable));
        println!("Total:\t\t{}", units::size(total));
    }
    Ok(Exit::Success)
}

async fn prune(session: &Session, args: Prune) -> Result<Exit> {
    let filters = filter::parse(&args.filter)?;
    let what = if args.all { "all build cache" } else { "the build cache that no image shares" };
    if !args.force && !confirm(&format!("WARNING! This will remove {what}.\nGo on?"))? {
        return Ok(Exit::Success);
    }
    let keep = args.reserved_space.unwrap_or(0);
    let pruned = session
        .client()
        .await?
        .build_prune(args.all, keep, args.min_free_space.unwrap_or(0), &filters)
        .await?;
    for id in pruned.caches_deleted.unwrap_or_default() {
        println!("{id}");
    }
    println!("Total reclaimed space: {}", units::size(i64::try_from(pruned.space_reclaimed)?));
    Ok(Exit::Success)
}

async fn history(session: &Session, args: History) -> Result<Exit> {
    let builds = session.client().await?.past_builds().await?;
    let rows: Vec<_> = builds
        .iter()
        .map(|build| {
            let cached = build.steps.iter().filter(|step| step.cached).count();
            json!({
                "ID": build.id,
                "Name": truncated(&build.name, 40),
                "Status": if build.error.is_some() { "Error" } else { "Completed" },
                "CreatedSince": units::ago(build.started.0),
                "Duration": format!("{:.1}s", build.seconds),
                "Cached": format!("{cached}/{}", build.steps.len()),
            })
        })
        .collect();
    let style = Style { format: args.format.as_deref(), only: None };
    print!("{}", render(style, BUILDS, &[], &rows)?);
    Ok(Exit::Success)
}

async fn inspect(session: &Session, which: Which) -> Result<Exit> {
    let builds = session.client().await?.past_builds().await?;
    let wanted = which.id.unwrap_or_default();
    let Some(build) = builds.into_iter().find(|build| build.id.starts_with(&wanted)) else {
        anyhow::bail!("no build {wanted} is remembered; berth builder history lists them");
    };
    let rows: Vec<_> = build
        .steps
        .iter()
        .map(|step| {
            let cache = if step.cached { "hit".to_owned() } else { step.missed.join("; ") };
            json!({
                "Number": step.number.to_string(),
                "Stage": step.stage,
                "Time": step.seconds.map(|seconds| format!("{seconds:.1}s")),
                "Cache": truncated(&cache, 60),
                "Text": truncated(&step.text, 60),
            })
        })
        .collect();
    print!("{}", render(Style { format: None, only: None }, STEPS, &[], &rows)?);
    if let Some(error) = &build.error {
        println!("\n{error}");
    }
    Ok(Exit::Success)
}
