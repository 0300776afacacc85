//! `berth push`.

use anyhow::Result;
use berth_api::options;
use clap::Args;

use super::pull::split;
use crate::credentials;
use crate::exit::Exit;
use crate::flags::content_trust::ContentTrust;
use crate::flags::platform;
use crate::output::progress::{self, Show};
use crate::session::Session;

/// Upload an image to a registry
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Image, with its registry and tag
    image: String,
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push this platform's image alone: os/architecture[/variant]
    #[arg(long, default_value = "", hide_default_value = true)]
    platform: String,
    /// How layers are compressed that were never pushed or pulled: gzip or zstd
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ALGORITHM")]
    compression: String,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    trust: ContentTrust,
}

pub(crate) async fn run(session: &Session, args: Push) -> Result<Exit> {
    let client = session.client().await?;
    let (name, tag) = match args.all_tags {
        true => (args.image.as_str(), ""),
        false => split(&args.image),
    };
    let auth = credentials::for_image(&args.image)?;
    let platform = platform::json(&args.platform)?;
    let options = options::Push { platform, compression: args.compression };
    let answer = client.image_push(name, tag, &options, auth.as_ref()).await?;
    progress::show(answer, if args.quiet { Show::Quiet } else { Show::All }).await?;
    if args.quiet {
        println!("{}", args.image);
    }
    Ok(Exit::Success)
}
