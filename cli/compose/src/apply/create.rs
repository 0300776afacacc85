//! Applying a plan: networks and volumes, then containers, as many at a time as their references allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use berth_client::api::{
    ApiVersion,
    container::ContainerSummary,
    options::{RemoveContainer, StopContainer},
};
use futures_util::future::try_join_all;

use super::{Engine, resources::service_labels};
use crate::{
    Result,
    error::{Context, Error},
    labels::{self, Labelled},
    model::{Mount, Project, Service},
    observe::{self, Observed},
    order::{self, Edges},
    plan::{self, Action, ContainerChange, Plan, Planner, Recreate, ServiceChange},
    request::{self, Wanted},
};

/// What `up` and `create` are asked to do.
#[derive(Debug, Clone, Default)]
pub struct UpOptions {
    /// Services that were named; the others of the project are their dependencies.
    pub targets: BTreeSet<String>,
    /// When containers of the named services are made anew.
    pub recreate: Recreate,
    /// When those of their dependencies are.
    pub recreate_dependencies: Recreate,
    /// Whether anonymous volumes go on in a new container.
    pub inherit: bool,
    /// Whether containers of services that are not in the files are removed.
    pub remove_orphans: bool,
    /// Whether nothing is said about them.
    pub ignore_orphans: bool,
    /// Whether volumes that diverge are made anew.
    pub recreate_volumes: bool,
    /// Seconds for containers that stop.
    pub timeout: Option<i64>,
}

/// A container that is there after a plan was applied.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Whether it runs already.
    pub running: bool,
}

/// Containers by service.
pub(super) type Containers = BTreeMap<String, Vec<Created>>;

struct Converging<'a> {
    engine: &'a Engine,
    project: &'a Project,
    observed: &'a Observed,
    options: &'a UpOptions,
    settled: Mutex<Containers>,
}

impl Engine {
    /// Makes the plan of `up`.
    ///
    /// # Errors
    /// If the engine cannot be asked, or has something in the way.
    pub async fn plan(
        &self,
        project: &Project,
        options: &UpOptions,
        awaiting: BTreeMap<String, String>,
    ) -> Result<(Plan, Observed)> {
        refuse_what_cannot_be(project)?;
        let observed = observe::observe(&self.client, project).await?;
        let images = observed.api.is_some_and(|api| api.at_least(48));
        for (name, service) in &project.services {
            service.volumes.iter().try_for_each(|mount: &Mount| request::refuse(name, mount, images))?;
        }
        let planner = Planner {
            project,
            observed: &observed,
            targets: options.targets.clone(),
            recreate: options.recreate,
            recreate_dependencies: options.recreate_dependencies,
            remove_orphans: options.remove_orphans,
            recreate_volumes: options.recreate_volumes,
            awaiting,
            separator: self.separator,
        };
        let plan = planner.plan()?;
        Ok((plan, observed))
    }

    /// Makes the plan say field by field why containers are made anew.
    ///
    /// # Errors
    /// If the engine cannot be asked.
    pub async fn explain(
        &self,
        plan: &mut Plan,
        project: &Project,
        observed: &Observed,
        options: &UpOptions,
    ) -> Result<()> {
        let ids: Vec<String> = plan.recreated().map(str::to_owned).collect();
        let each = ids.iter().map(async |id| {
            let inspect = self
                .client
                .container_inspect(id, false)
                .await
                .during(|| format!("looking at container {id}"))?;
            Ok::<_, Error>((id.clone(), inspect))
        });
        let inspects = try_join_all(each).await?.into_iter().collect();
        let planner = Planner {
            project,
            observed,
            targets: options.targets.clone(),
            recreate: options.recreate,
            recreate_dependencies: options.recreate_dependencies,
            remove_orphans: options.remove_orphans,
            recreate_volumes: options.recreate_volumes,
            awaiting: BTreeMap::new(),
            separator: self.separator,
        };
        planner.explain(plan, &inspects);
        Ok(())
    }

