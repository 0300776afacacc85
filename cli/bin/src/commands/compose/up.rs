//! `berth compose up`, `create`, `scale`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use berth_api::options::{Attach, Logs};
use berth_client::Client;
use berth_compose::Engine;
use berth_compose::apply::{Created, ImageStep, Listener, StopOptions, UpOptions};
use berth_compose::logs::{self, Happening, Lines, Monitor};
use berth_compose::model::{Dependencies, Project};
use berth_compose::plan::{Plan, Recreate};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::images::{Maker, override_policy};
use super::progress::{LineStyle, Printer};
use super::project::ProjectArgs;
use crate::exit::Exit;
use crate::session::Session;

/// What `up` and `create` have in common.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Making {
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Build nothing
    #[arg(long)]
    no_build: bool,
    /// When to pull: always, missing, never, policy
    #[arg(long, value_name = "WHEN")]
    pull: Option<String>,
    /// Do not show the progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Make containers anew even if nothing has changed
    #[arg(long, conflicts_with = "no_recreate")]
    force_recreate: bool,
    /// Make no container anew, even if something has changed
    #[arg(long)]
    no_recreate: bool,
    /// Remove containers of services that are not in the files
    #[arg(long)]
    remove_orphans: bool,
    /// Number of containers: SERVICE=N
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<String>,
    /// Answer yes to all questions
    #[arg(short, long)]
    yes: bool,
}

/// Create and start containers
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    making: Making,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No names before lines
    #[arg(long)]
    no_log_prefix: bool,
    /// Create containers, but start none
    #[arg(long, conflicts_with = "detach")]
    no_start: bool,
    /// Stop all containers when one ends
    #[arg(long, conflicts_with = "detach")]
    abort_on_container_exit: bool,
    /// Stop all containers when one ends with a failure
    #[arg(long, conflicts_with_all = ["detach", "abort_on_container_exit"])]
    abort_on_container_failure: bool,
    /// End with the exit code of this service, and stop all containers when one ends
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    exit_code_from: Option<String>,
    /// Seconds for containers that stop
    #[arg(short, long, allow_negative_numbers = true)]
    timeout: Option<i64>,
    /// Show times
    #[arg(long)]
    timestamps: bool,
    /// Leave out what the services depend on
    #[arg(long)]
    no_deps: bool,
    /// Make what the services depend on anew as well
    #[arg(long, conflicts_with = "no_recreate")]
    always_recreate_deps: bool,
    /// Make anonymous volumes anew as well
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Keep the output of builds to itself
    #[arg(long)]
    quiet_build: bool,
    /// Show only these services
    #[arg(long, value_name = "SERVICE", conflicts_with = "attach_dependencies")]
    attach: Vec<String>,
    /// Do not show these services
    #[arg(long, value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// Also show what the services depend on
    #[arg(long)]
    attach_dependencies: bool,
    /// Wait until services run and are healthy; implies --detach
    #[arg(long)]
    wait: bool,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Bring changes of files into the containers
    #[arg(short, long, conflicts_with_all = ["detach", "wait"])]
    watch: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    menu: Option<bool>,
    /// Services
    services: Vec<String>,
}

/// Create containers without starting them
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    making: Making,
    /// Services
    services: Vec<String>,
}

/// Set the number of containers of services
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Leave out what the services depend on
    #[arg(long)]
    no_deps: bool,
    /// SERVICE=N
    #[arg(required = true, value_name = "SERVICE=N")]
    scale: Vec<String>,
}

fn scale(project: &mut Project, scale: &[String]) -> Result<()> {
    for pair in scale {
        let (name, number) = pair
            .split_once('=')
            .with_context(|| format!("invalid --scale option {pair:?}. Should be SERVICE=NUM"))?;
        let number: i64 = number
            .parse()
            .with_context(|| format!("invalid --scale option {pair:?}. Should be SERVICE=NUM"))?;
        let Some(service) = project.services.get_mut(name) else { bail!("no such service: {name}") };
        if number > 1 && !service.container_name.is_empty() {
            bail!(
                "service {name:?} has the container name {:?}: a name is for one container only, so that it cannot be scaled",
                service.container_name
            );
        }
        service.set_replicas(number);
    }
    Ok(())
}

