//! `berth start`.

use anyhow::{Result, bail};
use berth_api::options::WaitCondition;
use clap::Args;

use super::attach::{self, Options};
use super::each;
use crate::exit::Exit;
use crate::session::Session;
use crate::streams::pump::Ended;

/// Start stopped containers
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Attach our streams
    #[arg(short, long)]
    attach: bool,
    /// Pass our standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Start) -> Result<Exit> {
    let client = session.client().await?;
    if !args.attach && !args.interactive {
        return each(&args.containers, async |name: &str| {
            client.container_start(name, "").await?;
            Ok(())
        })
        .await;
    }
    let [name] = args.containers.as_slice() else {
        bail!("you cannot start and attach multiple containers at once");
    };
    let inspect = client.container_inspect(name, false).await?;
    let condition =
        if inspect.host_config.auto_remove { WaitCondition::Removed } else { WaitCondition::NextExit };
    let ended = client.container_wait(&inspect.id, condition).await?;
    let options = Options {
        detach_keys: args.detach_keys,
        stdin: args.interactive && inspect.config.open_stdin,
        sig_proxy: true,
    };
    let start = async {
        client.container_start(&inspect.id, "").await?;
        Ok(())
    };
    match attach::streams(&client, &inspect, &options, start).await? {
        Ended::Detached => Ok(Exit::Success),
        Ended::Closed(_) => Ok(Exit::of_program(ended.exit().await?.status_code)),
    }
}
