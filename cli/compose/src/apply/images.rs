//! Images: which are pulled, which are built.

use std::collections::{BTreeMap, BTreeSet};

use berth_client::api::{Filters, image::ImageInspect};
use futures_util::future::{BoxFuture, try_join_all};

use super::{Engine, Status};
use crate::{
    Result,
    error::{Context as _, Error},
    labels::{self, COMPOSE_VERSION},
    model::{Build, Dependencies, Project, Service},
    observe, order,
};

/// When images are pulled, over what the services say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    Always,
    /// When they are not there.
    Missing,
    /// Never.
    Never,
    /// Built instead.
    Build,
}

impl PullPolicy {
    /// The policy by its name in files and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Never => "never",
            Self::Build => "build",
        }
    }
}

/// Who pulls and builds: the command line has the credentials, packs contexts and shows how it goes.
pub trait Images: Send + Sync {
    /// Pulls an image.
    fn pull<'a>(&'a self, image: &'a str, platform: &'a str) -> BoxFuture<'a, Result<(), String>>;
    /// Builds an image.
    fn build<'a>(&'a self, build: &'a BuildOptions) -> BoxFuture<'a, Result<(), String>>;
}

/// A build, ready to be done.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Service.
    pub service: String,
    /// The service's own part.
    pub build: Build,
    /// Names of the image.
    pub tags: Vec<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Arguments.
    pub args: BTreeMap<String, Option<String>>,
    /// Platform.
    pub platform: String,
    /// Secrets by id: the content.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Images of the services that are contexts of this build.
    pub service_images: BTreeMap<String, String>,
}

/// What is done about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageStep {
    /// It is pulled.
    Pull {
        /// Image.
        image: String,
        /// Why.
        why: &'static str,
    },
    /// It is built.
    Build {
        /// Image.
        image: String,
        /// Why.
        why: &'static str,
    },
}

impl std::fmt::Display for ImageStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pull { image, why } => write!(f, "pull     image {image}\n             {why}"),
            Self::Build { image, why } => write!(f, "build    image {image}\n             {why}"),
        }
    }
}

impl Engine {
    /// What `up` would do about the images of services. `build` forces, `no_build` forbids builds.
    ///
    /// # Errors
    /// If the engine cannot be asked, or an image that must not be made is missing.
    pub async fn image_steps(
        &self,
        project: &Project,
        build: bool,
        no_build: bool,
    ) -> Result<BTreeMap<String, ImageStep>> {
        let images = observe::images(&self.client, project).await?;
        let mut steps = BTreeMap::new();
        for (name, service) in &project.services {
            if let Some(step) = step(project, name, service, &images, build, no_build)? {
                steps.insert(name.clone(), step);
            }
        }
        Ok(steps)
    }

    /// Does the steps: pulls all at the same time, builds each after those it takes a context of.
    ///
    /// # Errors
    /// With the first that fails.
    pub async fn prepare_images(
        &self,
        project: &Project,
        steps: &BTreeMap<String, ImageStep>,
        images: &dyn Images,
        args: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let pulls: BTreeMap<&str, &str> = steps
            .iter()
            .filter_map(|(name, step)| match step {
                ImageStep::Pull { image, .. } => Some((
                    image.as_str(),
                    project.services.get(name).map_or("", |service| service.platform.as_str()),
                )),
                ImageStep::Build { .. } => None,
            })
            .collect();
        let pulls = pulls.into_iter().map(async |(image, platform)| {
            let _turn = self.turn().await;
            self.pull(image, platform, images).await
        });
        try_join_all(pulls).await?;
        let of_mounts = project.services.values().flat_map(|service| &service.volumes);
        for image in of_mounts
            .filter(|mount| mount.r#type == "image")
            .map(|mount| mount.source.as_str())
            .collect::<BTreeSet<_>>()
        {
            if self.client.image_inspect(image).await.is_err_and(|error| error.is_not_found()) {
                self.pull(image, "", images).await?;
            }
        }
        let builds: Vec<String> = steps
            .iter()
            .filter(|(_, step)| matches!(step, ImageStep::Build { .. }))
            .map(|(name, _)| name.clone())
            .collect();
        self.build(project, &builds, images, args).await
    }

    /// Removes the project's images that have lost their names to newer ones and that nobody uses.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn drop_nameless_images(&self, project: &Project) -> Result<()> {
        if self.dry {
            return Ok(());
        }
        let mut filters = Filters::new();
        filters.add("dangling", "true");
        filters.add("label", format!("{}={}", labels::PROJECT, project.name));
        self.client.image_prune(&filters).await.during(|| "removing images without a name".to_owned())?;
        Ok(())
    }