/// The project as the flags want it.
fn project(args: &ProjectArgs, making: &Making, services: &[String], no_deps: bool) -> Result<Project> {
    let mut project = args.ready(services)?;
    scale(&mut project, &making.scale)?;
    override_policy(&mut project, making.pull.as_deref())?;
    if no_deps {
        project.select(services, Dependencies::Ignore)?;
    }
    Ok(project)
}

fn options(project: &Project, making: &Making, services: &[String]) -> UpOptions {
    let targets: BTreeSet<String> = match services.is_empty() {
        true => project.services.keys().cloned().collect(),
        false => services.iter().cloned().collect(),
    };
    let recreate = match (making.force_recreate, making.no_recreate) {
        (true, _) => Recreate::Force,
        (_, true) => Recreate::Never,
        _ => Recreate::Diverged,
    };
    UpOptions {
        targets,
        recreate,
        recreate_dependencies: if making.no_recreate { Recreate::Never } else { Recreate::Diverged },
        inherit: true,
        remove_orphans: making.remove_orphans,
        ignore_orphans: std::env::var("COMPOSE_IGNORE_ORPHANS")
            .is_ok_and(|value| matches!(value.as_str(), "1" | "true")),
        recreate_volumes: making.yes,
        timeout: None,
    }
}

/// Images, then the plan. With `--dry-run` both are only printed, and nothing comes back.
async fn prepare(
    engine: &Engine,
    args: &ProjectArgs,
    project: &Project,
    options: &UpOptions,
    making: &Making,
    maker: &Maker,
) -> Result<Option<BTreeMap<String, Vec<Created>>>> {
    let steps = engine.image_steps(project, making.build, making.no_build).await?;
    if args.dry_run {
        let awaiting = steps.iter().map(|(name, step)| {
            let done = if matches!(step, ImageStep::Pull { .. }) { "pulled" } else { "built" };
            (name.clone(), format!("its image is {done} first"))
        });
        let (mut plan, observed) = engine.plan(project, options, awaiting.collect()).await?;
        engine.explain(&mut plan, project, &observed, options).await?;
        print_plan(&steps, &plan);
        return Ok(None);
    }
    engine.prepare_images(project, &steps, maker, &BTreeMap::new()).await?;
    let (plan, observed) = engine.plan(project, options, BTreeMap::new()).await?;
    Ok(Some(engine.apply(project, &plan, &observed, options).await?))
}

fn print_plan(steps: &BTreeMap<String, ImageStep>, plan: &Plan) {
    let mut told = BTreeSet::new();
    for step in steps.values().map(ToString::to_string) {
        if told.insert(step.clone()) {
            println!("+ {step}");
        }
    }
    if told.is_empty() || !plan.is_empty() {
        print!("{plan}");
    }
}

pub(crate) async fn create(session: &Session, args: &ProjectArgs, create: Create) -> Result<Exit> {
    let project = project(args, &create.making, &create.services, false)?;
    let engine = args.engine(session, false).await?;
    let maker = Maker::new(&engine.client, create.making.quiet_pull, false);
    let options = options(&project, &create.making, &create.services);
    prepare(&engine, args, &project, &options, &create.making, &maker).await?;
    Ok(Exit::Success)
}

pub(crate) async fn run_scale(session: &Session, args: &ProjectArgs, wanted: Scale) -> Result<Exit> {
    let services: Vec<String> =
        wanted.scale.iter().map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
    let making = Making { scale: wanted.scale, no_recreate: true, ..Making::default() };
    let project = project(args, &making, &services, wanted.no_deps)?;
    let engine = args.engine(session, false).await?;
    let maker = Maker::new(&engine.client, false, false);
    let options = UpOptions { ignore_orphans: true, ..options(&project, &making, &services) };
    if let Some(created) = prepare(&engine, args, &project, &options, &making, &maker).await? {
        engine.start_created(&project, &created).await?;
    }
    Ok(Exit::Success)
}

