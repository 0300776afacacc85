//! `berth import`.

use std::path::PathBuf;

use anyhow::Result;
use berth_api::options;
use berth_client::Upload;
use clap::Args;

use super::archive;
use crate::exit::Exit;
use crate::output::progress::{self, Show};
use crate::session::Session;

/// Make an image of the archive of a file system
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Apply a Dockerfile instruction
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment
    #[arg(short, long, default_value = "")]
    message: String,
    /// Platform: os/architecture[/variant]
    #[arg(long, default_value = "")]
    platform: String,
    /// File, URL, or - for standard input
    source: String,
    /// Name of the image
    #[arg(default_value = "", value_name = "NAME[:TAG]")]
    name: String,
}

pub(crate) async fn run(session: &Session, args: Import) -> Result<Exit> {
    let client = session.client().await?;
    let remote = args.source.starts_with("http://") || args.source.starts_with("https://");
    let upload = match args.source.as_str() {
        "-" => archive::upload(None).await?,
        _ if remote => Upload::empty(),
        file => archive::upload(Some(&PathBuf::from(file))).await?,
    };
    let options = options::Import {
        source: if remote { args.source } else { "-".to_owned() },
        repo: args.name,
        tag: String::new(),
        message: args.message,
        changes: args.change,
        platform: args.platform,
    };
    progress::show(client.image_import(&options, upload).await?, Show::All).await?;
    Ok(Exit::Success)
}
