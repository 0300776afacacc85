//! Starting containers in the order of their dependencies, and waiting for what they depend on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;

use super::{Created, Engine, Status, create::Containers};
use crate::{
    Result,
    error::{Context, Error},
    files,
    labels::{Labelled, OneOff},
    model::{Dependency, Project, Service},
    observe, order,
};

/// Time between two looks at a container that is waited for.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Healthy,
    RunningOrHealthy,
    Completed,
}

/// How a dependency stands.
enum Standing {
    Fulfilled,
    Pending,
    Broken(Error),
}

impl Engine {
    /// Starts what `apply` left, each service when what it depends on is as it must be.
    ///
    /// # Errors
    /// With the first container that does not start, or the first dependency that breaks.
    pub async fn start_created(
        &self,
        project: &Project,
        containers: &BTreeMap<String, Vec<Created>>,
    ) -> Result<()> {
        order::walk(order::dependencies(project), |name| async move {
            let service = project.service(&name)?;
            self.wait_dependencies(project, &name, &service.depends_on, containers).await?;
            let own: Vec<&Created> = containers.get(&name).into_iter().flatten().collect();
            if own.is_empty() && service.replicas() > 0 {
                return Err(Error::service(&name, "has no container to start"));
            }
            let stopped = own.into_iter().filter(|container| !container.running);
            // Containers that draw their ports from one range must not draw at the same time.
            if service.ports.iter().any(|port| port.published.contains('-')) {
                for container in stopped {
                    self.start_one(project, &name, service, container).await?;
                }
                return Ok(());
            }
            try_join_all(stopped.map(|container| self.start_one(project, &name, service, container))).await?;
            Ok(())
        })
        .await
    }

    async fn start_one(
        &self,
        project: &Project,
        name: &str,
        service: &Service,
        container: &Created,
    ) -> Result<()> {
        let _turn = self.turn().await;
        let what = format!("Container {}", container.name);
        if !self.dry {
            files::inject(&self.client, project, name, service, &container.id).await?;
        }
        self.working(&what, "Starting");
        let started = self.act(self.client.container_start(&container.id, "")).await;
        let started = started.during(|| format!("starting container {}", container.name));
        self.failed(&what, started)?;
        let source =
            container.name.strip_prefix(&project.name).map_or(container.name.as_str(), |rest| &rest[1..]);
        for hook in &service.post_start {
            self.run_hook(name, &container.id, source, Some(service), hook).await?;
        }
        self.done(&what, "Started");
        Ok(())
    }

    /// Starts the containers a project has (`start`).
    ///
    /// # Errors
    /// As [`Self::start_created`].
    pub async fn start(&self, project: &Project) -> Result<()> {
        let containers = self.existing(project).await?;
        self.start_created(project, &containers).await
    }

    /// The containers of a project's services.
    pub(crate) async fn existing(&self, project: &Project) -> Result<Containers> {
        let mut containers: Containers = BTreeMap::new();
        for container in observe::containers(&self.client, &project.name, OneOff::Exclude, true).await? {
            containers.entry(container.service().to_owned()).or_default().push(Created {
                id: container.id.clone(),
                name: container.short_name().to_owned(),
                service: container.service().to_owned(),
                running: container.state == "running",
            });
        }
        Ok(containers)
    }

