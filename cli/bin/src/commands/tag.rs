//! `berth tag`.

use anyhow::{Result, anyhow};
use clap::Args;

use super::pull::split;
use crate::exit::Exit;
use crate::session::Session;

/// Give an image a further name
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// Image
    image: String,
    /// New name
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) async fn run(session: &Session, args: Tag) -> Result<Exit> {
    berth_oci::Reference::parse(&args.name)
        .map_err(|error| anyhow!("{:?} is not a valid repository/tag: {error}", args.name))?;
    let (repo, tag) = split(&args.name);
    session.client().await?.image_tag(&args.image, repo, tag).await?;
    Ok(Exit::Success)
}
