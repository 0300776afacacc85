//! `docker image inspect`, `docker history`.

use std::sync::Arc;

use berth_api::container::{ContainerConfig, GraphDriver, HealthConfig};
use berth_api::image::{HistoryItem, ImageInspect, ImageMetadata, RootFs};
use berth_api::{Empty, Time};
use berth_oci::RuntimeConfig;

use super::list::{descriptor, familiar};
use crate::containers::DRIVER;
use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// An image in full, with what else its index holds if `manifests`.
    ///
    /// # Errors
    /// When there is no such image, or it is for another platform than the one given.
    pub async fn inspect_image(
        self: &Arc<Self>,
        name: &str,
        platform: &str,
        manifests: bool,
    ) -> Result<ImageInspect> {
        let (name, platform) = (name.to_owned(), platform.to_owned());
        self.blocking(move |engine| {
            let image = engine.image_for(&name, &platform)?;
            let config = engine.store.images().config_of(&image.id)?;
            let manifests = manifests.then(|| engine.manifests(&image)).transpose()?;
            Ok(ImageInspect {
                manifests,
                id: image.id.to_string(),
                repo_tags: familiar(&image.tags),
                repo_digests: familiar(&image.repo_digests),
                parent: image.parent.map(|parent| parent.to_string()).unwrap_or_default(),
                comment: config.comment.clone().unwrap_or_default(),
                created: config.created.map(Time),
                docker_version: config.docker_version.clone().unwrap_or_default(),
                author: config.author.clone().unwrap_or_default(),
                architecture: config.architecture.clone(),
                variant: config.variant.clone().unwrap_or_default(),
                os: config.os.clone(),
                os_version: config.os_version.clone().unwrap_or_default(),
                size: i64::try_from(image.size).unwrap_or(i64::MAX),
                graph_driver: GraphDriver { data: None, name: DRIVER.to_owned() },
                root_fs: RootFs {
                    kind: "layers".to_owned(),
                    layers: image.layers.iter().map(ToString::to_string).collect(),
                },
                metadata: ImageMetadata { last_tag_time: image.tagged.map(Time).unwrap_or_default() },
                descriptor: image.manifest.as_ref().map(descriptor),
                config: Some(container_config(config.config.unwrap_or_default())),
            })
        })
        .await
    }

    /// How an image came to be, the newest step first.
    ///
    /// # Errors
    /// When there is no such image, or it is for another platform than the one given.
    pub async fn image_history(self: &Arc<Self>, name: &str, platform: &str) -> Result<Vec<HistoryItem>> {
        let (name, platform) = (name.to_owned(), platform.to_owned());
        self.blocking(move |engine| {
            let image = engine.image_for(&name, &platform)?;
            let history = engine.store.images().history(&image.id)?;
            let item = |entry: berth_store::HistoryEntry| {
                let tags = familiar(&entry.tags);
                HistoryItem {
                    comment: entry.history.comment.unwrap_or_default(),
                    created: entry.history.created.map_or(0, |created| created.as_second()),
                    created_by: entry.history.created_by.unwrap_or_default(),
                    id: entry.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
                    size: i64::try_from(entry.size).unwrap_or(i64::MAX),
                    tags: (!tags.is_empty()).then_some(tags),
                }
            };
            Ok(history.into_iter().map(item).collect())
        })
        .await
    }
}

/// An image's presets in the shape of a container's configuration.
fn container_config(config: RuntimeConfig) -> ContainerConfig {
    ContainerConfig {
        user: config.user,
        exposed_ports: config.exposed_ports.into_iter().flatten().map(|(port, _)| (port, Empty)).collect(),
        env: Some(config.env).filter(|env| !env.is_empty()),
        healthcheck: config.healthcheck.map(|check| HealthConfig {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: config.volumes.map(|volumes| volumes.into_iter().map(|(path, _)| (path, Empty)).collect()),
        working_dir: config.working_dir,
        on_build: config.on_build,
        labels: config.labels.into_iter().flatten().collect(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        cmd: config.cmd,
        entrypoint: config.entrypoint,
        shell: config.shell,
        ..ContainerConfig::default()
    }
}
