//! Containers of `run`: one of a service, for one command.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_client::api::ApiVersion;
use sha2::{Digest, Sha256};

use super::{Engine, create::links, resources::service_labels};
use crate::{
    Result,
    error::Error,
    files, labels,
    model::{Command, Project},
    observe,
    plan::resolve_with,
    request::Wanted,
};

/// What `run` changes about its service.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Service.
    pub service: String,
    /// Command; none is the service's.
    pub command: Vec<String>,
    /// Entrypoint; `None` is the service's.
    pub entrypoint: Option<Vec<String>>,
    /// Name of the container.
    pub name: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Variables, `NAME=value` or a `NAME` of the project's environment.
    pub environment: Vec<String>,
    /// Labels, `name=value`.
    pub labels: Vec<String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Terminal.
    pub tty: bool,
    /// Whether stdin stays open.
    pub interactive: bool,
    /// Whether the container goes when it ends.
    pub remove: bool,
    /// Whether the service's names lead to it.
    pub aliases: bool,
    /// Whether what it depends on must be as `depends_on` says first.
    pub wait: bool,
}

impl Engine {
    /// Makes the container; answers its id. Dependencies are the caller's, images too.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn create_one_off(&self, project: &Project, options: &RunOptions) -> Result<String> {
        let name = options.service.as_str();
        let mut service = project.service(name)?.clone();
        change(&mut service, project, options);
        let observed = observe::observe(&self.client, project).await?;
        let existing = self.existing(project).await?;
        if options.wait {
            self.wait_dependencies(project, name, &service.depends_on, &existing).await?;
        }
        resolve_with(&mut service, |other| {
            match existing.get(other).and_then(|containers| containers.first()) {
                Some(first) => Ok(first.id.clone()),
                None => {
                    Err(Error::service(name, format!("cannot share with service {other}: container missing")))
                }
            }
        })?;
        let slug = slug(&project.name, name);
        let separator = self.separator;
        if service.container_name.is_empty() {
            let short = slug.get(..12).unwrap_or(&slug);
            service.container_name =
                format!("{}{separator}{name}{separator}run{separator}{short}", project.name);
        }
        service.scale = Some(1);
        service.restart.clear();
        if let Some(deploy) = &mut service.deploy {
            deploy.restart_policy = None;
        }
        let image = observed.images.get(&service.image_name(&project.name, name));
        let mut own = service_labels(project, name, image.map(|image| image.id.as_str()));
        own.insert(labels::SLUG.to_owned(), slug);
        own.insert(labels::ONEOFF.to_owned(), "True".to_owned());
        let links = links(self, project, &service, &existing);
        let wanted = Wanted {
            project,
            name,
            service: &service,
            number: 0,
            container: service.container_name.clone(),
            labels: own,
            links,
            aliases: options.aliases,
            attach_stdin: options.interactive,
            auto_remove: options.remove,
            inherit: None,
            api: observed.api.unwrap_or(ApiVersion::MAX),
            secrets: observed.secrets,
        };
        let id = self.create_container(&wanted, &service.container_name).await?;
        files::inject(&self.client, project, name, &service, &id).await?;
        Ok(id)
    }
}

fn change(service: &mut crate::model::Service, project: &Project, options: &RunOptions) {
    service.tty = options.tty;
    service.stdin_open = options.interactive;
    service.container_name = options.name.clone().unwrap_or_default();
    if !options.command.is_empty() {
        service.command.0 = Some(Command(options.command.clone()));
    }
    if let Some(entrypoint) = &options.entrypoint {
        service.entrypoint.0 = Some(Command(entrypoint.clone()));
        if options.command.is_empty() {
            service.command.0 = Some(Command::default());
        }
    }
    service.user = options.user.clone().unwrap_or_else(|| std::mem::take(&mut service.user));
    service.working_dir = options.workdir.clone().unwrap_or_else(|| std::mem::take(&mut service.working_dir));
    if !options.cap_add.is_empty() {
        service.cap_drop.retain(|capability| !options.cap_add.contains(capability));
        service.cap_add.extend(options.cap_add.iter().cloned());
    }
    if !options.cap_drop.is_empty() {
        service.cap_add.retain(|capability| !options.cap_drop.contains(capability));
        service.cap_drop.extend(options.cap_drop.iter().cloned());
    }
    for variable in &options.environment {
        match variable.split_once('=') {
            Some((name, value)) => drop(service.environment.insert(name.to_owned(), Some(value.to_owned()))),
            None => {
                if let Some(value) = project.environment.get(variable) {
                    service.environment.insert(variable.clone(), Some(value.clone()));
                }
            }
        }
    }
    for label in &options.labels {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        service.labels.insert(name.to_owned(), value.to_owned());
    }
}

/// 64 hex digits that nobody else has.
fn slug(project: &str, service: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    hex::encode(Sha256::digest(format!("{project} {service} {now} {}", std::process::id())))
}
