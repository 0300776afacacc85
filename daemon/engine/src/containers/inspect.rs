//! Inspect: a container in full.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::Time;
use berth_api::container::{ContainerInspect, ContainerState, GraphDriver, MountPoint, NetworkSettings};
use berth_api::network::EndpointSettings;
use tokio::task::JoinHandle;

use super::machine::Phase;
use super::{Container, Definition, Status, ports};
use crate::engine::Engine;
use crate::error::Result;
use crate::networks::endpoint_settings;

/// Docker's name of the storage that Berth has, too.
pub(crate) const DRIVER: &str = "overlay2";

impl Engine {
    /// A container in full; with `size` its bytes are counted.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn inspect_container(&self, name: &str, size: bool) -> Result<ContainerInspect> {
        let container = self.containers.find(name)?;
        let sizes = if size { Some(self.weigh(&container).await??) } else { None };
        Ok(self.show(&container, sizes))
    }

    /// Finds the bytes of the writable layer, and with the image's. Of a container that does not run they are remembered.
    pub(crate) fn weigh(&self, container: &Container) -> JoinHandle<Result<(i64, i64)>> {
        let (store, id, weight) = (self.store.clone(), container.id.clone(), Arc::clone(&container.weight));
        // In this order: a start that comes between is seen by one or the other.
        let moment = weight.moment();
        let rests = container.operation.try_lock().is_ok() && !container.phase().is_alive();
        let moment = moment.filter(|_| rests);
        let image = container.definition().image_id.clone();
        tokio::task::spawn_blocking(move || {
            let own = match (weight.bytes(), moment) {
                (Some(known), Some(_)) => known,
                (_, moment) => {
                    let found = store.snapshots().size(&id)?;
                    if let Some(moment) = moment {
                        weight.remember(moment, found);
                    }
                    found
                }
            };
            // An image that was removed by force is not counted.
            let below = store.images().resolve(&image).map_or(0, |image| image.size);
            let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            Ok((number(own), number(own + below)))
        })
    }

    fn show(&self, container: &Container, sizes: Option<(i64, i64)>) -> ContainerInspect {
        let (definition, status) = (container.definition(), container.status());
        let id = &container.id;
        let (path, args) = definition.command();
        let file = |name: &str| match (status.ever_started, definition.network_donor()) {
            (false, _) => String::new(),
            (true, Some(donor)) => self.container_dir(donor).join(name).display().to_string(),
            (true, None) => self.container_dir(id).join(name).display().to_string(),
        };
        let files = ["json-file", "local"].contains(&definition.host.log_config.driver.as_str());
        let log = files && status.ever_started;
        let sandbox = status.phase.is_alive();
        ContainerInspect {
            id: id.clone(),
            created: Time(definition.created),
            path,
            args,
            state: state(&status),
            image: definition.image_id.clone(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: if log { self.log_path(id).display().to_string() } else { String::new() },
            name: format!("/{}", definition.name),
            restart_count: status.restart_count,
            driver: DRIVER.to_owned(),
            platform: "linux".to_owned(),
            app_armor_profile: String::new(),
            exec_ids: self.running_execs(id),
            host_config: berth_api::container::HostConfig {
                links: self.shown_links(&definition),
                ..definition.host.clone()
            },
            graph_driver: GraphDriver { data: None, name: DRIVER.to_owned() },
            size_rw: sizes.map(|(own, _)| own),
            size_root_fs: sizes.map(|(_, all)| all),
            mounts: self.mount_points(&definition),
            config: definition.config.clone(),
            network_settings: NetworkSettings {
                sandbox_id: if sandbox { id.clone() } else { String::new() },
                sandbox_key: if sandbox { format!("/proc/{}/ns/net", status.pid) } else { String::new() },
                ports: ports::map(&definition, &status),
                networks: self.endpoints_of(&definition, &status),
            },
            ..ContainerInspect::default()
        }
    }

    pub(crate) fn mount_points(&self, definition: &Definition) -> Vec<MountPoint> {
        let shown = definition.mounts.iter().filter(|plan| !plan.hidden);
        shown.map(|plan| plan.point(|name| self.volumes.mountpoint(name).display().to_string())).collect()
    }

    pub(crate) fn endpoints_of(
        &self,
        definition: &Definition,
        status: &Status,
    ) -> BTreeMap<String, EndpointSettings> {
        let endpoint = |(name, wanted): (&String, &EndpointSettings)| {
            let network = self.network.network(name).ok();
            let known = status.ever_started || status.phase.is_alive();
            let id =
                network.as_ref().filter(|_| known).map(|network| network.id.to_string()).unwrap_or_default();
            let custom = network.is_some_and(|network| !network.is_predefined());
            (name.clone(), endpoint_settings(wanted, status.endpoints.get(name), definition, id, custom))
        };
        definition.networks.iter().map(endpoint).collect()
    }
}

fn state(status: &Status) -> ContainerState {
    ContainerState {
        status: status.phase.as_str().to_owned(),
        running: status.phase.is_running(),
        paused: status.phase == Phase::Paused,
        restarting: status.phase == Phase::Restarting,
        oom_killed: status.oom_killed,
        dead: status.phase == Phase::Dead,
        pid: i64::from(status.pid),
        exit_code: i64::from(status.exit_code),
        error: status.error.clone(),
        started_at: status.started_at.map(Time).unwrap_or_default(),
        // Docker shows the zero time while the first run lasts.
        finished_at: status.finished_at.map(Time).unwrap_or_default(),
        health: status.health.clone(),
    }
}