    /// Pulls one image.
    ///
    /// # Errors
    /// If it cannot be pulled.
    pub async fn pull(&self, image: &str, platform: &str, images: &dyn Images) -> Result<()> {
        let what = format!("Image {image}");
        self.working(&what, "Pulling");
        let pulled = if self.dry { Ok(()) } else { images.pull(image, platform).await };
        match pulled {
            Ok(()) => {
                self.done(&what, "Pulled");
                Ok(())
            }
            Err(error) => {
                self.progress.tell(&what, Status::Error, "Error");
                Err(Error::Image(format!("pulling {image}: {error}")))
            }
        }
    }

    /// Builds the images of services, and of those whose images they take as a context.
    ///
    /// # Errors
    /// With the first that fails.
    pub async fn build(
        &self,
        project: &Project,
        services: &[String],
        images: &dyn Images,
        args: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        if services.is_empty() {
            return Ok(());
        }
        let mut project = project.clone();
        let mut wanted: BTreeSet<String> = services.iter().cloned().collect();
        loop {
            let more: BTreeSet<String> = wanted.iter().flat_map(|name| contexts_of(&project, name)).collect();
            let before = wanted.len();
            wanted.extend(more);
            if wanted.len() == before {
                break;
            }
        }
        let names: Vec<String> = wanted.iter().cloned().collect();
        project.enable_services(&names);
        project.select(&names, Dependencies::Ignore)?;
        let edges = names.iter().map(|name| (name.clone(), contexts_of(&project, name))).collect();
        order::walk(edges, |name| {
            let project = &project;
            async move {
                let Some(options) = build_options(project, &name, args)? else { return Ok(()) };
                let _turn = self.turn().await;
                let what = format!("Image {}", options.tags[0]);
                self.working(&what, "Building");
                let built = if self.dry { Ok(()) } else { images.build(&options).await };
                match built {
                    Ok(()) => {
                        self.done(&what, "Built");
                        Ok(())
                    }
                    Err(error) => {
                        self.progress.tell(&what, Status::Error, "Error");
                        Err(Error::Image(format!("building service {name}: {error}")))
                    }
                }
            }
        })
        .await
    }
}

/// Services whose images a service's build takes as contexts.
fn contexts_of(project: &Project, name: &str) -> BTreeSet<String> {
    let service = project.services.get(name).or_else(|| project.disabled.get(name));
    let build = service.and_then(|service| service.build.as_ref());
    let contexts = build.into_iter().flat_map(|build| build.additional_contexts.values());
    contexts.filter_map(|context| context.strip_prefix("service:")).map(str::to_owned).collect()
}

