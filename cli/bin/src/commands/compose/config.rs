//! `berth compose config`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_compose::load::Tree;
use berth_compose::model::{Format, Project, render_tree};
use clap::Args;

use super::project::{ProjectArgs, Reading};
use crate::exit::Exit;
use crate::output::list::table;
use crate::session::Session;

/// Check the Compose file and show it with all that it means
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// yaml or json
    #[arg(long)]
    format: Option<String>,
    /// Name images by their digests
    #[arg(long)]
    resolve_image_digests: bool,
    /// Print an override file with the images' digests
    #[arg(long)]
    lock_image_digests: bool,
    /// Only check
    #[arg(short, long)]
    quiet: bool,
    /// Leave variables as they are
    #[arg(long)]
    no_interpolate: bool,
    /// Leave unsaid what is unsaid
    #[arg(long)]
    no_normalize: bool,
    /// Leave paths as they are
    #[arg(long)]
    no_path_resolution: bool,
    /// Do not check that services, networks and volumes fit together
    #[arg(long)]
    no_consistency: bool,
    /// Leave files of variables as they are
    #[arg(long)]
    no_env_resolution: bool,
    /// Print the services' names
    #[arg(long)]
    services: bool,
    /// Print the volumes' names
    #[arg(long)]
    volumes: bool,
    /// Print the networks' names
    #[arg(long)]
    networks: bool,
    /// Print the models
    #[arg(long)]
    models: bool,
    /// Print the profiles
    #[arg(long)]
    profiles: bool,
    /// Print the images
    #[arg(long)]
    images: bool,
    /// Print the hash of the services' configuration (`*` for all)
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// Print the variables and their defaults
    #[arg(long)]
    variables: bool,
    /// Print the environment used for variables
    #[arg(long)]
    environment: bool,
    /// File to write to
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Services
    names: Vec<String>,
}

impl Config {
    fn reading(&self, project: &ProjectArgs) -> Reading {
        Reading {
            interpolate: !self.no_interpolate && !self.variables,
            normalize: !self.no_normalize && !project.compatibility,
            resolve_paths: !self.no_path_resolution,
            consistency: !self.no_consistency,
        }
    }
}

pub(crate) async fn run(session: &Session, args: &ProjectArgs, config: Config) -> Result<Exit> {
    let reading = config.reading(args);
    if config.variables {
        return variables(&args.tree(reading)?);
    }
    let list = config.services || config.volumes || config.networks || config.models || config.profiles;
    if list || config.images || config.hash.is_some() || config.environment {
        let (_, mut project) = args.load(&config.names, reading)?;
        project.resolve_labels(true)?;
        return names(&config, project);
    }
    let text = document(session, args, &config, reading).await?;
    match &config.output {
        _ if config.quiet => {}
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?
        }
        None => print!("{text}"),
    }
    Ok(Exit::Success)
}

/// The whole file with all that it means.
async fn document(
    session: &Session,
    args: &ProjectArgs,
    config: &Config,
    reading: Reading,
) -> Result<String> {
    let format = match config.format.as_deref() {
        None | Some("" | "yaml") => Format::Yaml,
        Some("json") => Format::Json,
        Some(other) => bail!("unsupported format {other:?}; it is yaml or json"),
    };
    if config.no_interpolate {
        return Ok(render_tree(&args.tree(reading)?.root, format));
    }
    let (tree, mut project) = args.load(&config.names, reading)?;
    project.resolve_labels(true)?;
    if config.resolve_image_digests || config.lock_image_digests {
        pin(session, &mut project).await?;
    }
    if !config.no_env_resolution {
        project.resolve_environment()?;
    }
    if !config.no_consistency {
        super::project::unique_names(&project)?;
    }
    // A dollar in the result must survive being read again.
    let text = if config.lock_image_digests {
        images_only(&tree, &project, format)
    } else {
        project.render(&tree, format)
    };
    Ok(text.replace('$', "$$"))
}

/// Nothing but the services' images.
fn images_only(tree: &Tree, project: &Project, format: Format) -> String {
    let mut only = project.clone();
    only.name.clear();
    only.networks.clear();
    only.volumes.clear();
    only.secrets.clear();
    only.configs.clear();
    for service in only.services.values_mut() {
        let image = std::mem::take(&mut service.image);
        *service = berth_compose::model::Service { image, ..Default::default() };
    }
    let mut tree = tree.clone();
    tree.root = Default::default();
    only.render(&tree, format)
}

/// Names every image by the digest its registry has for it.
async fn pin(session: &Session, project: &mut Project) -> Result<()> {
    let client = session.client().await?;
    for service in project.services.values_mut().filter(|service| !service.image.is_empty()) {
        let image = berth_oci::Reference::parse(&service.image)
            .with_context(|| format!("cannot resolve the digest of {:?}", service.image))?
            .to_string();
        if image.contains('@') {
            service.image = image;
            continue;
        }
        let auth = crate::credentials::for_image(&image)?;
        let found = client.distribution_inspect(&image, auth.as_ref()).await?;
        service.image = format!("{image}@{}", found.descriptor.digest);
    }
    Ok(())
}

fn names(config: &Config, mut project: Project) -> Result<Exit> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(hash) = &config.hash {
        project.apply_platforms(true)?;
        let mut wanted: Vec<&str> = if hash == "*" {
            project.services.keys().map(String::as_str).collect()
        } else {
            hash.split(',').collect()
        };
        wanted.sort_unstable();
        for name in wanted {
            lines.push(format!("{name} {}", project.service(name)?.hash()));
        }
    } else if config.services {
        lines.extend(project.services.keys().cloned());
    } else if config.volumes {
        lines.extend(project.volumes.keys().cloned());
    } else if config.networks {
        lines.extend(project.networks.keys().cloned());
    } else if config.models {
        lines.extend(project.models.values().map(|model| model.model.clone()));
    } else if config.profiles {
        let services = project.services.values().chain(project.disabled.values());
        lines.extend(services.flat_map(|service| service.profiles.iter().cloned()));
        lines.sort();
        lines.dedup();
    } else if config.images {
        let services = project.services.iter();
        lines.extend(services.map(|(name, service)| service.image_name(&project.name, name)));
    } else {
        lines.extend(project.environment.iter().map(|(name, value)| format!("{name}={value}")));
    }
    for line in lines {
        println!("{line}");
    }
    Ok(Exit::Success)
}

fn variables(tree: &Tree) -> Result<Exit> {
    let heading = ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"].map(str::to_owned).to_vec();
    let rows = tree.variables().into_iter().map(|(name, variable)| {
        vec![name, variable.required.to_string(), variable.default, variable.presence]
    });
    print!("{}", table(heading, rows.collect()));
    Ok(Exit::Success)
}
