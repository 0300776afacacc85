//! What an engine has of a project.

use std::collections::{BTreeMap, BTreeSet};

use berth_client::{
    Client,
    api::{
        ApiVersion, container::ContainerSummary, image::ImageInspect, network::Network,
        options::ListContainers, volume::Volume,
    },
};
use futures_util::future::try_join_all;

use crate::{
    Result,
    error::Context,
    files,
    labels::{self, Labelled, OneOff, of_project},
    model::{self, Always, Dependency, Pairs, Project, Service},
};

/// The containers of a project, sorted by name.
///
/// # Errors
/// If the engine cannot list them.
pub async fn containers(
    client: &Client,
    project: &str,
    one_off: OneOff,
    all: bool,
) -> Result<Vec<ContainerSummary>> {
    let mut filters = of_project(project);
    filters.add("label", labels::CONFIG_HASH);
    if one_off == OneOff::Exclude {
        filters.add("label", format!("{}=False", labels::ONEOFF));
    }
    let options = ListContainers { all, filters, ..ListContainers::default() };
    let mut containers = client
        .container_list(&options)
        .await
        .during(|| format!("listing the containers of project {project:?}"))?;
    containers.sort_by(|a, b| {
        (a.service(), a.number(), a.short_name()).cmp(&(b.service(), b.number(), b.short_name()))
    });
    Ok(containers)
}

/// What an engine has that a project could use or already uses.
#[derive(Debug, Default)]
pub struct Observed {
    /// Containers, those of `run` included.
    pub containers: Vec<ContainerSummary>,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Images by the name the services give them.
    pub images: BTreeMap<String, ImageInspect>,
    /// The version spoken.
    pub api: Option<ApiVersion>,
    /// Whether the engine makes secrets in memory.
    pub(crate) secrets: bool,
}

/// Looks at all of it, at the same time.
pub(crate) async fn observe(client: &Client, project: &Project) -> Result<Observed> {
    let networks =
        async { client.network_list(&Default::default()).await.during(|| "listing networks".to_owned()) };
    let volumes =
        async { client.volume_list(&Default::default()).await.during(|| "listing volumes".to_owned()) };
    let api = async { client.version_spoken().await.during(|| "asking for the engine's version".to_owned()) };
    let (containers, networks, volumes, images, api, secrets) = tokio::try_join!(
        containers(client, &project.name, OneOff::Include, true),
        networks,
        volumes,
        images(client, project),
        api,
        files::are_in_memory(client)
    )?;
    Ok(Observed {
        containers,
        networks: networks.into_iter().map(|network| (network.name.clone(), network)).collect(),
        volumes: volumes.volumes.into_iter().map(|volume| (volume.name.clone(), volume)).collect(),
        images,
        api: Some(api),
        secrets,
    })
}

/// The images of a project's services that are there, for the right platform.
pub(crate) async fn images(client: &Client, project: &Project) -> Result<BTreeMap<String, ImageInspect>> {
    let of_mounts = project.services.values().flat_map(|service| &service.volumes);
    let of_mounts = of_mounts.filter(|mount| mount.r#type == "image").map(|mount| mount.source.clone());
    let of_services = project.services.iter().map(|(name, service)| service.image_name(&project.name, name));
    let names: BTreeSet<String> = of_services.chain(of_mounts).collect();
    let each = names.into_iter().map(async |name| match client.image_inspect(&name).await {
        Ok(image) => Ok(Some((name, image))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error).during(|| format!("unable to get image '{name}'")),
    });
    let mut images: BTreeMap<_, _> = try_join_all(each).await?.into_iter().flatten().collect();
    for (name, service) in &project.services {
        let image = service.image_name(&project.name, name);
        let wrong = images.get(&image).is_some_and(|found| !fits(&service.platform, found));
        if wrong {
            images.remove(&image);
        }
    }
    Ok(images)
}

/// Whether an image is for a platform, `os/architecture[/variant]`.
fn fits(platform: &str, image: &ImageInspect) -> bool {
    let mut parts = platform.split('/');
    let same =
        |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted.is_empty() || wanted == found);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(os), architecture, variant) if !platform.is_empty() => {
            same(Some(os), &image.os)
                && same(architecture, &image.architecture)
                && same(variant, &image.variant)
        }
        _ => true,
    }
}

/// A project as far as its containers, networks and volumes tell, for when there is no file.
///
/// # Errors
/// If the engine cannot list them.
pub async fn project_of(client: &Client, name: &str) -> Result<Project> {
    let mut project = Project::empty(name);
    for container in containers(client, name, OneOff::Exclude, true).await? {
        let service =
            project.services.entry(container.service().to_owned()).or_insert_with(|| service_of(&container));
        service.scale = Some(service.scale.unwrap_or(0) + 1);
    }
    let filters = of_project(name);
    let networks = client.network_list(&filters).await.during(|| "listing networks".to_owned())?;
    let volumes = client.volume_list(&filters).await.during(|| "listing volumes".to_owned())?;
    for network in networks {
        let key = network.labels.get(labels::NETWORK).cloned().unwrap_or_default();
        let known = model::Network { name: network.name, driver: network.driver, ..Default::default() };
        project.networks.insert(key, known);
    }
    for volume in volumes.volumes {
        let labels = volume.labels.unwrap_or_default();
        let key = labels.get(labels::VOLUME).cloned().unwrap_or_default();
        let known = model::Volume {
            name: volume.name,
            driver: volume.driver,
            labels: Pairs(labels),
            ..Default::default()
        };
        project.volumes.insert(key, known);
    }
    Ok(project)
}

fn service_of(container: &ContainerSummary) -> Service {
    let mut service = Service { image: container.image.clone(), ..Service::default() };
    for line in container.label(labels::DEPENDENCIES).split(',').filter(|line| !line.is_empty()) {
        let mut parts = line.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let condition = parts.next().unwrap_or("service_started").to_owned();
        let restart = parts.next() != Some("false");
        service.depends_on.insert(name, Dependency { condition, restart, required: Always(false) });
    }
    service
}