    /// Waits until all services run and are healthy, or have ended well where others wait for that.
    ///
    /// # Errors
    /// [`Error::Timeout`], or as soon as a container cannot get there any more.
    pub async fn wait_healthy(
        &self,
        project: &Project,
        containers: &BTreeMap<String, Vec<Created>>,
        timeout: Option<u64>,
    ) -> Result<()> {
        let all =
            project.services.iter().filter(|(_, service)| service.replicas() > 0).map(async |(name, _)| {
                let completes = |service: &Service| {
                    service
                        .depends_on
                        .get(name)
                        .is_some_and(|on| on.condition == "service_completed_successfully")
                };
                let condition = if project.services.values().any(completes) {
                    Condition::Completed
                } else {
                    Condition::RunningOrHealthy
                };
                self.wait_for(name, condition, containers.get(name).map_or(&[], Vec::as_slice)).await
            });
        let all = try_join_all(all);
        match timeout {
            None => all.await.map(drop),
            Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), all).await {
                Ok(done) => done.map(drop),
                Err(_) => Err(Error::Timeout(seconds)),
            },
        }
    }

    pub(super) async fn wait_dependencies(
        &self,
        project: &Project,
        name: &str,
        dependencies: &BTreeMap<String, Dependency>,
        containers: &Containers,
    ) -> Result<()> {
        let waits = dependencies.iter().map(async |(dependency, config)| {
            let condition = match config.condition.as_str() {
                "service_healthy" => Condition::Healthy,
                "service_completed_successfully" => Condition::Completed,
                "running_or_healthy" => Condition::RunningOrHealthy,
                // The order of starting is enough.
                _ => return Ok(()),
            };
            let Some(service) = project.services.get(dependency) else { return Ok(()) };
            if service.replicas() == 0 {
                return Ok(());
            }
            let own = containers.get(dependency).map_or(&[] as &[Created], Vec::as_slice);
            let waited = if own.is_empty() {
                Err(Error::service(name, format!("is missing dependency {dependency}")))
            } else {
                self.wait_for(dependency, condition, own).await
            };
            match waited {
                Err(error) if !config.required.0 => {
                    let why = std::error::Error::source(&error).map(|source| format!(": {source}"));
                    let why = format!("{error}{}", why.unwrap_or_default());
                    self.progress.warn(&format!("optional dependency {dependency:?} failed to start: {why}"));
                    Ok(())
                }
                other => other,
            }
        });
        try_join_all(waits).await?;
        Ok(())
    }

    async fn wait_for(&self, name: &str, condition: Condition, containers: &[Created]) -> Result<()> {
        let tell = |status, text: &str| {
            for container in containers {
                self.progress.tell(&format!("Container {}", container.name), status, text);
            }
        };
        tell(Status::Working, "Waiting");
        let began = Instant::now();
        loop {
            if self.dry {
                // What would not be started never gets there.
                return Ok(());
            }
            match self.standing(name, condition, containers).await? {
                Standing::Fulfilled => {
                    tell(Status::Done, if condition == Condition::Completed { "Exited" } else { "Healthy" });
                    return Ok(());
                }
                Standing::Broken(error) => {
                    tell(Status::Error, "Error");
                    return Err(error);
                }
                // Nothing becomes healthy faster by being asked more often after a while.
                Standing::Pending if began.elapsed() > 20 * INTERVAL => {
                    tokio::time::sleep(2 * INTERVAL).await
                }
                Standing::Pending => tokio::time::sleep(INTERVAL / 2).await,
            }
        }
    }

    async fn standing(&self, name: &str, condition: Condition, containers: &[Created]) -> Result<Standing> {
        for container in containers {
            let inspect = self.client.container_inspect(&container.id, false).await;
            let inspect = inspect.during(|| format!("looking at container {}", container.name))?;
            let state = &inspect.state;
            let broken = |why: String| {
                Ok(Standing::Broken(Error::Dependency(format!("container {} {why}", container.name))))
            };
            if condition == Condition::Completed {
                if state.status != "exited" {
                    return Ok(Standing::Pending);
                }
                if state.exit_code != 0 {
                    return Ok(Standing::Broken(Error::Incomplete {
                        service: name.to_owned(),
                        code: state.exit_code,
                    }));
                }
                continue;
            }
            if state.status == "exited" {
                return broken(format!("exited ({})", state.exit_code));
            }
            let checked = inspect.config.healthcheck.as_ref().is_some_and(|check| {
                check.test.as_ref().and_then(|test| test.first()).is_none_or(|first| first != "NONE")
            });
            match state.health.as_ref().map(|health| health.status.as_str()) {
                Some("healthy") => {}
                Some("unhealthy") => return broken("is unhealthy".to_owned()),
                Some("starting") => return Ok(Standing::Pending),
                _ if condition == Condition::RunningOrHealthy && !checked => {
                    if state.status != "running" {
                        return Ok(Standing::Pending);
                    }
                }
                // Between its creation and its first check a container has no health yet.
                _ if checked && matches!(state.status.as_str(), "created" | "running" | "restarting") => {
                    return Ok(Standing::Pending);
                }
                _ => return broken("has no healthcheck configured".to_owned()),
            }
        }
        Ok(Standing::Fulfilled)
    }
}
