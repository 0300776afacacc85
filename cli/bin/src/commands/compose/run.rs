//! `berth compose run`, `exec`, `attach`, `cp`, `export`, `commit`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_api::container::ContainerSummary;
use berth_client::Client;
use berth_compose::apply::{RunOptions, UpOptions};
use berth_compose::labels::Labelled;
use berth_compose::logs;
use berth_compose::model::{Dependencies, Project};
use clap::Args;

use super::images::{Maker, override_policy};
use super::project::ProjectArgs;
use super::up::print_plan;
use super::words;
use crate::commands::{archive, attach, commit, cp, exec, run as plain_run};
use crate::exit::Exit;
use crate::flags::environment;
use crate::session::Session;

/// Run a command in a container of its own
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// Capability to add
    #[arg(long)]
    cap_add: Vec<String>,
    /// Capability to drop
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Run in the background and print the container's name
    #[arg(short, long)]
    detach: bool,
    /// Entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File of variables
    #[arg(long, value_name = "FILE")]
    env_from_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, require_equals = true)]
    interactive: bool,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// No terminal
    #[arg(short = 'T', long = "no-TTY", alias = "no-tty")]
    no_tty: bool,
    /// Leave out what the service depends on
    #[arg(long)]
    no_deps: bool,
    /// Publish a port
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// When to pull: always, missing, never, policy
    #[arg(long)]
    pull: Option<String>,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Keep the output of builds to itself
    #[arg(long)]
    quiet_build: bool,
    /// Do not show the progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Publish the service's ports
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// Let the service's names lead to the container
    #[arg(long)]
    use_aliases: bool,
    /// User
    #[arg(short, long)]
    user: Option<String>,
    /// Volume
    #[arg(short, long)]
    volume: Vec<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Service
    service: String,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The service as the flags change it, before the project is checked and hashed.
fn changed(project: &mut Project, run: &Run) -> Result<()> {
    let Some(service) = project.services.get_mut(&run.service) else {
        bail!("no such service: {}", run.service)
    };
    if !run.service_ports {
        service.ports.clear();
    }
    service.add_ports(&run.publish).map_err(|message| anyhow::anyhow!("--publish: {message}"))?;
    service.add_volumes(&run.volume).map_err(|message| anyhow::anyhow!("--volume: {message}"))?;
    Ok(())
}

pub(crate) async fn run(session: &Session, args: &ProjectArgs, run: Run) -> Result<Exit> {
    let mut project = args.ready(std::slice::from_ref(&run.service))?;
    override_policy(&mut project, run.pull.as_deref())?;
    if run.no_deps {
        project.select(std::slice::from_ref(&run.service), Dependencies::Ignore)?;
    }
    changed(&mut project, &run)?;
    let engine = args.engine(session, run.quiet).await?;
    let maker = Maker::new(&engine.client, run.quiet_pull || run.quiet, run.quiet_build || run.quiet);
    let steps = engine.image_steps(&project, run.build, false).await?;
    engine.prepare_images(&project, &steps, &maker, &BTreeMap::new()).await?;
    // Networks and volumes of the service are made with its dependencies, of which it is none itself.
    let mut others = project.clone();
    if let Some(service) = others.services.remove(&run.service) {
        others.disabled.insert(run.service.clone(), service);
    }
    for service in others.services.values_mut() {
        service.depends_on.remove(&run.service);
    }
    let options = UpOptions {
        targets: others.services.keys().cloned().collect(),
        inherit: true,
        remove_orphans: run.remove_orphans,
        ignore_orphans: true,
        ..UpOptions::default()
    };
    let (plan, observed) = engine.plan(&others, &options, BTreeMap::new()).await?;
    if args.dry_run {
        print_plan(&steps, &plan);
        args.would(&format!("Service {}  Would run {}", run.service, run.command.join(" ")));
        return Ok(Exit::Success);
    }
    let created = engine.apply(&others, &plan, &observed, &options).await?;
    engine.start_created(&others, &created).await?;
    let tty = !run.no_tty && !run.detach && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let interactive = run.interactive && !run.detach;
    let variables =
        environment::variables(&run.env_from_file, &run.env, |name| project.environment.get(name).cloned())?;
    let one = RunOptions {
        service: run.service.clone(),
        command: run.command.clone(),
        entrypoint: run
            .entrypoint
            .as_deref()
            .map(berth_compose::model::Command::split)
            .transpose()
            .map_err(anyhow::Error::msg)?
            .map(|words| words.0),
        name: run.name.clone(),
        user: run.user.clone(),
        workdir: run.workdir.clone(),
        environment: variables,
        labels: run.label.clone(),
        cap_add: run.cap_add.clone(),
        cap_drop: run.cap_drop.clone(),
        tty,
        interactive,
        remove: run.rm,
        aliases: run.use_aliases,
        wait: !run.no_deps,
    };
    let id = engine.create_one_off(&project, &one).await?;
    if run.detach {
        engine.client.container_start(&id, "").await?;
        let inspect = engine.client.container_inspect(&id, false).await;
        println!("{}", inspect.map_or(id, |inspect| inspect.name.trim_start_matches('/').to_owned()));
        return Ok(Exit::Success);
    }
    plain_run::attached(&engine.client, &id, tty, interactive, run.rm).await
}

