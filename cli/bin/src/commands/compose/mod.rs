//! `berth compose`: projects of several containers.

mod config;
mod project;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::project::ProjectArgs;
use crate::exit::Exit;
use crate::session::Session;

/// Define and run applications of several containers
#[derive(Debug, Args)]
pub(crate) struct Compose {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "convert")]
    Config(config::Config),
}

pub(crate) async fn run(session: &Session, args: Compose) -> Result<Exit> {
    let project = &args.project;
    match args.command {
        Command::Config(args) => config::run(session, project, args).await,
    }
}
