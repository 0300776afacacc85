//! `berth compose watch`.

use std::collections::BTreeMap;

use anyhow::Result;
use berth_compose::Engine;
use berth_compose::apply::UpOptions;
use berth_compose::model::Project;
use berth_compose::plan::Recreate;
use berth_compose::watch::{Watch as Watcher, Work};
use clap::Args;
use tokio::task::JoinHandle;

use super::images::Maker;
use super::project::ProjectArgs;
use super::up::print_plan;
use crate::exit::Exit;
use crate::session::Session;

/// Bring changes of files into containers
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Do not bring the project up first
    #[arg(long)]
    no_up: bool,
    /// Keep the output of builds to itself
    #[arg(long)]
    quiet: bool,
    /// Remove the images that a rebuild leaves without a name
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    prune: bool,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: &ProjectArgs, watch: Watch) -> Result<Exit> {
    let project = args.ready(&watch.services)?;
    let engine = args.engine(session, false).await?;
    let maker = Maker::new(&engine.client, false, watch.quiet);
    if !watch.no_up {
        let steps = engine.image_steps(&project, true, false).await?;
        engine.prepare_images(&project, &steps, &maker, &BTreeMap::new()).await?;
        bring_up(&engine, &project, Recreate::Diverged).await?;
    }
    let watching = spawn(engine, project, watch.services, maker, watch.prune)?;
    tokio::select! {
        ended = watching => ended??,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(Exit::Success)
}

async fn bring_up(engine: &Engine, project: &Project, recreate: Recreate) -> Result<()> {
    let targets = project.services.keys().cloned().collect();
    let options =
        UpOptions { targets, recreate, inherit: true, ignore_orphans: true, ..UpOptions::default() };
    let (mut plan, observed) = engine.plan(project, &options, BTreeMap::new()).await?;
    if engine.is_dry() {
        engine.explain(&mut plan, project, &observed, &options).await?;
        print_plan(&BTreeMap::new(), &plan);
        return Ok(());
    }
    let created = engine.apply(project, &plan, &observed, &options).await?;
    Ok(engine.start_created(project, &created).await?)
}

/// Watches until it is aborted. What fails is told; the next change is another try.
pub(super) fn spawn(
    engine: Engine,
    project: Project,
    services: Vec<String>,
    maker: Maker,
    prune: bool,
) -> Result<JoinHandle<Result<()>>> {
    let mut watcher = Watcher::new(engine.clone(), project.clone(), &services)?;
    println!("Watch enabled");
    Ok(tokio::spawn(async move {
        let warn = |error: anyhow::Error| eprintln!("warning: {error:#}");
        watcher.initial_sync().await.unwrap_or_else(|error| warn(error.into()));
        loop {
            let work = match watcher.next().await {
                Ok(Some(work)) => work,
                Ok(None) => return Ok(()),
                Err(error) => {
                    warn(error.into());
                    continue;
                }
            };
            for work in work {
                match work {
                    Work::Told(text) => println!("{text}"),
                    Work::Rebuild(services) => {
                        let names: Vec<String> = services.into_iter().collect();
                        println!("Rebuilding service(s) {names:?} after changes were detected...");
                        rebuild(&engine, &project, &names, &maker, prune).await.unwrap_or_else(warn);
                    }
                }
            }
        }
    }))
}

async fn rebuild(
    engine: &Engine,
    project: &Project,
    services: &[String],
    maker: &Maker,
    prune: bool,
) -> Result<()> {
    engine.build(project, services, maker, &BTreeMap::new()).await?;
    bring_up(engine, project, Recreate::Diverged).await?;
    if prune {
        engine.drop_nameless_images(project).await?;
    }
    Ok(())
}
