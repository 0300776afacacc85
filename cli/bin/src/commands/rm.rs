//! `berth rm`.

use anyhow::Result;
use berth_api::options::RemoveContainer;
use clap::Args;

use super::each_at_once;
use crate::exit::Exit;
use crate::session::Session;

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill them first if they run
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    /// Remove the link, not the container
    #[arg(short, long)]
    link: bool,
    /// Containers
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Rm) -> Result<Exit> {
    let client = session.client().await?;
    let options = RemoveContainer { volumes: args.volumes, force: args.force, link: args.link };
    each_at_once(&args.containers, async |name: &str| {
        match client.container_remove(name, options).await {
            // As `rm -f` does with files.
            Err(error) if args.force && error.is_not_found() => {
                eprintln!("{error}");
                Ok(())
            }
            other => Ok(other?),
        }
    })
    .await
}