    /// Does what a plan says, short of starting anything.
    ///
    /// # Errors
    /// With the first failure; what was made until then stays, and the next `up` goes on from there.
    pub async fn apply(
        &self,
        project: &Project,
        plan: &Plan,
        observed: &Observed,
        options: &UpOptions,
    ) -> Result<BTreeMap<String, Vec<Created>>> {
        self.remove_orphans(project, plan, observed, options).await?;
        self.stop_users_of_recreated(project, plan, observed, options).await?;
        tokio::try_join!(
            try_join_all(plan.networks.iter().map(|change| self.apply_network(project, change))),
            try_join_all(plan.volumes.iter().map(|change| self.apply_volume(project, change))),
        )?;
        let converging =
            Converging { engine: self, project, observed, options, settled: Mutex::new(Containers::new()) };
        let changes: BTreeMap<&str, &ServiceChange> =
            plan.services.iter().map(|change| (change.service.as_str(), change)).collect();
        order::walk(references(project), |name| {
            let (converging, change) = (&converging, changes.get(name.as_str()).copied());
            async move {
                match change {
                    Some(change) => converging.service(change).await,
                    None => Ok(()),
                }
            }
        })
        .await?;
        Ok(converging.settled.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn remove_orphans(
        &self,
        project: &Project,
        plan: &Plan,
        observed: &Observed,
        options: &UpOptions,
    ) -> Result<()> {
        if !options.remove_orphans {
            let names: Vec<&str> =
                plan::orphans(project, &observed.containers).map(Labelled::short_name).collect();
            if !names.is_empty() && !options.ignore_orphans {
                self.progress.warn(&format!(
                    "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
                    names.join(" ")
                ));
            }
            return Ok(());
        }
        let orphans = plan.orphans.iter().filter_map(|orphan| find(observed, orphan));
        try_join_all(orphans.map(|orphan| self.stop_and_remove(orphan, None, options.timeout, false)))
            .await?;
        Ok(())
    }

    /// A volume that is made anew must not be in use: its users go first.
    async fn stop_users_of_recreated(
        &self,
        project: &Project,
        plan: &Plan,
        observed: &Observed,
        options: &UpOptions,
    ) -> Result<()> {
        let anew =
            plan.volumes.iter().filter(|change| matches!(change.action, plan::ResourceAction::Recreate(_)));
        let keys: BTreeSet<&str> = anew.map(|change| change.key.as_str()).collect();
        for (name, service) in &project.services {
            if service.volumes.iter().any(|mount| keys.contains(mount.source.as_str())) {
                let users = observed.containers.iter().filter(|container| container.service() == name);
                try_join_all(
                    users.map(|user| self.stop_and_remove(user, Some(service), options.timeout, false)),
                )
                .await?;
            }
        }
        Ok(())
    }
}

/// Providers are programs of others on this machine; Berth runs none.
fn refuse_what_cannot_be(project: &Project) -> Result<()> {
    for (name, service) in &project.services {
        if let Some(provider) = &service.provider {
            let message = format!(
                "provider {:?} is a plug-in of docker compose; berth runs no plug-ins. Run it by itself, and take the service out of the file or put it into a profile",
                provider.r#type
            );
            return Err(Error::service(name, message));
        }
        if !service.models.is_empty() {
            return Err(Error::service(
                name,
                "models need docker's model runner, which this engine does not have",
            ));
        }
        if service.use_api_socket {
            let message = "use_api_socket is not supported: mount the engine's socket as a volume if the service is to have it";
            return Err(Error::service(name, message));
        }
    }
    Ok(())
}

fn find<'a>(observed: &'a Observed, change: &ContainerChange) -> Option<&'a ContainerSummary> {
    observed.containers.iter().find(|container| Some(&container.id) == change.id.as_ref())
}

/// Services whose containers need the ids or names of others' containers to be made.
fn references(project: &Project) -> Edges {
    let of = |service: &Service| -> BTreeSet<String> {
        let from = service.volumes_from.iter().map(|from| from.split(':').next().unwrap_or_default());
        let modes = [&service.network_mode, &service.ipc, &service.pid];
        let shared = modes.into_iter().filter_map(|mode| mode.strip_prefix("service:"));
        let links = service.links.iter().map(|link| link.split(':').next().unwrap_or_default());
        let all = from.chain(shared).chain(links).filter(|name| project.services.contains_key(*name));
        all.map(str::to_owned).collect()
    };
    project.services.iter().map(|(name, service)| (name.clone(), of(service))).collect()
}

