//! `berth push`.

use anyhow::Result;
use clap::Args;

use super::pull::split;
use crate::credentials;
use crate::exit::Exit;
use crate::output::progress::{self, Show};
use crate::session::Session;

/// Upload an image to a registry
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Image, with its registry and tag
    image: String,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(session: &Session, args: Push) -> Result<Exit> {
    let client = session.client().await?;
    let (name, tag) = split(&args.image);
    let auth = credentials::for_image(&args.image)?;
    let answer = client.image_push(name, tag, auth.as_ref()).await?;
    progress::show(answer, if args.quiet { Show::Quiet } else { Show::All }).await?;
    if args.quiet {
        println!("{}", args.image);
    }
    Ok(Exit::Success)
}
