//! `berth pull`.

use anyhow::Result;
use berth_api::progress::ProgressMessage;
use berth_client::{Client, JsonStream, PullOptions};
use clap::Args;

use crate::credentials;
use crate::exit::Exit;
use crate::output::progress::{self, Show};
use crate::session::Session;

/// Download an image from a registry
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Image, with its tag or digest
    image: String,
    /// Platform: os/architecture[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(session: &Session, args: Pull) -> Result<Exit> {
    let client = session.client().await?;
    let show = if args.quiet { Show::Quiet } else { Show::All };
    pull(&client, &args.image, args.platform.as_deref(), show).await?;
    println!(
        "{}",
        berth_oci::Reference::parse(&args.image).map_or(args.image, |reference| reference.to_string())
    );
    Ok(Exit::Success)
}

/// Pulls `image` and shows how it goes.
pub(crate) async fn pull(client: &Client, image: &str, platform: Option<&str>, show: Show) -> Result<()> {
    progress::show(begin(client, image, platform).await?, show).await?;
    Ok(())
}

/// The same for `run`, whose standard output belongs to the container: only the end is told.
pub(crate) async fn pull_to_stderr(
    client: &Client,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<()> {
    if !quiet {
        eprintln!("Pulling {image}");
    }
    pull(client, image, platform, Show::Quiet).await?;
    if !quiet {
        eprintln!("Pulled {image}");
    }
    Ok(())
}

async fn begin(client: &Client, image: &str, platform: Option<&str>) -> Result<JsonStream<ProgressMessage>> {
    let (name, tag) = split(image);
    let options = PullOptions {
        image: name.to_owned(),
        tag: tag.to_owned(),
        platform: platform.unwrap_or_default().to_owned(),
        auth: credentials::for_image(image)?,
    };
    Ok(client.image_pull(&options).await?)
}

/// Name, and tag or digest; `latest` if there is neither.
pub(crate) fn split(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn names_and_tags() {
        assert_eq!(split("busybox"), ("busybox", "latest"));
        assert_eq!(split("a/b:v1"), ("a/b", "v1"));
        assert_eq!(split("localhost:5000/b"), ("localhost:5000/b", "latest"));
        assert_eq!(split("b@sha256:00"), ("b", "sha256:00"));
    }
}
