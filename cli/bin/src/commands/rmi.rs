//! `berth rmi`.

use anyhow::Result;
use berth_api::ApiVersion;
use berth_api::image::ImageDeleteItem;
use berth_api::options::RemoveImage;
use clap::Args;

use super::each_quietly;
use crate::exit::Exit;
use crate::flags::platform;
use crate::session::Session;

/// Remove images
#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Also if stopped containers use them
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Only if it is of one of these platforms: os/architecture[/variant]
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

/// Since when engines remove single platforms.
const SINCE: ApiVersion = ApiVersion::new(1, 50);

pub(crate) async fn run(session: &Session, args: Rmi) -> Result<Exit> {
    let client = session.client().await?;
    let platforms = platform::for_engine(&client, &args.platform, SINCE).await?;
    let options = RemoveImage { force: args.force, no_prune: args.no_prune, platforms };
    each_quietly(&args.images, async |name: &str| {
        match client.image_remove(name, &options).await {
            // As `rm -f` does with files.
            Err(error) if args.force && error.is_not_found() => eprintln!("{error}"),
            other => tell(&other?),
        }
        Ok(())
    })
    .await
}

/// Tells what has gone.
pub(crate) fn tell(items: &[ImageDeleteItem]) {
    for item in items {
        if !item.untagged.is_empty() {
            println!("Untagged: {}", item.untagged);
        }
        if !item.deleted.is_empty() {
            println!("Deleted: {}", item.deleted);
        }
    }
}
