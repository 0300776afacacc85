//! `berth save`, `load`, `export`: whole images and file systems as archives.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_api::ApiVersion;
use berth_client::Upload;
use clap::Args;

use crate::exit::Exit;
use crate::flags::platform;
use crate::output::progress::{self, Show};
use crate::session::Session;
use crate::tarball;

/// Since when engines save and load single platforms.
const SINCE: ApiVersion = ApiVersion::new(1, 48);

/// Write images to an archive
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// File, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// These platforms alone: os/architecture[/variant]
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

/// Load images from an archive
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// File, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
    /// These platforms alone: os/architecture[/variant]
    #[arg(long, value_delimiter = ',')]
    platform: Vec<String>,
}

/// Write the file system of a container to an archive
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container
    container: String,
}

/// An archive on the terminal helps nobody.
fn check(output: Option<&PathBuf>) -> Result<()> {
    if output.is_none() && std::io::stdout().is_terminal() {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    Ok(())
}

pub(crate) async fn save(session: &Session, args: Save) -> Result<Exit> {
    check(args.output.as_ref())?;
    let client = session.client().await?;
    let platforms = platform::for_engine(&client, &args.platform, SINCE).await?;
    let stream = client.image_save(&args.images, &platforms).await?;
    tarball::save(stream, args.output.as_ref()).await?;
    Ok(Exit::Success)
}

pub(crate) async fn load(session: &Session, args: Load) -> Result<Exit> {
    if args.input.is_none() && std::io::stdin().is_terminal() {
        bail!("requested load from stdin, but stdin is empty; use -i FILE");
    }
    let client = session.client().await?;
    let platforms = platform::for_engine(&client, &args.platform, SINCE).await?;
    let upload = upload(args.input.as_ref()).await?;
    let quiet = args.quiet || !std::io::stdout().is_terminal();
    progress::show(client.image_load(quiet, &platforms, upload).await?, Show::All).await?;
    Ok(Exit::Success)
}

/// A file as a body, or standard input.
pub(crate) async fn upload(path: Option<&PathBuf>) -> Result<Upload> {
    let Some(path) = path else { return Ok(Upload::from_reader(tokio::io::stdin())) };
    let file =
        tokio::fs::File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?;
    // It opens, and fails when it is read: by then it would look like a broken connection.
    if file.metadata().await?.is_dir() {
        bail!("{} is a directory: an archive is expected", path.display());
    }
    Ok(Upload::from_reader(file))
}

pub(crate) async fn export(session: &Session, args: Export) -> Result<Exit> {
    check(args.output.as_ref())?;
    let stream = session.client().await?.container_export(&args.container).await?;
    tarball::save(stream, args.output.as_ref()).await?;
    Ok(Exit::Success)
}
