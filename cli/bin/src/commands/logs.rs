//! `berth logs`.

use anyhow::Result;
use berth_api::container::ContainerInspect;
use berth_client::{Client, Query, StdStream};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use tokio_util::io::StreamReader;

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
    let path = format!("/containers/{}", Client::path_segment(&args.container));
    let inspect: ContainerInspect = client.get(&format!("{path}/json"), &Query::new()).await?;
    let query = Query::new()
        .with("stdout", 1)
        .with("stderr", 1)
        .flag("follow", args.follow)
        .flag("timestamps", args.timestamps)
        .flag("details", args.details)
        .maybe("since", args.since.as_deref().map(super::events::point_in_time).transpose()?)
        .maybe("until", args.until.as_deref().map(super::events::point_in_time).transpose()?)
        .with("tail", &args.tail);
    let mut stream = client.get_stream(&format!("{path}/logs"), &query).await?;
    if inspect.config.tty {
        while let Some(chunk) = stream.next().await {
            pump::show(StdStream::Stdout, &chunk?)?;
        }
    } else {
        pump::copy_frames(StreamReader::new(stream.map_err(std::io::Error::other))).await?;
    }
    Ok(Exit::Success)
}
