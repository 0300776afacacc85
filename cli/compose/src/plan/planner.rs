//! Making the plan.

use std::collections::{BTreeMap, BTreeSet};

use berth_client::api::{
    ApiVersion,
    container::{ContainerInspect, ContainerSummary},
};

use super::{Action, ContainerChange, Plan, Reason, ResourceAction, ResourceChange, ServiceChange, reasons};
use crate::{
    Result,
    error::Error,
    labels::{self, Labelled},
    model::{Network, Project, Service, Volume},
    observe::Observed,
    order,
    request::Wanted,
};

/// When existing containers are made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recreate {
    /// When their configuration or image has changed.
    #[default]
    Diverged,
    /// Always.
    Force,
    /// Never.
    Never,
}

/// Makes plans.
#[derive(Debug)]
pub struct Planner<'a> {
    /// The project.
    pub project: &'a Project,
    /// What the engine has.
    pub observed: &'a Observed,
    /// Services that were named; the others are dependencies.
    pub targets: BTreeSet<String>,
    /// When containers of the named services are made anew.
    pub recreate: Recreate,
    /// When those of their dependencies are.
    pub recreate_dependencies: Recreate,
    /// Whether orphans are removed.
    pub remove_orphans: bool,
    /// Whether volumes that diverge are made anew, with loss of their data.
    pub recreate_volumes: bool,
    /// Services whose image is not known yet, and why.
    pub awaiting: BTreeMap<String, String>,
    /// How names are joined: `-`, or `_` as Compose 1 did.
    pub separator: char,
}

/// Where a service's containers will be after the plan: their ids, or not known.
type Settled = BTreeMap<String, Option<Vec<String>>>;

