//! One container: made, replaced, stopped, removed.

use berth_client::api::{
    container::ContainerSummary,
    network::NetworkConnectRequest,
    options::{RemoveContainer, StopContainer},
};

use super::{Engine, titled};
use crate::{
    Result,
    error::Context,
    labels::Labelled,
    model::Service,
    request::{Wanted, endpoint, primary_network},
};

/// API in which a container can be created in several networks.
const MANY_ENDPOINTS: u16 = 44;

impl Engine {
    /// Creates a container; answers its id.
    pub(super) async fn create_container(&self, wanted: &Wanted<'_>, name: &str) -> Result<String> {
        let request = wanted.request()?;
        let default = wanted.project.environment.get("DOCKER_DEFAULT_PLATFORM").map_or("", String::as_str);
        let platform = if wanted.service.platform.is_empty() { default } else { &wanted.service.platform };
        let created = self.client.container_create(name, platform, &request).await;
        let created = created.during(|| format!("creating a container of service {}", wanted.name))?;
        for warning in &created.warnings {
            self.progress.warn(&format!("{}: {warning}", wanted.name));
        }
        if !wanted.api.at_least(MANY_ENDPOINTS) {
            self.connect_others(wanted, &created.id).await?;
        }
        Ok(created.id)
    }

    /// Connects a container to the networks it could not be created in.
    async fn connect_others(&self, wanted: &Wanted<'_>, id: &str) -> Result<()> {
        let primary = primary_network(wanted);
        for key in wanted.service.networks_by_priority() {
            let Some(network) = wanted.project.networks.get(key).filter(|_| Some(key) != primary) else {
                continue;
            };
            let request = NetworkConnectRequest {
                container: id.to_owned(),
                endpoint_config: Some(endpoint(wanted, key)),
            };
            let connected = self.client.network_connect(&network.name, &request).await;
            connected.during(|| format!("connecting service {} to network {}", wanted.name, network.name))?;
        }
        Ok(())
    }

    /// Stops a container, after its hooks.
    pub(super) async fn stop_container(
        &self,
        container: &ContainerSummary,
        service: Option<&Service>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let what = titled(container);
        self.working(&what, "Stopping");
        if container.state == "running" {
            for hook in service.into_iter().flat_map(|service| &service.pre_stop) {
                match self
                    .run_hook(container.service(), &container.id, container.log_name(), service, hook)
                    .await
                {
                    // What has ended meanwhile needs no preparation.
                    Err(error) if error.is_not_found() || error.is_conflict() => break,
                    other => other?,
                }
            }
        }
        let options = StopContainer { signal: None, timeout };
        let stopped = self.act(self.client.container_stop(&container.id, &options)).await;
        let stopped = stopped.during(|| format!("stopping container {}", container.short_name()));
        self.failed(&what, stopped)?;
        self.done(&what, "Stopped");
        Ok(())
    }

    /// Stops a container and removes it. One that is gone is no failure.
    pub(super) async fn stop_and_remove(
        &self,
        container: &ContainerSummary,
        service: Option<&Service>,
        timeout: Option<i64>,
        volumes: bool,
    ) -> Result<()> {
        let _turn = self.turn().await;
        let what = titled(container);
        match self.stop_container(container, service, timeout).await {
            Err(error) if error.is_not_found() => {
                self.done(&what, "Removed");
                return Ok(());
            }
            other => other?,
        }
        self.remove_container(container, volumes, true).await
    }

    pub(super) async fn remove_container(
        &self,
        container: &ContainerSummary,
        volumes: bool,
        force: bool,
    ) -> Result<()> {
        let what = titled(container);
        self.working(&what, "Removing");
        let options = RemoveContainer { volumes, force, link: false };
        match self.act(self.client.container_remove(&container.id, options)).await {
            // Gone, or going by itself.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            other => {
                let removed = other.during(|| format!("removing container {}", container.short_name()));
                self.failed(&what, removed)?;
            }
        }
        self.done(&what, "Removed");
        Ok(())
    }
}
