//! `berth diff`.

use anyhow::Result;
use clap::Args;

use crate::exit::Exit;
use crate::session::Session;

/// Show which files a container has changed
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Container
    container: String,
}

pub(crate) async fn run(session: &Session, args: Diff) -> Result<Exit> {
    for change in session.client().await?.container_changes(&args.container).await? {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        println!("{kind} {}", change.path);
    }
    Ok(Exit::Success)
}