/// A running container of a service.
async fn running(client: &Client, args: &ProjectArgs, service: &str, index: u32) -> Result<ContainerSummary> {
    let found = logs::container_of(client, &args.name()?, service, index, false).await?;
    found.with_context(|| match index {
        0 => format!("service {service:?} is not running"),
        _ => format!("service {service:?} is not running container #{index}"),
    })
}

/// Run a command in a running container
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// No terminal
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    no_tty: bool,
    /// Give all capabilities
    #[arg(long)]
    privileged: bool,
    /// User
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    #[arg(short, long, hide = true)]
    interactive: bool,
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Service
    service: String,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run_exec(session: &Session, args: &ProjectArgs, wanted: Exec) -> Result<Exit> {
    let client = session.client().await?;
    let container = running(&client, args, &wanted.service, wanted.index).await?;
    if args.dry_run {
        args.would(&format!("Container {}  Would run {}", container.short_name(), wanted.command.join(" ")));
        return Ok(Exit::Success);
    }
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let mut line: Vec<String> = Vec::new();
    if wanted.detach {
        line.push("--detach".to_owned());
    } else {
        line.push("--interactive".to_owned());
        line.extend((!wanted.no_tty && terminal).then(|| "--tty".to_owned()));
    }
    line.extend(wanted.env.into_iter().map(|env| format!("--env={env}")));
    line.extend(wanted.privileged.then(|| "--privileged".to_owned()));
    line.extend(wanted.user.map(|user| format!("--user={user}")));
    line.extend(wanted.workdir.map(|workdir| format!("--workdir={workdir}")));
    line.push(container.id);
    line.extend(wanted.command);
    exec::run(session, words::<exec::Exec>("exec", line)?).await
}

/// Attach our streams to a service's container
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// Do not pass our standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, require_equals = true)]
    sig_proxy: bool,
    /// Service
    service: String,
}

pub(crate) async fn run_attach(session: &Session, args: &ProjectArgs, wanted: Attach) -> Result<Exit> {
    let client = session.client().await?;
    let container = running(&client, args, &wanted.service, wanted.index).await?;
    let mut line: Vec<String> = Vec::new();
    line.extend(wanted.detach_keys.map(|keys| format!("--detach-keys={keys}")));
    // Looking on changes nothing.
    line.extend((wanted.no_stdin || args.dry_run).then(|| "--no-stdin".to_owned()));
    line.push(format!("--sig-proxy={}", wanted.sig_proxy && !args.dry_run));
    line.push(container.id);
    attach::run(session, words::<attach::Attach>("attach", line)?).await
}

/// Copy files between a service's containers and here
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow symbolic links of the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// Also containers of run
    #[arg(long)]
    all: bool,
    /// SERVICE:PATH, or a path
    source: String,
    /// SERVICE:PATH, or a path
    target: String,
}

