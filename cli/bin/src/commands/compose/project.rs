//! The flags that choose a project, and loading it.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use berth_client::Client;
use berth_compose::load::{Options, Tree, load};
use berth_compose::model::{Dependencies, Project};
use berth_compose::{Engine, observe};
use clap::Args;

use super::progress;
use crate::session::Session;

/// Which project.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProjectArgs {
    /// Compose file; may be given several times, each on top of the ones before
    #[arg(short, long = "file", value_name = "FILE", global = false)]
    pub(super) files: Vec<PathBuf>,
    /// Name of the project
    #[arg(short, long, value_name = "NAME")]
    pub(super) project_name: Option<String>,
    /// Profile to enable
    #[arg(long = "profile", value_name = "PROFILE")]
    pub(super) profiles: Vec<String>,
    /// File of variables instead of .env
    #[arg(
        long = "env-file",
        value_name = "FILE",
        env = "COMPOSE_ENV_FILES",
        value_delimiter = ',',
        hide_env = true
    )]
    pub(super) env_files: Vec<PathBuf>,
    /// Directory that paths are relative to (default: that of the first file)
    #[arg(long, value_name = "DIR")]
    pub(super) project_directory: Option<PathBuf>,
    #[arg(long, hide = true, conflicts_with = "project_directory")]
    pub(super) workdir: Option<PathBuf>,
    /// How progress is shown: auto, tty, plain, json, quiet
    #[arg(long, value_name = "KIND", env = "COMPOSE_PROGRESS", hide_env = true)]
    pub(super) progress: Option<String>,
    /// When to use colours: never, always, auto
    #[arg(long, value_name = "WHEN", env = "COMPOSE_ANSI", hide_env = true)]
    pub(super) ansi: Option<String>,
    /// How many things are done at the same time; -1 is no limit
    #[arg(
        long,
        value_name = "N",
        env = "COMPOSE_PARALLEL_LIMIT",
        hide_env = true,
        allow_negative_numbers = true
    )]
    pub(super) parallel: Option<i64>,
    /// Names of containers as Compose 1 made them
    #[arg(long)]
    pub(super) compatibility: bool,
    /// Also networks, volumes, secrets and configs that no service uses
    #[arg(long)]
    pub(super) all_resources: bool,
    /// Show what would be done
    #[arg(long, global = true)]
    pub(super) dry_run: bool,
}

/// How a project is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) interpolate: bool,
    pub(super) normalize: bool,
    pub(super) resolve_paths: bool,
    pub(super) consistency: bool,
}

impl Reading {
    pub(super) const FULL: Self =
        Self { interpolate: true, normalize: true, resolve_paths: true, consistency: true };
}

impl ProjectArgs {
    fn options(&self, reading: Reading) -> Result<Options> {
        let current = std::env::current_dir().context("cannot tell the current directory")?;
        let environment = std::env::vars_os();
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let mut options =
            Options::new(current, environment.map(|(name, value)| (text(name), text(value))).collect());
        options.files.clone_from(&self.files);
        options.project_name.clone_from(&self.project_name);
        options.project_directory = self.project_directory.clone().or_else(|| self.workdir.clone());
        options.env_files =
            self.env_files.iter().filter(|file| !file.as_os_str().is_empty()).cloned().collect();
        options.profiles.clone_from(&self.profiles);
        options.interpolate = reading.interpolate;
        options.normalize = reading.normalize;
        options.resolve_paths = reading.resolve_paths;
        if self.files.iter().any(|file| file == Path::new("-")) {
            if std::io::stdin().is_terminal() {
                eprintln!("reading the Compose file from standard input; end it with Ctrl-D");
            }
            std::io::stdin().read_to_string(&mut options.stdin).context("cannot read standard input")?;
        }
        Ok(options)
    }

    /// Loads the files, and tells what the user should know.
    pub(super) fn tree(&self, reading: Reading) -> Result<Tree> {
        let tree = load(&self.options(reading)?)?;
        for warning in tree.warnings.iter() {
            eprintln!("warning: {warning}");
        }
        Ok(tree)
    }

    /// The project with these services (none is all) and what they depend on.
    pub(super) fn load(&self, services: &[String], reading: Reading) -> Result<(Tree, Project)> {
        let tree = self.tree(reading)?;
        let mut project = Project::from_tree(&tree, reading.consistency)?;
        project.enable_services(services);
        project.select(services, Dependencies::Include)?;
        if !self.all_resources {
            project.drop_unused();
        }
        Ok((tree, project))
    }
}

impl ProjectArgs {
    /// The project ready to be brought up: environments and labels complete.
    pub(super) fn ready(&self, services: &[String]) -> Result<Project> {
        let (_, mut project) = self.load(services, Reading::FULL)?;
        project.resolve_labels(false)?;
        project.resolve_environment()?;
        project.apply_platforms(true)?;
        unique_names(&project)?;
        let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
        project.env_files = self.env_files.iter().map(absolute).collect();
        Ok(project)
    }

    /// The project of the files; of what the engine has if only a name is given.
    pub(super) async fn found(&self, client: &Client, services: &[String]) -> Result<Project> {
        let named = self.project_name.clone().or_else(|| std::env::var("COMPOSE_PROJECT_NAME").ok());
        match named.filter(|name| !name.is_empty() && self.files.is_empty()) {
            None => Ok(self.load(services, Reading::FULL)?.1),
            Some(name) => match self.load(services, Reading::FULL) {
                Ok((_, project)) => Ok(project),
                // Without a file its containers, networks and volumes tell what the project is.
                Err(error) if is_no_file(&error) => Ok(observe::project_of(client, &name).await?),
                Err(error) => Err(error),
            },
        }
    }

    /// The project's name.
    pub(super) fn name(&self) -> Result<String> {
        let named = self.project_name.clone().or_else(|| std::env::var("COMPOSE_PROJECT_NAME").ok());
        match named.filter(|name| !name.is_empty()) {
            Some(name) => Ok(name),
            None => Ok(self.tree(Reading::FULL)?.name),
        }
    }

    /// Tells what would be done.
    pub(super) fn would(&self, what: &str) {
        eprintln!(" {}{what}", progress::DRY_RUN);
    }

    /// The operations on the session's engine.
    pub(super) async fn engine(&self, session: &Session, quiet: bool) -> Result<Engine> {
        let screen = progress::screen(self, quiet)?;
        let mut engine = Engine::new(session.client().await?, screen).dry(self.dry_run);
        if let Some(limit) =
            self.parallel.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0)
        {
            engine = engine.with_limit(limit);
        }
        if self.compatibility {
            engine.separator = '_';
        }
        Ok(engine)
    }
}

fn is_no_file(error: &anyhow::Error) -> bool {
    use berth_compose::LoadError;
    matches!(error.downcast_ref::<LoadError>(), Some(LoadError::NoFile { .. } | LoadError::NoSuchService(_)))
}

/// Fails if two services want the same container name.
pub(super) fn unique_names(project: &Project) -> Result<()> {
    match project.shared_container_name() {
        Some((name, first, second)) => {
            anyhow::bail!("services.{second}: container name {name:?} is already in use by service {first}")
        }
        None => Ok(()),
    }
}
