//! The commands, one a file; families of one-request commands share a file.

use anyhow::Result;
use futures_util::StreamExt;

use crate::exit::{Exit, Failure};

mod api_socket;
pub(crate) mod archive;
pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod builder;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod compose;
pub(crate) mod context;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod df;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod lab;
pub(crate) mod lifecycle;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod volume;

/// Does `act` for each name and prints the name; goes on past failures and fails at the end if there were any.
pub(crate) async fn each(names: &[String], act: impl AsyncFn(&str) -> Result<()>) -> Result<Exit> {
    each_quietly(names, async |name: &str| {
        act(name).await?;
        println!("{name}");
        Ok(())
    })
    .await
}

/// How many requests are under way at once, as docker's CLI has it.
const AT_ONCE: usize = 50;

/// The same for many at once; the names are printed in their order.
pub(crate) async fn each_at_once(names: &[String], act: impl AsyncFn(&str) -> Result<()>) -> Result<Exit> {
    let mut done = futures_util::stream::iter(names)
        .map(async |name: &String| (name, act(name).await))
        .buffered(AT_ONCE);
    let mut failures = Vec::new();
    while let Some((name, result)) = done.next().await {
        match result {
            Ok(()) => println!("{name}"),
            Err(error) => failures.push(crate::exit::describe(&error)),
        }
    }
    told(failures)
}

/// One after the other, without printing the names.
pub(crate) async fn each_quietly(names: &[String], act: impl AsyncFn(&str) -> Result<()>) -> Result<Exit> {
    let mut failures = Vec::new();
    for name in names {
        if let Err(error) = act(name).await {
            failures.push(crate::exit::describe(&error));
        }
    }
    told(failures)
}

/// Success, or all failures in one.
fn told(failures: Vec<String>) -> Result<Exit> {
    if failures.is_empty() {
        Ok(Exit::Success)
    } else {
        Err(Failure { message: failures.join("\n"), code: 1 }.into())
    }
}

/// Asks on the terminal whether to go on.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
