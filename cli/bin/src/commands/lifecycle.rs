//! `stop`, `restart`, `kill`, `pause`, `unpause`, `rename`, `wait`: one request for each container.

use anyhow::Result;
use berth_api::container::WaitResponse;
use berth_client::{Client, Query};
use clap::Args;

use super::each;
use crate::exit::Exit;
use crate::session::Session;

/// Stop running containers
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

/// Containers and nothing else
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
    let verb = match what {
        StopOr::Stop => "stop",
        StopOr::Restart => "restart",
    };
    let query = Query::new().maybe("t", args.timeout).maybe("signal", args.signal.as_ref());
    each(&args.containers, async |name: &str| {
        client.act(&format!("/containers/{}/{verb}", Client::path_segment(name)), &query).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn kill(session: &Session, args: Kill) -> Result<Exit> {
    let client = session.client().await?;
    let query = Query::new().with("signal", &args.signal);
    each(&args.containers, async |name: &str| {
        client.act(&format!("/containers/{}/kill", Client::path_segment(name)), &query).await?;
        Ok(())
    })
    .await
}

/// `pause` and `unpause`.
pub(crate) async fn simple(session: &Session, verb: &str, args: Names) -> Result<Exit> {
    let client = session.client().await?;
    each(&args.containers, async |name: &str| {
        client.act(&format!("/containers/{}/{verb}", Client::path_segment(name)), &Query::new()).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn rename(session: &Session, args: Rename) -> Result<Exit> {
    let client = session.client().await?;
    let path = format!("/containers/{}/rename", Client::path_segment(&args.container));
    client.act(&path, &Query::new().with("name", &args.name)).await?;
    Ok(Exit::Success)
}

pub(crate) async fn wait(session: &Session, args: Names) -> Result<Exit> {
    let client = session.client().await?;
    super::each_quietly(&args.containers, async |name: &str| {
        let path = format!("/containers/{}/wait", Client::path_segment(name));
        let ended: WaitResponse = client.ask(&path, &Query::new()).await?;
        println!("{}", ended.status_code);
        Ok(())
    })
    .await
}