pub(crate) async fn run(session: &Session, args: &ProjectArgs, up: Up) -> Result<Exit> {
    let mut project = project(args, &up.making, &up.services, up.no_deps)?;
    let style = LineStyle::new(args, up.no_color, up.no_log_prefix, up.timestamps);
    let printer = Printer::new(style);
    let engine = args.engine(session, false).await?.with_listener(Arc::clone(&printer) as Arc<dyn Listener>);
    let maker = Maker::new(&engine.client, up.making.quiet_pull, up.quiet_build);
    let mut options = options(&project, &up.making, &up.services);
    options.inherit = !up.renew_anon_volumes;
    options.timeout = up.timeout;
    if up.always_recreate_deps {
        options.recreate_dependencies = Recreate::Force;
    }
    if let Some(service) = &up.exit_code_from {
        project.service(service)?;
    }
    let Some(created) = prepare(&engine, args, &project, &options, &up.making, &maker).await? else {
        return Ok(Exit::Success);
    };
    if up.no_start {
        return Ok(Exit::Success);
    }
    if up.detach || up.wait {
        engine.start_created(&project, &created).await?;
        if up.wait {
            engine.wait_healthy(&project, &created, up.wait_timeout).await?;
        }
        return Ok(Exit::Success);
    }
    project.disabled.clear();
    attached(&engine, &project, &up, created, printer, maker).await
}

/// The services whose output is shown.
fn shown(project: &Project, up: &Up) -> BTreeSet<String> {
    let all = project
        .services
        .iter()
        .filter(|(_, service)| service.attach != Some(false))
        .map(|(name, _)| name.clone());
    let mut shown: BTreeSet<String> = if !up.attach.is_empty() {
        up.attach.iter().cloned().collect()
    } else if up.services.is_empty() || up.attach_dependencies {
        all.collect()
    } else {
        up.services.iter().cloned().collect()
    };
    shown.retain(|name| !up.no_attach.contains(name));
    shown
}

/// Shows what containers print until they have ended, or the user has had enough.
async fn attached(
    engine: &Engine,
    project: &Project,
    up: &Up,
    created: BTreeMap<String, Vec<Created>>,
    printer: Arc<Printer>,
    maker: Maker,
) -> Result<Exit> {
    let client = &engine.client;
    let shown = shown(project, up);
    let watched: BTreeSet<String> =
        if up.services.is_empty() { BTreeSet::new() } else { up.services.iter().cloned().collect() };
    let mut monitor = Monitor::new(client, &project.name, watched.clone()).await?;
    let mut readers: JoinSet<Result<()>> = JoinSet::new();
    let mut alive: BTreeSet<String> = BTreeSet::new();
    let all = created
        .iter()
        .flat_map(|(service, containers)| containers.iter().map(move |container| (service, container)));
    let source = |name: &str| name.strip_prefix(&format!("{}-", project.name)).unwrap_or(name).to_owned();
    let names: Vec<String> = all
        .clone()
        .filter(|(service, _)| shown.contains(*service))
        .map(|(_, container)| source(&container.name))
        .collect();
    printer.expect(names.iter().map(String::as_str));
    if !names.is_empty() {
        println!("Attaching to {}", names.join(", "));
    }
    for (service, container) in all {
        if watched.is_empty() || watched.contains(service) {
            alive.insert(container.id.clone());
        }
        if shown.contains(service) {
            let tty = project.services.get(service).is_some_and(|service| service.tty);
            let reader = follow(
                client.clone(),
                container.id.clone(),
                source(&container.name),
                tty,
                Arc::clone(&printer),
            );
            readers.spawn(reader.await?);
        }
    }
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let watching = if up.watch {
        Some(super::watch::spawn(engine.clone(), project.clone(), Vec::new(), maker)?)
    } else {
        None
    };
    let mut ending = Ending { engine, project, up, exit: None, asked: false, stops: JoinSet::new() };
    let start = engine.start_created(project, &created);
    tokio::pin!(start);
    let mut started = false;
    let mut restarting: BTreeSet<String> = BTreeSet::new();
    while !alive.is_empty() || !started {
        tokio::select! {
            result = &mut start, if !started => {
                started = true;
                if !ending.asked {
                    result?;
                }
            }
            _ = interrupt.recv() => ending.asked().await?,
            _ = terminate.recv() => ending.asked().await?,
            Some(stopped) = ending.stops.join_next() => stopped??,
            happening = monitor.next() => match happening? {
                None => break,
                Some(Happening::Started { id, source }) => {
                    let again = restarting.remove(&id);
                    if !again && !alive.insert(id.clone()) {
                        continue;
                    }
                    let since = if again { logs::started_at(client, &id).await? } else { None };
                    let (client, printer) = (client.clone(), Arc::clone(&printer));
                    readers.spawn(async move {
                        let options = Logs { follow: true, stdout: true, stderr: true, since, ..Logs::default() };
                        Ok(logs::of_container(&client, &id, &source, &options, printer.as_ref()).await?)
                    });
                }
                Some(Happening::Exited { id, source, service, code }) => {
                    let restarts = client.container_inspect(&id, false).await.is_ok_and(|inspect| inspect.state.restarting || inspect.state.running);
                    if restarts {
                        restarting.insert(id.clone());
                    } else {
                        alive.remove(&id);
                    }
                    // What it said last comes before that it has ended.
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    println!("{source} exited with code {code}{}", if restarts { " (restarting)" } else { "" });
                    if !restarts {
                        ending.container_ended(&service, code);
                    }
                }
            },
        }
    }
    if let Some(watching) = watching {
        watching.abort();
    }
    while let Ok(Some(read)) =
        tokio::time::timeout(std::time::Duration::from_secs(1), readers.join_next()).await
    {
        read??;
    }
    while let Some(stopped) = ending.stops.join_next().await {
        stopped??;
    }
    Ok(ending.exit.map_or(Exit::Success, Exit::of_program))
}

