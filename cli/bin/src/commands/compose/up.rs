//! `berth compose up`, `create`, `scale`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use berth_compose::Engine;
use berth_compose::apply::{Created, ImageStep, Listener, UpOptions};
use berth_compose::model::{Dependencies, Project};
use berth_compose::plan::{Plan, Recreate};
use clap::Args;

use super::attached;
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
    pub(super) detach: bool,
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
    pub(super) abort_on_container_exit: bool,
    /// Stop all containers when one ends with a failure
    #[arg(long, conflicts_with_all = ["detach", "abort_on_container_exit"])]
    pub(super) abort_on_container_failure: bool,
    /// End with the exit code of this service, and stop all containers when one ends
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub(super) exit_code_from: Option<String>,
    /// Seconds for containers that stop
    #[arg(short, long, allow_negative_numbers = true)]
    pub(super) timeout: Option<i64>,
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
    pub(super) attach: Vec<String>,
    /// Do not show these services
    #[arg(long, value_name = "SERVICE")]
    pub(super) no_attach: Vec<String>,
    /// Also show what the services depend on
    #[arg(long)]
    pub(super) attach_dependencies: bool,
    /// Wait until services run and are healthy; implies --detach
    #[arg(long)]
    wait: bool,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Bring changes of files into the containers
    #[arg(short, long, conflicts_with_all = ["detach", "wait"])]
    pub(super) watch: bool,
    /// Of no effect: there are no shortcuts on the keyboard
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    menu: Option<bool>,
    /// Services
    pub(super) services: Vec<String>,
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

/// Prints what would be done.
pub(super) fn print_plan(steps: &BTreeMap<String, ImageStep>, plan: &Plan) {
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
    attached::run(&engine, &project, &up, &created, printer, maker).await
}
