//! `berth search`.

use anyhow::Result;
use berth_api::Filters;
use clap::Args;

use crate::exit::Exit;
use crate::session::Session;

/// Search a registry (of docker engines: the registry protocol has no search)
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// What to look for
    term: String,
    /// At most so many results
    #[arg(long, default_value_t = 25)]
    limit: i64,
}

pub(crate) async fn run(session: &Session, args: Search) -> Result<Exit> {
    for found in session.client().await?.image_search(&args.term, args.limit, &Filters::default()).await? {
        println!("{}\t{}", found.name, found.description);
    }
    Ok(Exit::Success)
}
