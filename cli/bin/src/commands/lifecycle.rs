//! `stop`, `restart`, `kill`, `pause`, `unpause`, `rename`, `wait`: one request for each container.

use anyhow::Result;
use berth_api::options::{StopContainer, WaitCondition};
use clap::Args;

use super::{each, each_at_once, each_quietly};
use crate::exit::Exit;
use crate::session::Session;

// Stop running containers
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait before killing; -1 waits for ever
    #[arg(short = 't', long = "timeout", visible_alias = "time", allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Signal to send
    #[arg(short, long)]
    signal: Option<String>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Send a signal to running containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

// Containers and nothing else
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Rename a container
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// Container
    container: String,
    /// New name
    name: String,
}

/// What [`Stop`] is asked to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StopOr {
    /// Stop only.
    Stop,
    /// Stop, then start.
    Restart,
}

pub(crate) async fn stop(session: &Session, args: Stop, what: StopOr) -> Result<Exit> {
    let client = session.client().await?;
    let options = StopContainer { signal: args.signal, timeout: args.timeout };
    each_at_once(&args.containers, async |name: &str| {
        match what {
            StopOr::Stop => drop(client.container_stop(name, &options).await?),
            StopOr::Restart => client.container_restart(name, &options).await?,
        }
        Ok(())
    })
    .await
}

pub(crate) async fn kill(session: &Session, args: Kill) -> Result<Exit> {
    let client = session.client().await?;
    each_at_once(&args.containers, async |name: &str| Ok(client.container_kill(name, &args.signal).await?))
        .await
}

pub(crate) async fn pause(session: &Session, args: Names) -> Result<Exit> {
    let client = session.client().await?;
    each(&args.containers, async |name: &str| Ok(client.container_pause(name).await?)).await
}

pub(crate) async fn unpause(session: &Session, args: Names) -> Result<Exit> {
    let client = session.client().await?;
    each(&args.containers, async |name: &str| Ok(client.container_unpause(name).await?)).await
}

pub(crate) async fn rename(session: &Session, args: Rename) -> Result<Exit> {
    session.client().await?.container_rename(&args.container, &args.name).await?;
    Ok(Exit::Success)
}

pub(crate) async fn wait(session: &Session, args: Names) -> Result<Exit> {
    let client = session.client().await?;
    each_quietly(&args.containers, async |name: &str| {
        let ended = client.container_wait(name, WaitCondition::NotRunning).await?.exit().await?;
        println!("{}", ended.status_code);
        Ok(())
    })
    .await
}