impl Converging<'_> {
    fn settled(&self) -> std::sync::MutexGuard<'_, Containers> {
        // A panic while it was held has ended the operation anyway.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn service(&self, change: &ServiceChange) -> Result<()> {
        let name = change.service.as_str();
        let mut service = self.project.service(name)?.clone();
        plan::resolve_with(&mut service, |other| self.first_of(name, other))?;
        let links = links(self.engine, self.project, &service, &self.settled());
        let done = change.containers.iter().map(|change| self.container(name, &service, &links, change));
        let containers: Vec<Created> = try_join_all(done).await?.into_iter().flatten().collect();
        self.settled().insert(name.to_owned(), containers);
        Ok(())
    }

    /// The id of the first container of another service.
    fn first_of(&self, name: &str, other: &str) -> Result<String> {
        let settled = self.settled();
        let mut containers: Vec<&Created> = settled.get(other).into_iter().flatten().collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        match containers.first() {
            Some(first) => Ok(first.id.clone()),
            None => {
                Err(Error::service(name, format!("cannot share with service {other}: container missing")))
            }
        }
    }

    async fn container(
        &self,
        name: &str,
        service: &Service,
        links: &[String],
        change: &ContainerChange,
    ) -> Result<Option<Created>> {
        let created = |id: &str, running| {
            Ok(Some(Created {
                id: id.to_owned(),
                name: change.name.clone(),
                service: name.to_owned(),
                running,
            }))
        };
        let what = format!("Container {}", change.name);
        let existing = find(self.observed, change);
        let _turn = match change.action {
            Action::Remove(_) => None,
            _ => self.engine.turn().await,
        };
        match (&change.action, existing) {
            (Action::Keep, Some(container)) => {
                self.engine.done(&what, "Running");
                created(&container.id, true)
            }
            (Action::Start | Action::AwaitImage(_), Some(container)) => {
                created(&container.id, container.state == "running")
            }
            (Action::Restart(_), Some(container)) => {
                self.engine.stop_container(container, Some(service), self.options.timeout).await?;
                created(&container.id, false)
            }
            (Action::Remove(_), Some(container)) => {
                self.engine.stop_and_remove(container, Some(service), self.options.timeout, false).await?;
                Ok(None)
            }
            (Action::Recreate(_), Some(container)) => {
                self.engine.working(&what, "Recreate");
                let replaced = self.replace(name, service, links, change, container).await;
                let id = self.engine.failed(&what, replaced)?;
                self.engine.done(&what, "Recreated");
                created(&id, false)
            }
            _ => {
                self.engine.working(&what, "Creating");
                let made = self
                    .engine
                    .create_container(&self.wanted(name, service, links, change), &change.name)
                    .await;
                let id = self.engine.failed(&what, made)?;
                self.engine.done(&what, "Created");
                created(&id, false)
            }
        }
    }

    fn wanted<'b>(
        &'b self,
        name: &'b str,
        service: &'b Service,
        links: &[String],
        change: &ContainerChange,
    ) -> Wanted<'b> {
        let image = self.observed.images.get(&service.image_name(&self.project.name, name));
        Wanted {
            project: self.project,
            name,
            service,
            number: change.number,
            container: change.name.clone(),
            labels: service_labels(self.project, name, image.map(|image| image.id.as_str())),
            links: links.to_vec(),
            aliases: true,
            attach_stdin: false,
            auto_remove: false,
            inherit: None,
            api: self.observed.api.unwrap_or(ApiVersion::MAX),
            secrets: self.observed.secrets,
        }
    }

    /// Makes the new container beside the old one, then puts it in its place.
    async fn replace(
        &self,
        name: &str,
        service: &Service,
        links: &[String],
        change: &ContainerChange,
        old: &ContainerSummary,
    ) -> Result<String> {
        let client = &self.engine.client;
        let new_name =
            plan::container_name(self.project, name, service, change.number, self.engine.separator);
        let image = self.observed.images.get(&service.image_name(&self.project.name, name));
        let declared =
            image.and_then(|image| image.config.as_ref()).and_then(|config| config.volumes.as_ref());
        let declared: Vec<String> =
            declared.into_iter().flat_map(|volumes| volumes.keys().cloned()).collect();
        let mut wanted = self.wanted(name, service, links, change);
        wanted.container.clone_from(&new_name);
        wanted.inherit = self.options.inherit.then_some((old, declared.as_slice()));
        let replaces = match service.container_name.as_str() {
            "" => format!("{name}{}{}", self.engine.separator, change.number),
            own => own.to_owned(),
        };
        wanted.labels.insert(labels::REPLACE.to_owned(), replaces);
        let temporary = format!("{}_{new_name}", old.id.get(..12).unwrap_or(&old.id));
        let id = self.engine.create_container(&wanted, &temporary).await?;
        let during = |doing: &'static str| move || format!("{doing} container {}", change.name);
        let options = StopContainer { signal: None, timeout: self.options.timeout };
        client.container_stop(&old.id, &options).await.during(during("stopping"))?;
        client.container_remove(&old.id, RemoveContainer::default()).await.during(during("removing"))?;
        client.container_rename(&id, &new_name).await.during(during("renaming"))?;
        Ok(id)
    }
}

/// The links of a service's containers, to all containers of the services it links.
pub(super) fn links(
    engine: &Engine,
    project: &Project,
    service: &Service,
    settled: &Containers,
) -> Vec<String> {
    let separator = engine.separator;
    let mut links = Vec::new();
    for link in &service.links {
        let (other, alias) = link.split_once(':').unwrap_or((link, link));
        for (index, container) in settled.get(other).into_iter().flatten().enumerate() {
            let name = &container.name;
            let number = index + 1;
            links.push(format!("{name}:{alias}"));
            links.push(format!("{name}:{other}{separator}{number}"));
            links.push(format!("{name}:{}{separator}{other}{separator}{number}", project.name));
        }
    }
    for link in &service.external_links {
        let (other, alias) = link.split_once(':').unwrap_or((link, link));
        links.push(format!("{other}:{alias}"));
    }
    links
}
