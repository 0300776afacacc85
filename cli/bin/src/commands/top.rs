//! `berth top`.

use anyhow::Result;
use clap::Args;

use crate::exit::Exit;
use crate::output::list::table;
use crate::session::Session;

/// Show the processes of a container
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Container
    container: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Top) -> Result<Exit> {
    let top = session.client().await?.container_top(&args.container, &args.options.join(" ")).await?;
    print!("{}", table(top.titles, top.processes));
    Ok(Exit::Success)
}