/// Attaches to a container that may not run yet, and gives what tells its lines to their end.
async fn follow(
    client: Client,
    id: String,
    source: String,
    tty: bool,
    printer: Arc<Printer>,
) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
    let attach = Attach { stream: true, stdout: true, stderr: true, ..Attach::default() };
    let mut streams = client.container_attach(&id, &attach, tty).await?;
    Ok(async move {
        let mut lines = Lines::default();
        while let Some((_, bytes)) = streams.output.next_output().await? {
            lines.push(&bytes, |line| printer.line(&source, line));
        }
        lines.end(|line| printer.line(&source, line));
        // The input's half is held until here: closing it would end the output.
        drop(streams.input);
        Ok(())
    })
}

/// How an attached `up` comes to its end.
struct Ending<'a> {
    engine: &'a Engine,
    project: &'a Project,
    up: &'a Up,
    exit: Option<i64>,
    asked: bool,
    stops: JoinSet<Result<()>>,
}

impl Ending<'_> {
    fn stop(&mut self) {
        let (engine, project) = (self.engine.clone(), self.project.clone());
        let options = StopOptions { services: self.up.services.clone(), timeout: self.up.timeout };
        self.stops.spawn(async move { Ok(engine.stop(&project, &options).await?) });
    }

    /// Ctrl-C: once stops, twice kills.
    async fn asked(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.asked, true) {
            self.engine.kill(self.project, &self.up.services, "SIGKILL").await?;
        } else {
            println!("Gracefully Stopping... press Ctrl+C again to force");
            self.exit.get_or_insert(130);
            self.stop();
        }
        Ok(())
    }

    fn container_ended(&mut self, service: &str, code: i64) {
        let from = self.up.exit_code_from.as_deref();
        if from == Some(service) && !self.asked {
            self.exit = Some(code);
        }
        let aborts = self.up.abort_on_container_exit
            || from.is_some()
            || (self.up.abort_on_container_failure && code != 0);
        if aborts && !self.asked {
            eprintln!("Aborting on container exit...");
            self.asked = true;
            if from.is_none() {
                self.exit = Some(code);
            }
            self.stop();
        }
    }
}
