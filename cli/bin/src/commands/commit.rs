//! `berth commit`.

use anyhow::Result;
use berth_api::options;
use clap::Args;

use super::pull::split;
use crate::exit::Exit;
use crate::session::Session;

/// Make an image of a container
#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Author
    #[arg(short, long, default_value = "")]
    author: String,
    /// Comment
    #[arg(short, long, default_value = "")]
    message: String,
    /// Apply a Dockerfile instruction
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Pause the container meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pause: bool,
    /// Container
    container: String,
    /// Name of the image
    #[arg(default_value = "", value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) async fn run(session: &Session, args: Commit) -> Result<Exit> {
    let (repo, tag) = if args.name.is_empty() { ("", "") } else { split(&args.name) };
    let options = options::Commit {
        container: args.container,
        repo: repo.to_owned(),
        tag: tag.to_owned(),
        comment: args.message,
        author: args.author,
        pause: args.pause,
        changes: args.change,
        config: None,
    };
    println!("{}", session.client().await?.commit(&options).await?);
    Ok(Exit::Success)
}
