//! `berth top`: the processes of a container, or all containers live.

mod draw;
mod live;
mod state;

pub(super) use draw::spark;

use std::io::IsTerminal;

use anyhow::{Result, bail};
use clap::Args;

use crate::exit::Exit;
use crate::output::list::columns;
use crate::session::Session;

/// Of a column at least, as docker has it.
const WIDTH: usize = 20;

/// Show all containers live, or the processes of one
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Container whose processes are shown; without it all containers are shown live
    container: Option<String>,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "container")]
    options: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Top) -> Result<Exit> {
    let Some(container) = args.container else {
        if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
            bail!(
                "the live view needs a terminal; `berth stats --no-stream` prints once, `berth top CONTAINER` lists processes"
            );
        }
        return live::run(session).await;
    };
    let top = session.client().await?.container_top(&container, &args.options.join(" ")).await?;
    print!("{}", columns(top.titles, top.processes, WIDTH));
    Ok(Exit::Success)
}
