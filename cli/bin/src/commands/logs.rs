//! `berth logs`.

use anyhow::Result;
use berth_api::options;
use clap::Args;

use super::events::point_in_time;
use crate::exit::Exit;
use crate::session::Session;
use crate::streams::pump;

/// Show the log of a container
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// From this time on: a timestamp, or 10m
    #[arg(long)]
    since: Option<String>,
    /// Up to this time
    #[arg(long)]
    until: Option<String>,
    /// Only the last N lines
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show times
    #[arg(short, long)]
    timestamps: bool,
    /// Show extra details
    #[arg(long)]
    details: bool,
    /// Container
    container: String,
}

pub(crate) async fn run(session: &Session, args: Logs) -> Result<Exit> {
    let client = session.client().await?;
    let inspect = client.container_inspect(&args.container, false).await?;
    let Ok(tail) = args.tail.parse();
    let options = options::Logs {
        follow: args.follow,
        stdout: true,
        stderr: true,
        since: args.since.as_deref().map(point_in_time).transpose()?.flatten(),
        until: args.until.as_deref().map(point_in_time).transpose()?.flatten(),
        timestamps: args.timestamps,
        details: args.details,
        tail,
    };
    let mut output = client.container_logs(&inspect.id, &options, inspect.config.tty).await?;
    while let Some((channel, bytes)) = output.next_output().await? {
        pump::show(channel, &bytes)?;
    }
    Ok(Exit::Success)
}