pub(crate) async fn run_cp(session: &Session, args: &ProjectArgs, wanted: Cp) -> Result<Exit> {
    let client = session.client().await?;
    let name = args.name()?;
    let service = |path: &str| {
        path.split_once(':')
            .filter(|(service, _)| !service.contains('/') && !service.is_empty())
            .map(|(service, _)| service.to_owned())
    };
    let (from, to) = (service(&wanted.source), service(&wanted.target));
    let chosen = match (&from, &to) {
        (Some(_), Some(_)) => bail!("copying between services is not supported"),
        (None, None) => bail!("unknown copy direction: one side must be SERVICE:PATH"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
    };
    let mut containers =
        berth_compose::observe::containers(&client, &name, berth_compose::labels::OneOff::Include, true)
            .await?;
    containers.retain(|container| {
        let number = wanted.index == 0 || container.number() == wanted.index;
        container.service() == chosen && number && (wanted.all || !container.is_one_off())
    });
    if containers.is_empty() {
        bail!("no container found for service {chosen:?}");
    }
    // What comes out comes out of one container; what goes in goes into all.
    containers.truncate(if from.is_some() { 1 } else { usize::MAX });
    for container in containers {
        let place = |path: &str| path.replacen(&format!("{chosen}:"), &format!("{}:", container.id), 1);
        let (source, target) = match &from {
            Some(_) => (place(&wanted.source), wanted.target.clone()),
            None => (wanted.source.clone(), place(&wanted.target)),
        };
        if args.dry_run {
            args.would(&format!("Container {}  Copy {source} to {target}", container.short_name()));
            continue;
        }
        let mut line: Vec<String> = Vec::new();
        line.extend(wanted.archive.then(|| "--archive".to_owned()));
        line.extend(wanted.follow_link.then(|| "--follow-link".to_owned()));
        line.extend([source, target]);
        cp::run(session, words::<cp::Cp>("cp", line)?).await?;
    }
    Ok(Exit::Success)
}

/// Write a container's file system to a tar archive
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// File to write to
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Service
    service: String,
}

pub(crate) async fn run_export(session: &Session, args: &ProjectArgs, wanted: Export) -> Result<Exit> {
    let client = session.client().await?;
    let container = running(&client, args, &wanted.service, wanted.index).await?;
    if args.dry_run {
        args.would(&format!("Container {}  Exported", container.short_name()));
        return Ok(Exit::Success);
    }
    let mut line: Vec<String> = Vec::new();
    line.extend(wanted.output.map(|file| format!("--output={}", file.display())));
    line.push(container.id);
    archive::export(session, words::<archive::Export>("export", line)?).await
}

/// Make an image of a container
#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Author
    #[arg(short, long)]
    author: Option<String>,
    /// Dockerfile instruction to apply
    #[arg(short, long)]
    change: Vec<String>,
    /// Number of the container
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// Comment
    #[arg(short, long)]
    message: Option<String>,
    /// Pause the container meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pause: bool,
    /// Service
    service: String,
    /// Name of the image
    image: Option<String>,
}

pub(crate) async fn run_commit(session: &Session, args: &ProjectArgs, wanted: Commit) -> Result<Exit> {
    let client = session.client().await?;
    let container = running(&client, args, &wanted.service, wanted.index).await?;
    if args.dry_run {
        let image = wanted.image.as_deref().unwrap_or("without a name");
        args.would(&format!("Container {}  Committed to image {image}", container.short_name()));
        return Ok(Exit::Success);
    }
    let mut line: Vec<String> = Vec::new();
    line.extend(wanted.author.map(|author| format!("--author={author}")));
    line.extend(wanted.change.into_iter().map(|change| format!("--change={change}")));
    line.extend(wanted.message.map(|message| format!("--message={message}")));
    line.push(format!("--pause={}", wanted.pause));
    line.push(container.id);
    line.extend(wanted.image);
    commit::run(session, words::<commit::Commit>("commit", line)?).await
}
