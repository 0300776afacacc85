//! `berth push`.

use anyhow::Result;
use berth_client::{Client, Query};
use clap::Args;
use futures_util::stream;
use http::Method;

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
    let path = format!("/images/{}/push", Client::path_segment(name));
    let auth = credentials::header_for(&args.image)?;
    let headers = [("X-Registry-Auth", auth.as_str())];
    let query = Query::new().with("tag", tag);
    let answer = client.send_stream(Method::POST, &path, &query, &headers, stream::empty()).await?;
    progress::show(answer, if args.quiet { Show::Quiet } else { Show::All }).await?;
    if args.quiet {
        println!("{}", args.image);
    }
    Ok(Exit::Success)
}
