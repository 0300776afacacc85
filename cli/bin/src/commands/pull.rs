//! `berth pull`.

use anyhow::{Result, bail};
use berth_api::progress::ProgressMessage;
use berth_client::{Client, JsonStream, PullOptions};
use berth_oci::Reference;
use clap::Args;

use crate::credentials;
use crate::exit::Exit;
use crate::flags::content_trust::ContentTrust;
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
    /// Download all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
}

pub(crate) async fn run(session: &Session, args: Pull) -> Result<Exit> {
    if args.all_tags && !is_name(&args.image) {
        bail!("tag can't be used with --all-tags/-a");
    }
    let client = session.client().await?;
    let show = if args.quiet { Show::Quiet } else { Show::All };
    let platform = args.platform.as_deref();
    if args.all_tags {
        progress::show(begin(&client, &args.image, "", platform).await?, show).await?;
        println!(
            "{}",
            whole(&args.image, |text| Reference::parse_name(text).map(|name| name.name().to_owned()))
        );
        return Ok(Exit::Success);
    }
    pull(&client, &args.image, platform, show).await?;
    println!("{}", whole(&args.image, |text| Reference::parse(text).map(|reference| reference.to_string())));
    Ok(Exit::Success)
}

/// Pulls `image` and shows how it goes.
pub(crate) async fn pull(client: &Client, image: &str, platform: Option<&str>, show: Show) -> Result<()> {
    let (name, tag) = split(image);
    progress::show(begin(client, name, tag, platform).await?, show).await?;
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

/// A name in full, registry included; what is no name stays as it is.
fn whole<E>(image: &str, parse: impl Fn(&str) -> Result<String, E>) -> String {
    parse(image).unwrap_or_else(|_| image.to_owned())
}

/// Whether it names neither a tag nor a digest.
fn is_name(image: &str) -> bool {
    Reference::parse_name(image).is_ok_and(|name| name.tag().is_none() && name.digest().is_none())
}

/// Without a tag all of them are meant.
async fn begin(
    client: &Client,
    name: &str,
    tag: &str,
    platform: Option<&str>,
) -> Result<JsonStream<ProgressMessage>> {
    let options = PullOptions {
        image: name.to_owned(),
        tag: tag.to_owned(),
        platform: platform.unwrap_or_default().to_owned(),
        auth: credentials::for_image(name)?,
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
    use super::{is_name, split};

    #[test]
    fn names_and_tags() {
        assert_eq!(split("busybox"), ("busybox", "latest"));
        assert_eq!(split("a/b:v1"), ("a/b", "v1"));
        assert_eq!(split("localhost:5000/b"), ("localhost:5000/b", "latest"));
        assert_eq!(split("b@sha256:00"), ("b", "sha256:00"));
    }

    #[test]
    fn all_tags_are_of_a_name() {
        assert!(is_name("busybox") && is_name("localhost:5000/b"));
        assert!(!is_name("busybox:1") && !is_name("UPPER"));
    }
}