impl Planner<'_> {
    /// Makes the plan.
    ///
    /// # Errors
    /// If the engine has something in the way, or lacks something external.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = Plan {
            networks: self.networks()?,
            volumes: self.volumes()?,
            orphans: self.orphans(),
            services: Vec::new(),
        };
        let recreated = |changes: &[ResourceChange]| -> BTreeSet<String> {
            let made = |change: &&ResourceChange| matches!(change.action, ResourceAction::Recreate(_));
            changes.iter().filter(made).map(|change| change.key.clone()).collect()
        };
        let (networks, volumes) = (recreated(&plan.networks), recreated(&plan.volumes));
        let mut settled = Settled::new();
        for name in order::sorted(self.project) {
            let change = self.service(&name, &networks, &volumes, &mut settled)?;
            plan.services.push(change);
        }
        self.restart_dependents(&mut plan);
        Ok(plan)
    }

    /// Says of every container that is made anew which fields have changed.
    pub fn explain(&self, plan: &mut Plan, inspects: &BTreeMap<String, ContainerInspect>) {
        for service in &mut plan.services {
            let Some(wanted) = self.project.services.get(&service.service) else { continue };
            for change in &mut service.containers {
                let Action::Recreate(reasons) = &mut change.action else { continue };
                let Some(inspect) = change.id.as_ref().and_then(|id| inspects.get(id)) else { continue };
                let Some(vague) = reasons.iter().position(|reason| reason.what == reasons::CONFIGURATION)
                else {
                    continue;
                };
                let found = self.fields(&service.service, wanted, change.number, &change.name, inspect);
                if !found.is_empty() {
                    reasons.splice(vague..=vague, found);
                }
            }
        }
    }

    fn fields(
        &self,
        name: &str,
        service: &Service,
        number: u32,
        container: &str,
        inspect: &ContainerInspect,
    ) -> Vec<Reason> {
        let wanted = Wanted {
            project: self.project,
            name,
            service,
            number,
            container: container.to_owned(),
            labels: BTreeMap::new(),
            links: Vec::new(),
            aliases: true,
            attach_stdin: false,
            auto_remove: false,
            inherit: None,
            api: self.observed.api.unwrap_or(ApiVersion::MAX),
            secrets: self.observed.secrets,
        };
        let image = self.observed.images.get(&service.image_name(&self.project.name, name));
        // What cannot even be asked for fails when it is asked for.
        wanted.request().map(|request| reasons::between(inspect, &request, image)).unwrap_or_default()
    }

    fn networks(&self) -> Result<Vec<ResourceChange>> {
        let each = self.project.networks.iter().map(|(key, network)| {
            let action = self.network(key, network)?;
            Ok(ResourceChange { key: key.clone(), name: network.name.clone(), action })
        });
        each.collect()
    }

    fn network(&self, key: &str, network: &Network) -> Result<ResourceAction> {
        let by_id = || self.observed.networks.values().find(|found| found.id == network.name);
        let found = self.observed.networks.get(&network.name).or_else(by_id);
        let Some(found) = found else {
            return if network.external {
                Err(Error::Conflict(format!(
                    "network {} declared as external, but could not be found",
                    network.name
                )))
            } else {
                Ok(ResourceAction::Create)
            };
        };
        if network.external {
            return Ok(ResourceAction::Keep);
        }
        let label = |label: &str| found.labels.get(label).map_or("", String::as_str);
        if label(labels::NETWORK) != key {
            return Err(Error::Conflict(format!(
                "network {} was found but has incorrect label {} set to {:?} (expected: {key:?})",
                network.name,
                labels::NETWORK,
                label(labels::NETWORK)
            )));
        }
        let hash = label(labels::CONFIG_HASH);
        if hash.is_empty() || hash == network.hash() {
            return Ok(ResourceAction::Keep);
        }
        Ok(ResourceAction::Recreate(reasons::network(found, network)))
    }

    fn volumes(&self) -> Result<Vec<ResourceChange>> {
        let each = self.project.volumes.iter().map(|(key, volume)| {
            let action = self.volume(volume)?;
            Ok(ResourceChange { key: key.clone(), name: volume.name.clone(), action })
        });
        each.collect()
    }

    fn volume(&self, volume: &Volume) -> Result<ResourceAction> {
        let Some(found) = self.observed.volumes.get(&volume.name) else {
            return if volume.external {
                Err(Error::Conflict(format!("external volume {:?} not found", volume.name)))
            } else {
                Ok(ResourceAction::Create)
            };
        };
        if volume.external {
            return Ok(ResourceAction::Keep);
        }
        let none = BTreeMap::new();
        let found_labels = found.labels.as_ref().unwrap_or(&none);
        let name = &volume.name;
        let diverged = |why: String| Ok(ResourceAction::KeepDiverged(why));
        match found_labels.get(labels::PROJECT) {
            None => {
                return diverged(format!(
                    "volume {name:?} already exists but was not created by Docker Compose. Use `external: true` to use an existing volume"
                ));
            }
            Some(project) if *project != self.project.name => {
                return diverged(format!(
                    "volume {name:?} already exists but was created for project {project:?} (expected {:?}). Use `external: true` to use an existing volume",
                    self.project.name
                ));
            }
            Some(_) => {}
        }
        match found_labels.get(labels::CONFIG_HASH) {
            Some(hash) if *hash != volume.hash() && self.recreate_volumes => {
                Ok(ResourceAction::Recreate(reasons::volume(found, volume)))
            }
            Some(hash) if *hash != volume.hash() => diverged(format!(
                "volume {name:?} exists but doesn't match configuration in compose file; it is used as it is. Pass --yes to recreate it (its data will be lost)"
            )),
            _ => Ok(ResourceAction::Keep),
        }
    }

    fn orphans(&self) -> Vec<ContainerChange> {
        if !self.remove_orphans {
            return Vec::new();
        }
        let orphans = orphans(self.project, &self.observed.containers);
        orphans
            .map(|container| change(container, Action::Remove("its service is not in the files".to_owned())))
            .collect()
    }

    fn service(
        &self,
        name: &str,
        networks: &BTreeSet<String>,
        volumes: &BTreeSet<String>,
        settled: &mut Settled,
    ) -> Result<ServiceChange> {
        let service = self.project.service(name)?;
        let expected = usize::try_from(service.replicas()).unwrap_or(0);
        let (resolved, moved) = resolve(service, settled);
        let hash = resolved.hash();
        let judge = |container: &ContainerSummary| -> Option<Vec<Reason>> {
            let mut reasons = self.obsolete(name, service, container, &hash, moved.is_some());
            if let (Some(reasons), Some(other)) = (&mut reasons, &moved) {
                reasons.push(Reason::event(format!("it shares with service {other}, which is made anew")));
            }
            for key in service.networks.keys().filter(|key| networks.contains(*key)) {
                reasons.get_or_insert_default().push(Reason::event(format!("network {key} is made anew")));
            }
            for mount in service.volumes.iter().filter(|mount| volumes.contains(&mount.source)) {
                reasons
                    .get_or_insert_default()
                    .push(Reason::event(format!("volume {} is made anew", mount.source)));
            }
            reasons
        };
        let own = self
            .observed
            .containers
            .iter()
            .filter(|container| container.service() == name && !container.is_one_off());
        let mut judged: Vec<_> = own.map(|container| (container, judge(container))).collect();
        judged.sort_by_key(|(container, reasons)| (reasons.is_some(), container.number()));
        let next = judged.iter().map(|(container, _)| container.number()).max().unwrap_or(0) + 1;
        let mut containers = Vec::new();
        for (index, (container, reasons)) in judged.into_iter().enumerate() {
            let action = match reasons {
                _ if index >= expected => Action::Remove(format!("service {name} has {expected} containers")),
                Some(_) if self.awaiting.contains_key(name) => {
                    Action::AwaitImage(self.awaiting[name].clone())
                }
                Some(reasons) => Action::Recreate(reasons),
                None if self.awaiting.contains_key(name) => Action::AwaitImage(self.awaiting[name].clone()),
                None if container.state == "running" => Action::Keep,
                None => Action::Start,
            };
            containers.push(change(container, action));
        }
        let there = containers.len();
        for offset in 0..expected.saturating_sub(there) {
            let number = next + u32::try_from(offset).unwrap_or(u32::MAX);
            let container = container_name(self.project, name, service, number, self.separator);
            containers.push(ContainerChange { name: container, id: None, number, action: Action::Create });
        }
        let stays = containers
            .iter()
            .all(|change| matches!(change.action, Action::Keep | Action::Start | Action::Remove(_)));
        let ids = containers.iter().filter(|change| !matches!(change.action, Action::Remove(_)));
        let mut ids: Vec<(String, String)> =
            ids.filter_map(|change| Some((change.name.clone(), change.id.clone()?))).collect();
        ids.sort();
        settled.insert(name.to_owned(), stays.then(|| ids.into_iter().map(|(_, id)| id).collect()));
        Ok(ServiceChange { service: name.to_owned(), containers })
    }

    /// Why a container must be made anew; nothing if it need not.
    fn obsolete(
        &self,
        name: &str,
        service: &Service,
        container: &ContainerSummary,
        hash: &str,
        moved: bool,
    ) -> Option<Vec<Reason>> {
        let policy = if self.targets.contains(name) { self.recreate } else { self.recreate_dependencies };
        match policy {
            Recreate::Never => return None,
            Recreate::Force => return Some(vec![Reason::event("asked for")]),
            Recreate::Diverged => {}
        }
        let mut reasons = Vec::new();
        if !moved && container.label(labels::CONFIG_HASH) != hash {
            reasons.push(Reason::event(reasons::CONFIGURATION));
        }
        let image = self.observed.images.get(&service.image_name(&self.project.name, name));
        let image = image.map_or("", |image| image.id.as_str());
        let before = container.label(labels::IMAGE);
        if before != image {
            reasons.push(Reason::field("image", short(before), short(image)));
        }
        if container.state == "running" {
            for key in service.networks.keys() {
                let Some(network) = self.project.networks.get(key) else { continue };
                let Some(found) = self.observed.networks.get(&network.name) else { continue };
                let connected =
                    container.network_settings.networks.values().any(|end| end.network_id == found.id);
                if !connected {
                    reasons.push(Reason::event(format!("it is not connected to network {}", network.name)));
                }
            }
        }
        for mount in
            service.volumes.iter().filter(|mount| mount.r#type == "volume" && !mount.source.is_empty())
        {
            let Some(volume) = self.project.volumes.get(&mount.source) else { continue };
            let mounted =
                container.mounts.iter().any(|there| there.kind == "volume" && there.name == volume.name);
            if !mounted {
                reasons.push(Reason::event(format!("volume {} is not mounted", volume.name)));
            }
        }
        (moved || !reasons.is_empty()).then_some(reasons)
    }

    /// Containers that stay but depend, with `restart: true`, on a service that is made anew.
    fn restart_dependents(&self, plan: &mut Plan) {
        let anew: Vec<String> = plan
            .services
            .iter()
            .filter(|service| {
                service.containers.iter().any(|change| matches!(change.action, Action::Recreate(_)))
            })
            .map(|service| service.service.clone())
            .collect();
        for name in anew {
            for dependent in self.project.dependents(&name, |dependency| dependency.restart) {
                let changes = plan.services.iter_mut().filter(|service| service.service == dependent);
                for change in changes.flat_map(|service| &mut service.containers) {
                    if change.action == Action::Keep {
                        change.action = Action::Restart(format!("service {name} is made anew"));
                    }
                }
            }
        }
    }
}

fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    match id.get(..12) {
        Some(short) => short,
        None if id.is_empty() => "none",
        None => id,
    }
}

fn change(container: &ContainerSummary, action: Action) -> ContainerChange {
    ContainerChange {
        name: container.short_name().to_owned(),
        id: Some(container.id.clone()),
        number: container.number(),
        action,
    }
}

/// Containers of a project whose service is not in the files; of those of `run`, the ones that have ended.
pub(crate) fn orphans<'a>(
    project: &'a Project,
    containers: &'a [ContainerSummary],
) -> impl Iterator<Item = &'a ContainerSummary> {
    containers.iter().filter(|container| {
        if container.is_one_off() {
            return matches!(container.state.as_str(), "exited" | "dead");
        }
        let service = container.service();
        !project.services.contains_key(service) && !project.disabled.contains_key(service)
    })
}

/// The name of a service's container.
pub(crate) fn container_name(
    project: &Project,
    name: &str,
    service: &Service,
    number: u32,
    separator: char,
) -> String {
    match service.container_name.as_str() {
        "" => format!("{}{separator}{name}{separator}{number}", project.name),
        own => own.to_owned(),
    }
}

/// A service with its references to other services' containers resolved, as far as those stay; otherwise also the
/// name of a service whose containers change.
fn resolve(service: &Service, settled: &Settled) -> (Service, Option<String>) {
    let mut resolved = service.clone();
    let moved = resolve_with(&mut resolved, |name| match settled.get(name) {
        Some(Some(ids)) if !ids.is_empty() => Ok(ids[0].clone()),
        _ => Err(name.to_owned()),
    });
    (resolved, moved.err())
}

/// Replaces references to services by what `id` gives for them.
pub(crate) fn resolve_with<E>(
    service: &mut Service,
    mut id: impl FnMut(&str) -> Result<String, E>,
) -> Result<(), E> {
    for from in &mut service.volumes_from {
        let mut parts = from.split(':');
        match parts.next().unwrap_or_default() {
            "container" => *from = parts.next().unwrap_or_default().to_owned(),
            name => {
                let mode = parts.next().map(|mode| format!(":{mode}")).unwrap_or_default();
                *from = id(name)? + &mode;
            }
        }
    }
    for mode in [&mut service.network_mode, &mut service.ipc, &mut service.pid] {
        if let Some(name) = mode.strip_prefix("service:") {
            *mode = format!("container:{}", id(name)?);
        }
    }
    Ok(())
}
