//! Networks and volumes.

use std::collections::BTreeMap;

use berth_client::api::{
    network::{Ipam, IpamConfig, NetworkCreateRequest, NetworkDisconnectRequest},
    volume::VolumeCreateRequest,
};

use super::{Engine, Status};
use crate::{
    Result,
    error::Context,
    labels::{self, COMPOSE_VERSION, merged, of_project},
    model::{Network, Project, Volume},
    plan::{ResourceAction, ResourceChange},
};

fn own_labels(project: &Project, kind: &str, key: &str, hash: String) -> [(String, String); 4] {
    [
        (kind.to_owned(), key.to_owned()),
        (labels::PROJECT.to_owned(), project.name.clone()),
        (labels::VERSION.to_owned(), COMPOSE_VERSION.to_owned()),
        (labels::CONFIG_HASH.to_owned(), hash),
    ]
}

fn network_request(project: &Project, key: &str, network: &Network) -> NetworkCreateRequest {
    let pools = network.ipam.config.iter().map(|pool| IpamConfig {
        subnet: pool.subnet.clone(),
        ip_range: pool.ip_range.clone(),
        gateway: pool.gateway.clone(),
        aux_addresses: Some(pool.aux_addresses.0.clone()).filter(|addresses| !addresses.is_empty()),
    });
    let pools: Vec<IpamConfig> = pools.collect();
    let ipam = Ipam { driver: network.ipam.driver.clone(), config: Some(pools.clone()), options: None };
    NetworkCreateRequest {
        name: network.name.clone(),
        check_duplicate: true,
        driver: network.driver.clone(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: (!pools.is_empty() || !network.ipam.driver.is_empty()).then_some(ipam),
        internal: network.internal,
        attachable: network.attachable,
        options: network.driver_opts.0.clone(),
        labels: merged(&network.labels, own_labels(project, labels::NETWORK, key, network.hash())),
        ..NetworkCreateRequest::default()
    }
}

fn volume_request(project: &Project, key: &str, volume: &Volume) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: volume.name.clone(),
        driver: volume.driver.clone(),
        driver_opts: Some(volume.driver_opts.0.clone()).filter(|options| !options.is_empty()),
        labels: Some(merged(&volume.labels, own_labels(project, labels::VOLUME, key, volume.hash()))),
    }
}

impl Engine {
    pub(super) async fn apply_network(&self, project: &Project, change: &ResourceChange) -> Result<()> {
        let Some(network) = project.networks.get(&change.key) else { return Ok(()) };
        match &change.action {
            ResourceAction::Keep => return Ok(()),
            ResourceAction::KeepDiverged(why) => {
                self.progress.warn(why);
                return Ok(());
            }
            ResourceAction::Recreate(_) => self.take_network_away(&change.name).await?,
            ResourceAction::Create => {}
        }
        let _turn = self.turn().await;
        let what = format!("Network {}", network.name);
        self.working(&what, "Creating");
        let created = self.client.network_create(&network_request(project, &change.key, network)).await;
        let created = created.during(|| format!("failed to create network {}", network.name));
        let created = self.failed(&what, created)?;
        self.done(&what, "Created");
        if !created.warning.is_empty() {
            self.progress.warn(&created.warning);
        }
        Ok(())
    }

    /// Disconnects whoever is in a network, and removes it.
    async fn take_network_away(&self, name: &str) -> Result<()> {
        let network =
            self.client.network_inspect(name, false).await.during(|| format!("looking at network {name}"))?;
        for id in network.containers.unwrap_or_default().into_keys() {
            let request = NetworkDisconnectRequest { container: id, force: true };
            self.client
                .network_disconnect(name, &request)
                .await
                .during(|| format!("emptying network {name}"))?;
        }
        self.client.network_remove(name).await.during(|| format!("failed to remove network {name}"))?;
        self.done(&format!("Network {name}"), "Removed");
        Ok(())
    }

