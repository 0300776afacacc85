//! `berth compose logs`, `events`.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use berth_api::options::{Events as EventOptions, Logs as LogOptions};
use berth_compose::apply::Listener;
use berth_compose::labels::{Labelled, OneOff};
use berth_compose::{logs, observe};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::progress::{LineStyle, Printer};
use super::project::ProjectArgs;
use crate::commands::events::point_in_time;
use crate::exit::Exit;
use crate::session::Session;

/// Show what containers have printed
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// From this time on: a timestamp, or 10m
    #[arg(long)]
    since: Option<String>,
    /// Up to this time
    #[arg(long)]
    until: Option<String>,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Show times
    #[arg(short, long)]
    timestamps: bool,
    /// Only the last N lines of each container
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: &ProjectArgs, wanted: Logs) -> Result<Exit> {
    let client = session.client().await?;
    let project = args.found(&client, &[]).await?;
    for name in &wanted.services {
        project.service(name)?;
    }
    if wanted.index > 0 && wanted.services.len() != 1 {
        bail!("--index requires one service to be selected");
    }
    let services: BTreeSet<String> = match wanted.services.is_empty() {
        true => project.services.keys().cloned().collect(),
        false => wanted.services.iter().cloned().collect(),
    };
    let mut containers = observe::containers(&client, &project.name, OneOff::Exclude, true).await?;
    containers.retain(|container| {
        services.contains(container.service()) && (wanted.index == 0 || container.number() == wanted.index)
    });
    let Ok(tail) = wanted.tail.parse();
    let options = LogOptions {
        follow: wanted.follow,
        stdout: true,
        stderr: true,
        since: wanted.since.as_deref().map(point_in_time).transpose()?.flatten(),
        until: wanted.until.as_deref().map(point_in_time).transpose()?.flatten(),
        // The engine knows when a line was printed.
        timestamps: wanted.timestamps,
        details: false,
        tail,
    };
    let printer = Printer::new(LineStyle::new(args, wanted.no_color, wanted.no_log_prefix, false));
    printer.expect(containers.iter().map(|container| container.log_name()));
    let listener: Arc<dyn Listener> = printer;
    let reading =
        logs::of_project_containers(&client, &project.name, containers, services, &options, listener);
    tokio::select! {
        read = reading => read?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(Exit::Success)
}

/// Show what happens to containers
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// From this time on
    #[arg(long)]
    since: Option<String>,
    /// Up to this time
    #[arg(long)]
    until: Option<String>,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_events(session: &Session, args: &ProjectArgs, wanted: Events) -> Result<Exit> {
    let client = session.client().await?;
    let mut filters = berth_api::Filters::new();
    filters.add("label", format!("com.docker.compose.project={}", args.name()?));
    filters.add("type", "container");
    let options = EventOptions {
        since: wanted.since.as_deref().map(point_in_time).transpose()?.flatten(),
        until: wanted.until.as_deref().map(point_in_time).transpose()?.flatten(),
        filters,
    };
    let mut stream = client.events(&options).await?;
    while let Some(event) = stream.next().await? {
        let attributes = event.actor.attributes;
        let label = |name: &str| attributes.get(name).map_or("", String::as_str);
        let service = label("com.docker.compose.service");
        if label("com.docker.compose.oneoff") == "True"
            || (!wanted.services.is_empty() && !wanted.services.iter().any(|name| name == service))
        {
            continue;
        }
        let at = Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default();
        let own = attributes.iter().filter(|(name, _)| !name.starts_with("com.docker.compose."));
        if wanted.json {
            let own: serde_json::Map<_, _> = own.map(|(name, value)| (name.clone(), json!(value))).collect();
            println!(
                "{}",
                json!({"action": event.action, "attributes": own, "id": event.actor.id, "service": service,
                    "time": at.to_string(), "type": "container"})
            );
        } else {
            let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
            let local = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f");
            println!("{local} container {} {} ({})", event.action, event.actor.id, own.join(", "));
        }
    }
    Ok(Exit::Success)
}
