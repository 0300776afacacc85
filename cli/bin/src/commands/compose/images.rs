//! `berth compose build`, `pull`, `push`; and how images come about for all other commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use berth_client::Client;
use berth_compose::apply::{BuildOptions, Images, PullPolicy};
use berth_compose::model::Project;
use clap::Args;
use futures_util::future::BoxFuture;

use super::bake;
use super::project::{ProjectArgs, Reading};
use crate::commands::build::check;
use crate::commands::pull;
use crate::credentials;
use crate::exit::Exit;
use crate::output::progress::{self, Show};
use crate::output::units;
use crate::session::Session;

/// Pulls and builds with the user's credentials, and shows how it goes.
pub(super) struct Maker {
    pub(super) client: Client,
    pub(super) quiet_pull: bool,
    pub(super) quiet_build: bool,
    pub(super) no_cache: bool,
    pub(super) pull_base: bool,
    pub(super) memory: i64,
}

impl Maker {
    pub(super) fn new(client: &Client, quiet_pull: bool, quiet_build: bool) -> Self {
        Self { client: client.clone(), quiet_pull, quiet_build, no_cache: false, pull_base: false, memory: 0 }
    }
}

impl Images for Maker {
    fn pull<'a>(&'a self, image: &'a str, platform: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let platform = (!platform.is_empty()).then_some(platform);
            let show = if self.quiet_pull { Show::Quiet } else { Show::All };
            pull::pull(&self.client, image, platform, show).await.map_err(|error| format!("{error:#}"))
        })
    }

    fn build<'a>(&'a self, build: &'a BuildOptions) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.build_one(build).await.map_err(|error| format!("{error:#}")) })
    }
}

/// Sets every service's pull policy to what the command line says.
pub(super) fn override_policy(project: &mut Project, policy: Option<&str>) -> Result<()> {
    let policy = match policy {
        None | Some("" | "policy") => return Ok(()),
        Some("always") => PullPolicy::Always,
        Some("missing" | "if_not_present") => PullPolicy::Missing,
        Some("never") => PullPolicy::Never,
        Some("build") => PullPolicy::Build,
        Some(other) => {
            anyhow::bail!("invalid --pull option {other:?}; it is always, missing, never or policy")
        }
    };
    for service in project.services.values_mut().filter(|service| !service.image.is_empty()) {
        policy.name().clone_into(&mut service.pull_policy);
    }
    Ok(())
}

/// Build the images of services
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Value of an ARG; NAME alone passes ours on
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Pull base images even if they are there
    #[arg(long)]
    pull: bool,
    /// Push the images afterwards
    #[arg(long)]
    push: bool,
    /// Keep the build's output to itself
    #[arg(short, long)]
    quiet: bool,
    /// Run every step anew
    #[arg(long)]
    no_cache: bool,
    /// Also build what the services depend on
    #[arg(long)]
    with_dependencies: bool,
    /// Memory limit of a step
    #[arg(short, long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory: Option<i64>,
    /// SSH agent for RUN --mount=type=ssh: default, ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Only say what is wrong with the Dockerfiles
    #[arg(long)]
    check: bool,
    /// Only print the builds as a file for `docker buildx bake`
    #[arg(long)]
    print: bool,
    /// Attestation of how an image was made: only false, for none is made
    #[arg(long, value_name = "KIND")]
    provenance: Option<String>,
    /// Attestation of what is in an image: only false, for none is made
    #[arg(long, value_name = "KIND")]
    sbom: Option<String>,
    /// Of no effect: there is one builder
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
    /// Of no effect: images are always built at the same time
    #[arg(long, hide = true)]
    parallel: bool,
    /// Services
    services: Vec<String>,
}

impl Build {
    /// Puts what the flags say of every build into the project.
    fn adjust(&self, project: &mut Project) -> Result<()> {
        for (flag, value) in [("provenance", &self.provenance), ("sbom", &self.sbom)] {
            if let Some(value) = value.as_deref().filter(|value| !["", "false", "0"].contains(value)) {
                anyhow::bail!(
                    "--{flag}={value}: builds make no attestations; give --{flag}=false or leave it out"
                );
            }
        }
        let builds = project.services.values_mut().filter_map(|service| service.build.as_mut());
        for build in builds {
            for key in &self.ssh {
                let (id, path) =
                    key.split_once('=').map_or((key.as_str(), None), |(id, path)| (id, Some(path)));
                build.ssh.0.insert(id.to_owned(), path.map(str::to_owned));
            }
        }
        Ok(())
    }

    /// What is wrong with the Dockerfiles of services.
    fn examine(&self, project: &Project, names: &[String]) -> Result<Exit> {
        let mut exit = Exit::Success;
        for name in names {
            let Some(build) = &project.service(name)?.build else { continue };
            let mut given = build.args.0.clone();
            given.extend(build_args(&self.build_arg));
            let given = given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let (file, text) = match build.dockerfile_inline.as_str() {
                "" => check::read(
                    &build.context,
                    Some(&build.dockerfile).filter(|name| !name.is_empty()).map(Path::new),
                )?,
                inline => (format!("services.{name}.build.dockerfile_inline"), inline.to_owned()),
            };
            println!("{name}:");
            if let Err(error) = check::examine(&file, &text, &build.context, &given, &build.target) {
                eprintln!("{error:#}");
                exit = Exit::Code(1);
            }
        }
        Ok(exit)
    }
}

