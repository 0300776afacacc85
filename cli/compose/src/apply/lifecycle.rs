//! Stopping, restarting, killing, pausing and removing what a project has.

use berth_client::api::{container::ContainerSummary, options::StopContainer};
use futures_util::future::try_join_all;

use super::{Engine, titled};
use crate::{
    Result,
    error::Context,
    labels::{Labelled, OneOff},
    model::{Dependencies, Project},
    observe, order, plan,
};

/// Which containers, and how long they may take.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Only these services; none is all.
    pub services: Vec<String>,
    /// Seconds before SIGKILL.
    pub timeout: Option<i64>,
}

impl Engine {
    async fn chosen(&self, project: &Project, services: &[String]) -> Result<Vec<ContainerSummary>> {
        let mut containers = observe::containers(&self.client, &project.name, OneOff::Exclude, true).await?;
        containers.retain(|container| {
            let name = container.service();
            project.services.contains_key(name)
                && (services.is_empty() || services.iter().any(|wanted| wanted == name))
        });
        Ok(containers)
    }

    /// Stops services in the reverse order of their dependencies.
    ///
    /// # Errors
    /// With the first container that cannot be stopped.
    pub async fn stop(&self, project: &Project, options: &StopOptions) -> Result<()> {
        let containers = self.chosen(project, &options.services).await?;
        order::walk(order::dependents(project), |name| {
            let containers = &containers;
            async move {
                let service = project.services.get(&name);
                let own = containers.iter().filter(|container| container.service() == name);
                let stops = own.map(async |container| {
                    let _turn = self.turn().await;
                    self.stop_container(container, service, options.timeout).await
                });
                try_join_all(stops).await.map(drop)
            }
        })
        .await
    }

    /// Restarts services in the order of their dependencies, and with them those that depend on them with
    /// `restart: true`.
    ///
    /// # Errors
    /// With the first container that cannot be restarted.
    pub async fn restart(&self, project: &Project, options: &StopOptions, no_deps: bool) -> Result<()> {
        let mut project = project.clone();
        if no_deps {
            project.select(&options.services, Dependencies::Ignore)?;
        }
        for service in project.services.values_mut() {
            service.depends_on.retain(|_, dependency| dependency.restart);
        }
        project.select(&options.services, Dependencies::Dependents)?;
        let containers = self.chosen(&project, &[]).await?;
        let existing = self.existing(&project).await?;
        order::walk(order::dependencies(&project), |name| {
            let (containers, project, existing) = (&containers, &project, &existing);
            async move {
                let service = project.service(&name)?;
                self.wait_dependencies(project, &name, &service.depends_on, existing).await?;
                let own = containers.iter().filter(|container| container.service() == name);
                let restarts = own.map(async |container| {
                    let _turn = self.turn().await;
                    for hook in &service.pre_stop {
                        self.run_hook(&name, &container.id, container.log_name(), Some(service), hook)
                            .await?;
                    }
                    let what = titled(container);
                    self.working(&what, "Restarting");
                    let stop = StopContainer { signal: None, timeout: options.timeout };
                    let restarted = self.act(self.client.container_restart(&container.id, &stop)).await;
                    let restarted =
                        restarted.during(|| format!("restarting container {}", container.short_name()));
                    self.failed(&what, restarted)?;
                    self.done(&what, "Started");
                    for hook in &service.post_start {
                        self.run_hook(&name, &container.id, container.log_name(), Some(service), hook)
                            .await?;
                    }
                    Ok(())
                });
                try_join_all(restarts).await.map(drop)
            }
        })
        .await
    }

    /// Sends a signal to the running containers of services; tells whether there was one.
    ///
    /// # Errors
    /// With the first container that cannot be signalled.
    pub async fn kill(&self, project: &Project, services: &[String], signal: &str) -> Result<bool> {
        let containers = self.chosen(project, services).await?;
        let running: Vec<_> = containers.iter().filter(|container| container.state == "running").collect();
        let kills = running.iter().map(async |container| {
            let what = titled(container);
            self.working(&what, "Killing");
            match self.act(self.client.container_kill(&container.id, signal)).await {
                // It has ended by itself.
                Err(error) if error.is_conflict() => {}
                other => other.during(|| format!("killing container {}", container.short_name()))?,
            }
            self.done(&what, "Killed");
            Ok::<(), crate::Error>(())
        });
        try_join_all(kills).await?;
        Ok(!running.is_empty())
    }

    /// Freezes services.
    ///
    /// # Errors
    /// With the first container that cannot be frozen.
    pub async fn pause(&self, project: &Project, services: &[String]) -> Result<()> {
        let containers = self.chosen(project, services).await?;
        let pauses =
            containers.iter().filter(|container| container.state == "running").map(async |container| {
                self.act(self.client.container_pause(&container.id))
                    .await
                    .during(|| format!("pausing container {}", container.short_name()))?;
                self.done(&titled(container), "Paused");
                Ok(())
            });
        try_join_all(pauses).await.map(drop)
    }

    /// Lets frozen services go on.
    ///
    /// # Errors
    /// With the first container that cannot go on.
    pub async fn unpause(&self, project: &Project, services: &[String]) -> Result<()> {
        let containers = self.chosen(project, services).await?;
        let frozen =
            containers.iter().filter(|container| container.state == "paused").map(async |container| {
                self.act(self.client.container_unpause(&container.id))
                    .await
                    .during(|| format!("unpausing container {}", container.short_name()))?;
                self.done(&titled(container), "Unpaused");
                Ok(())
            });
        try_join_all(frozen).await.map(drop)
    }

    /// The containers of services that do not run; those that do as well if they `will_stop`.
    ///
    /// # Errors
    /// If the engine cannot list them.
    pub async fn stopped(
        &self,
        project: &Project,
        services: &[String],
        will_stop: bool,
    ) -> Result<Vec<ContainerSummary>> {
        let mut containers = self.chosen(project, services).await?;
        containers.retain(|container| {
            will_stop || !matches!(container.state.as_str(), "running" | "paused" | "restarting")
        });
        Ok(containers)
    }

    /// Removes containers.
    ///
    /// # Errors
    /// With the first that cannot be removed.
    pub async fn remove(&self, containers: &[ContainerSummary], volumes: bool, force: bool) -> Result<()> {
        try_join_all(containers.iter().map(|container| self.remove_container(container, volumes, force)))
            .await
            .map(drop)
    }

    /// Removes containers of services that are not in the files.
    ///
    /// # Errors
    /// With the first that cannot be removed.
    pub async fn remove_project_orphans(&self, project: &Project) -> Result<()> {
        let containers = observe::containers(&self.client, &project.name, OneOff::Include, true).await?;
        let orphans = plan::orphans(project, &containers);
        try_join_all(orphans.map(|orphan| self.stop_and_remove(orphan, None, None, false))).await.map(drop)
    }

    /// Waits until the services of a project run and are healthy.
    ///
    /// # Errors
    /// As [`Self::wait_healthy`].
    pub async fn wait_running(&self, project: &Project, timeout: Option<u64>) -> Result<()> {
        let existing = self.existing(project).await?;
        self.wait_healthy(project, &existing, timeout).await
    }
}