fn step(
    project: &Project,
    name: &str,
    service: &Service,
    images: &BTreeMap<String, ImageInspect>,
    build: bool,
    no_build: bool,
) -> Result<Option<ImageStep>> {
    if service.provider.is_some() {
        return Ok(None);
    }
    let image = service.image_name(&project.name, name);
    let there = images.contains_key(&image);
    let buildable = service.build.is_some();
    let pull = |why| Ok(Some(ImageStep::Pull { image: image.clone(), why }));
    let make = |why| Ok(Some(ImageStep::Build { image: image.clone(), why }));
    match service.pull_policy.as_str() {
        "build" if !no_build && buildable => return make("pull_policy is build"),
        "always" if !buildable => return pull("pull_policy is always"),
        policy if !buildable && is_aging(policy) && is_stale(policy, images.get(&image)) => {
            return pull("it is older than pull_policy allows");
        }
        _ => {}
    }
    if buildable && build && !no_build {
        return make("asked for");
    }
    if there {
        return Ok(None);
    }
    match (buildable && !no_build, service.pull_policy.as_str()) {
        (true, _) => make("it is not there"),
        (false, "never") => {
            let message = format!("image {image} is not there, and pull_policy is never");
            Err(Error::service(name, message))
        }
        (false, _) if service.image.is_empty() => {
            Err(Error::service(name, format!("image {image} is not there, and it must not be built")))
        }
        (false, _) => pull("it is not there"),
    }
}

/// Whether a policy lets images grow old.
fn is_aging(policy: &str) -> bool {
    matches!(policy, "daily" | "weekly" | "refresh") || policy.starts_with("every_")
}

/// Whether an image got its name too long ago.
fn is_stale(policy: &str, image: Option<&ImageInspect>) -> bool {
    let Some(image) = image else { return true };
    let most = match policy {
        "daily" => 86_400,
        "weekly" => 7 * 86_400,
        every => {
            let time = every.strip_prefix("every_").and_then(|time| crate::model::Duration::parse(time).ok());
            time.map_or(0, crate::model::Duration::seconds)
        }
    };
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let tagged = image.metadata.last_tag_time.0.as_second();
    i64::try_from(now).unwrap_or(i64::MAX) - tagged > most
}

/// The labels of a service's image: its own, and whose it is.
#[must_use]
pub fn image_labels(project: &Project, name: &str, build: &Build) -> BTreeMap<String, String> {
    let mut labels = build.labels.0.clone();
    labels.insert(labels::VERSION.to_owned(), COMPOSE_VERSION.to_owned());
    labels.insert(labels::PROJECT.to_owned(), project.name.clone());
    labels.insert(labels::SERVICE.to_owned(), name.to_owned());
    labels
}

fn build_options(
    project: &Project,
    name: &str,
    args: &BTreeMap<String, Option<String>>,
) -> Result<Option<BuildOptions>> {
    let service = project.service(name)?;
    let Some(build) = service.build.clone() else { return Ok(None) };
    let mut all: BTreeMap<String, Option<String>> = build.args.0.clone();
    all.extend(args.clone());
    for (key, value) in &mut all {
        if value.is_none() {
            *value = project.environment.get(key).cloned();
        }
    }
    let labels = image_labels(project, name, &build);
    let mut secrets = BTreeMap::new();
    for reference in &build.secrets {
        let Some(object) = project.secrets.get(&reference.source) else { continue };
        let id = if reference.target.is_empty() { &reference.source } else { &reference.target };
        let content = if object.environment.is_empty() {
            std::fs::read(&object.file)
                .map_err(|source| Error::Read { path: object.file.clone().into(), source })?
        } else {
            project.environment.get(&object.environment).cloned().unwrap_or_default().into_bytes()
        };
        secrets.insert(id.clone(), content);
    }
    let service_images = contexts_of(project, name).into_iter().filter_map(|other| {
        let service = project.services.get(&other).or_else(|| project.disabled.get(&other))?;
        let image = service.image_name(&project.name, &other);
        Some((other, image))
    });
    let service_images = service_images.collect();
    let mut tags = vec![service.image_name(&project.name, name)];
    tags.extend(build.tags.0.iter().cloned());
    let platform = build.platforms.0.first().unwrap_or(&service.platform).clone();
    Ok(Some(BuildOptions {
        service: name.to_owned(),
        build,
        tags,
        labels,
        args: all,
        platform,
        secrets,
        service_images,
    }))
}