pub(super) fn build_args(flags: &[String]) -> BTreeMap<String, Option<String>> {
    let pair = |flag: &String| match flag.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (flag.clone(), std::env::var(flag).ok()),
    };
    flags.iter().map(pair).collect()
}

pub(crate) async fn run_build(session: &Session, args: &ProjectArgs, build: Build) -> Result<Exit> {
    let (_, mut project) = args.load(&build.services, Reading::FULL)?;
    project.apply_platforms(false)?;
    build.adjust(&mut project)?;
    let named =
        |name: &String| build.with_dependencies || build.services.is_empty() || build.services.contains(name);
    let buildable = project.services.iter().filter(|(name, service)| named(name) && service.build.is_some());
    let names: Vec<String> = buildable.map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        eprintln!("warning: No services to build");
        return Ok(Exit::Success);
    }
    if build.print {
        println!("{}", bake::text(&project, &names, &build.build_arg, build.push)?);
        return Ok(Exit::Success);
    }
    if build.check {
        return build.examine(&project, &names);
    }
    let engine = args.engine(session, build.quiet).await?;
    let maker = Maker {
        no_cache: build.no_cache,
        pull_base: build.pull,
        memory: build.memory.unwrap_or(0),
        ..Maker::new(&engine.client, false, build.quiet)
    };
    engine.build(&project, &names, &maker, &build_args(&build.build_arg)).await?;
    if build.push {
        for name in names.iter().filter(|name| !project.services[*name].image.is_empty()) {
            push_one(args, &engine.client, &project.services[name].image, build.quiet).await?;
        }
    }
    Ok(Exit::Success)
}

/// Download the images of services
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Do not show the progress
    #[arg(short, long)]
    quiet: bool,
    /// Also what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Pull what can be pulled
    #[arg(long)]
    ignore_pull_failures: bool,
    /// Leave out images that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// When: missing or always
    #[arg(long)]
    policy: Option<String>,
    #[arg(long, hide = true)]
    parallel: bool,
    #[arg(long, hide = true)]
    no_parallel: bool,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_pull(session: &Session, args: &ProjectArgs, pull: Pull) -> Result<Exit> {
    let (_, mut project) = args.load(&pull.services, Reading::FULL)?;
    if !pull.include_deps {
        project.select(&pull.services, berth_compose::model::Dependencies::Ignore)?;
    }
    override_policy(&mut project, pull.policy.as_deref())?;
    let engine = args.engine(session, false).await?;
    let maker = Arc::new(Maker::new(&engine.client, true, false));
    let mut images: BTreeMap<(String, String), bool> = BTreeMap::new();
    for (name, service) in &project.services {
        let skip = service.image.is_empty()
            || matches!(service.pull_policy.as_str(), "never" | "build")
            || (pull.ignore_buildable && service.build.is_some());
        if skip {
            eprintln!(" {name}  Skipped");
            continue;
        }
        if service.pull_policy == "missing" && engine.client.image_inspect(&service.image).await.is_ok() {
            eprintln!(" {name}  Skipped - Image is already present locally");
            continue;
        }
        images.insert((service.image.clone(), service.platform.clone()), service.build.is_some());
    }
    let pulls = images.iter().map(async |((image, platform), buildable)| {
        match engine.pull(image, platform, maker.as_ref()).await {
            Err(error) if pull.ignore_pull_failures || *buildable => {
                eprintln!("warning: {error}");
                Ok(())
            }
            other => other,
        }
    });
    futures_util::future::try_join_all(pulls).await?;
    Ok(Exit::Success)
}

/// Upload the images of services
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Push what can be pushed
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Do not show the progress
    #[arg(short, long)]
    quiet: bool,
    /// Services
    services: Vec<String>,
}

pub(crate) async fn run_push(session: &Session, args: &ProjectArgs, push: Push) -> Result<Exit> {
    let (_, mut project) = args.load(&push.services, Reading::FULL)?;
    if !push.include_deps {
        project.select(&push.services, berth_compose::model::Dependencies::Ignore)?;
    }
    let client = session.client().await?;
    let mut images = BTreeSet::new();
    for (name, service) in &project.services {
        if service.build.is_none() || service.image.is_empty() {
            eprintln!(" {name}  Skipped");
            continue;
        }
        images.insert(service.image.clone());
        images.extend(service.build.iter().flat_map(|build| build.tags.0.iter().cloned()));
    }
    for image in images {
        match push_one(args, &client, &image, push.quiet).await {
            Err(error) if push.ignore_push_failures => eprintln!("warning: {error:#}"),
            other => other?,
        }
    }
    Ok(Exit::Success)
}

async fn push_one(args: &ProjectArgs, client: &Client, image: &str, quiet: bool) -> Result<()> {
    if args.dry_run {
        args.would(&format!("Image {image}  Pushed"));
        return Ok(());
    }
    let (name, tag) = pull::split(image);
    let auth = credentials::for_image(image)?;
    let stream = client.image_push(name, tag, &berth_api::options::Push::default(), auth.as_ref()).await?;
    let shown = progress::show(stream, if quiet { Show::Quiet } else { Show::All }).await;
    shown.map(drop).map_err(|error| anyhow!("pushing {image}: {error:#}"))
}