    pub(super) async fn apply_volume(&self, project: &Project, change: &ResourceChange) -> Result<()> {
        let Some(volume) = project.volumes.get(&change.key) else { return Ok(()) };
        match &change.action {
            ResourceAction::Keep => return Ok(()),
            ResourceAction::KeepDiverged(why) => {
                self.progress.warn(why);
                return Ok(());
            }
            ResourceAction::Recreate(_) => {
                let removed = self.client.volume_remove(&volume.name, true).await;
                removed.during(|| format!("failed to remove volume {}", volume.name))?;
            }
            ResourceAction::Create => {}
        }
        let _turn = self.turn().await;
        let what = format!("Volume {}", volume.name);
        self.working(&what, "Creating");
        let created = self.client.volume_create(&volume_request(project, &change.key, volume)).await;
        let created = created.during(|| format!("failed to create volume {}", volume.name));
        self.failed(&what, created)?;
        self.done(&what, "Created");
        Ok(())
    }

    /// Removes the project's network, unless others use it.
    pub(super) async fn remove_network(&self, project: &str, key: &str, name: &str) -> Result<bool> {
        let mut filters = of_project(project);
        filters.add("label", format!("{}={key}", labels::NETWORK));
        let found =
            self.client.network_list(&filters).await.during(|| "failed to list networks".to_owned())?;
        let what = format!("Network {name}");
        let mut any = false;
        for network in found.into_iter().filter(|network| network.name == name) {
            any = true;
            self.working(&what, "Removing");
            match self.act(self.client.network_remove(&network.id)).await {
                Ok(()) => self.done(&what, "Removed"),
                Err(error) if error.is_not_found() => self.done(&what, "Removed"),
                // Engines say 403 of a network that containers use.
                Err(error) if error.is_conflict() || error.status().is_some_and(|status| status == 403) => {
                    self.progress.tell(&what, Status::Warning, "Resource is still in use");
                }
                Err(error) => {
                    let removed = Err(error).during(|| format!("failed to remove network {name}"));
                    return self.failed(&what, removed);
                }
            }
        }
        Ok(any)
    }

    pub(super) async fn remove_volume(&self, name: &str) -> Result<bool> {
        let what = format!("Volume {name}");
        if self.client.volume_inspect(name).await.is_err_and(|error| error.is_not_found()) {
            return Ok(false);
        }
        self.working(&what, "Removing");
        match self.act(self.client.volume_remove(name, true)).await {
            Ok(()) => self.done(&what, "Removed"),
            Err(error) if error.is_not_found() => self.done(&what, "Removed"),
            Err(error) if error.is_conflict() => {
                self.progress.tell(&what, Status::Warning, "Resource is still in use");
            }
            Err(error) => {
                let removed = Err(error).during(|| format!("failed to remove volume {name}"));
                return self.failed(&what, removed);
            }
        }
        Ok(true)
    }
}

/// The labels every container of a service has.
pub(super) fn service_labels(project: &Project, name: &str, image: Option<&str>) -> BTreeMap<String, String> {
    let paths = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
    };
    let mut labels = BTreeMap::from([
        (labels::PROJECT.to_owned(), project.name.clone()),
        (labels::SERVICE.to_owned(), name.to_owned()),
        (labels::VERSION.to_owned(), COMPOSE_VERSION.to_owned()),
        (labels::WORKING_DIR.to_owned(), project.working_dir.to_string_lossy().into_owned()),
        (labels::CONFIG_FILES.to_owned(), paths(&project.files)),
        (labels::ONEOFF.to_owned(), "False".to_owned()),
    ]);
    if !project.env_files.is_empty() {
        labels.insert(labels::ENVIRONMENT_FILE.to_owned(), paths(&project.env_files));
    }
    if let Some(image) = image {
        labels.insert(labels::IMAGE.to_owned(), image.to_owned());
    }
    labels
}
