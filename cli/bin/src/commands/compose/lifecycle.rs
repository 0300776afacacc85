//! `berth compose start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`, `wait`, `down`.

use anyhow::{Result, bail};
use berth_api::options::WaitCondition;
use berth_compose::apply::{DownOptions, RemoveImages, StopOptions};
use berth_compose::labels::{Labelled, OneOff};
use berth_compose::model::Project;
use berth_compose::{Engine, observe};
use clap::Args;

use super::project::{ProjectArgs, Reading};
use crate::exit::Exit;
use crate::session::Session;

// Services.
#[derive(Debug, Args)]
pub(crate) struct Services {
    /// Services
    services: Vec<String>,
}

// Services, and how long they may take.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds before SIGKILL
    #[arg(short, long, allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Services
    services: Vec<String>,
}

/// Restart containers
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Leave out services that depend on them
    #[arg(long)]
    no_deps: bool,
    #[command(flatten)]
    stop: Stop,
}

/// Start containers that were stopped
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Wait until services run and are healthy
    #[arg(long)]
    wait: bool,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Services
    services: Vec<String>,
}

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Services
    services: Vec<String>,
}

/// Remove stopped containers
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop them first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes as well
    #[arg(short, long)]
    volumes: bool,
    /// Services
    services: Vec<String>,
}

/// Stop and remove containers and networks
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds before SIGKILL
    #[arg(short, long, allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Remove volumes as well
    #[arg(short, long)]
    volumes: bool,
    /// Remove images as well: local (those without a name of your own) or all
    #[arg(long, value_name = "WHICH")]
    rmi: Option<String>,
    /// Services
    services: Vec<String>,
}

/// Wait until containers of services end
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Take the project down when the first one has ended
    #[arg(long)]
    down_project: bool,
    /// Services
    #[arg(required = true)]
    services: Vec<String>,
}

async fn open(session: &Session, args: &ProjectArgs, services: &[String]) -> Result<(Engine, Project)> {
    let engine = args.engine(session, false).await?;
    let project = args.found(&engine.client, services).await?;
    for name in services {
        project.service(name)?;
    }
    Ok((engine, project))
}

pub(crate) async fn start(session: &Session, args: &ProjectArgs, start: Start) -> Result<Exit> {
    let (engine, mut project) = open(session, args, &start.services).await?;
    project.select(&start.services, berth_compose::model::Dependencies::Include)?;
    project.resolve_environment()?;
    let existing = observe::containers(&engine.client, &project.name, OneOff::Exclude, true).await?;
    let missing =
        project.services.keys().find(|name| !existing.iter().any(|container| container.service() == *name));
    if let Some(name) = missing {
        bail!("service {name:?} has no container to start");
    }
    engine.start(&project).await?;
    if start.wait && !engine.is_dry() {
        engine.wait_running(&project, start.wait_timeout).await?;
    }
    Ok(Exit::Success)
}

pub(crate) async fn stop(session: &Session, args: &ProjectArgs, stop: Stop) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &stop.services)?;
    engine.stop(&project, &StopOptions { services: stop.services, timeout: stop.timeout }).await?;
    Ok(Exit::Success)
}

fn known(project: &Project, services: &[String]) -> Result<()> {
    for name in services {
        project.service(name)?;
    }
    Ok(())
}

pub(crate) async fn restart(session: &Session, args: &ProjectArgs, restart: Restart) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &restart.stop.services)?;
    let options = StopOptions { services: restart.stop.services, timeout: restart.stop.timeout };
    engine.restart(&project, &options, restart.no_deps).await?;
    Ok(Exit::Success)
}

pub(crate) async fn kill(session: &Session, args: &ProjectArgs, kill: Kill) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &kill.services)?;
    if !engine.kill(&project, &kill.services, &kill.signal).await? {
        eprintln!("no container to kill");
    }
    if kill.remove_orphans {
        engine.remove_project_orphans(&project).await?;
    }
    Ok(Exit::Success)
}

pub(crate) async fn pause(session: &Session, args: &ProjectArgs, services: Services) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &services.services)?;
    engine.pause(&project, &services.services).await?;
    Ok(Exit::Success)
}

pub(crate) async fn unpause(session: &Session, args: &ProjectArgs, services: Services) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &services.services)?;
    engine.unpause(&project, &services.services).await?;
    Ok(Exit::Success)
}

pub(crate) async fn rm(session: &Session, args: &ProjectArgs, rm: Rm) -> Result<Exit> {
    let (engine, project) = open(session, args, &[]).await?;
    known(&project, &rm.services)?;
    if rm.stop {
        engine.stop(&project, &StopOptions { services: rm.services.clone(), timeout: None }).await?;
    }
    let stopped = engine.stopped(&project, &rm.services, rm.stop && engine.is_dry()).await?;
    if stopped.is_empty() {
        eprintln!("No stopped containers");
        return Ok(Exit::Success);
    }
    let names: Vec<&str> = stopped.iter().map(Labelled::short_name).collect();
    println!("Going to remove {}", names.join(", "));
    if !rm.force && !engine.is_dry() && !crate::commands::confirm("Are you sure?")? {
        return Ok(Exit::Success);
    }
    engine.remove(&stopped, rm.volumes, rm.force).await?;
    Ok(Exit::Success)
}

pub(crate) async fn down(session: &Session, args: &ProjectArgs, down: Down) -> Result<Exit> {
    let images = match down.rmi.as_deref() {
        None | Some("") => None,
        Some("local") => Some(RemoveImages::Local),
        Some("all") => Some(RemoveImages::All),
        Some(other) => bail!("invalid value for --rmi: {other:?}; it is local or all"),
    };
    let all = ProjectArgs { all_resources: true, ..args.clone() };
    let engine = args.engine(session, false).await?;
    let project = all.found(&engine.client, &[]).await?;
    known(&project, &down.services)?;
    let options = DownOptions {
        services: down.services,
        volumes: down.volumes,
        images,
        remove_orphans: down.remove_orphans
            || std::env::var("COMPOSE_REMOVE_ORPHANS").is_ok_and(|value| value == "true" || value == "1"),
        timeout: down.timeout,
    };
    engine.down(&project, &options).await?;
    Ok(Exit::Success)
}

pub(crate) async fn wait(session: &Session, args: &ProjectArgs, wait: Wait) -> Result<Exit> {
    let (_, project) = args.load(&[], Reading::FULL)?;
    known(&project, &wait.services)?;
    let engine = args.engine(session, false).await?;
    let mut containers = observe::containers(&engine.client, &project.name, OneOff::Exclude, false).await?;
    containers.retain(|container| wait.services.iter().any(|name| name == container.service()));
    if containers.is_empty() {
        bail!("no containers for project {:?}", project.name);
    }
    let mut code = 0;
    let ends = containers.iter().map(async |container| {
        let ended = engine.client.container_wait(&container.id, WaitCondition::NotRunning).await?;
        Ok::<_, anyhow::Error>((container, ended.exit().await?.status_code))
    });
    if wait.down_project {
        let ends: Vec<_> = ends.map(Box::pin).collect();
        let (first, _, _) = futures_util::future::select_all(ends).await;
        let (container, ended) = first?;
        println!("container {:?} exited with status code {ended}", container.id);
        engine.down(&project, &DownOptions::default()).await?;
        return Ok(Exit::of_program(ended));
    }
    for end in futures_util::future::join_all(ends).await {
        let (container, ended) = end?;
        println!("container {:?} exited with status code {ended}", container.id);
        code = ended;
    }
    Ok(Exit::of_program(code))
}
