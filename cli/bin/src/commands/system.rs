//! `berth system check`, `shutdown` and `dial-stdio`.

use anyhow::{Context, Result};
use berth_api::options::CheckStore;
use clap::Args;
use tokio::io::{AsyncWriteExt, copy, split, stdin, stdout};

use crate::exit::{Exit, Failure};
use crate::session::Session;

/// Prove that the image store is whole
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Mend what is damaged: unpack layers again, fetch blobs again
    #[arg(long)]
    repair: bool,
    /// Only look whether everything is there; do not read it
    #[arg(long)]
    quick: bool,
}

/// Stop the engine
#[derive(Debug, Args)]
pub(crate) struct Shutdown {
    /// Stop the containers too; they go on otherwise
    #[arg(long)]
    containers: bool,
}

/// Pass what is read to the engine, and what it answers on: for clients that reach this host by other ways than its sockets
#[derive(Debug, Args)]
pub(crate) struct DialStdio {}

pub(crate) async fn check(session: &Session, args: Check) -> Result<Exit> {
    let options = CheckStore { repair: args.repair, quick: args.quick };
    let report = session.client().await?.check_store(options).await?;
    for problem in &report.problems {
        println!("{}: {}", if problem.repaired { "repaired" } else { "damaged" }, problem.what);
    }
    println!("{} images, {} layers, {} blobs checked", report.images, report.layers, report.blobs);
    let left = report.problems.iter().filter(|problem| !problem.repaired).count();
    if left == 0 {
        return Ok(Exit::Success);
    }
    let next = match args.repair {
        true => "pull or load these images again, or remove them",
        false => "`berth system check --repair` unpacks and fetches again what it can",
    };
    Err(Failure { message: format!("the image store has {left} unrepaired problems: {next}"), code: 1 }
        .into())
}

pub(crate) async fn shutdown(session: &Session, args: Shutdown) -> Result<Exit> {
    let client = match session.client_if_running().await {
        Err(error) if error.is_unreachable() => {
            eprintln!("no engine is running");
            return Ok(Exit::Success);
        }
        other => other?,
    };
    client.shutdown(args.containers).await?;
    Ok(Exit::Success)
}

pub(crate) async fn dial_stdio(session: &Session) -> Result<Exit> {
    let (mut answers, mut requests) = split(session.dial().await?);
    let ask = async {
        copy(&mut stdin(), &mut requests).await.context("passing the requests on")?;
        // The answer to the last one is still to come.
        requests.shutdown().await.context("ending the requests")?;
        std::future::pending::<Result<()>>().await
    };
    let tell = async {
        let mut out = stdout();
        copy(&mut answers, &mut out).await.context("passing the answers on")?;
        out.flush().await.context("passing the answers on")
    };
    tokio::select! {
        asked = ask => asked?,
        told = tell => told?,
    }
    Ok(Exit::Success)
}
