//! The plan: what `up` will do, and why, as a value.
//!
//! It is made of the project and of what the engine has, and of nothing else; `up` does what the plan says, and
//! `up --dry-run` prints it.

mod planner;
mod reasons;
mod show;

pub use planner::{Planner, Recreate};
pub(crate) use planner::{container_name, orphans, resolve_with};

/// What is to be done for a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Networks.
    pub networks: Vec<ResourceChange>,
    /// Volumes.
    pub volumes: Vec<ResourceChange>,
    /// Containers of services that are no longer in the files, by name.
    pub orphans: Vec<ContainerChange>,
    /// Services, each after those it depends on.
    pub services: Vec<ServiceChange>,
}

/// What is to be done with a network or a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceChange {
    /// Its key in the files.
    pub key: String,
    /// Its name on the engine.
    pub name: String,
    /// What is done.
    pub action: ResourceAction,
}

/// What is done with a network or a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceAction {
    /// Nothing: it is there as it should be.
    Keep,
    /// It is made.
    Create,
    /// It is removed and made anew.
    Recreate(Vec<Reason>),
    /// Nothing, though it is not as it should be.
    KeepDiverged(String),
}

/// What is to be done with a service's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub service: String,
    /// Its containers.
    pub containers: Vec<ContainerChange>,
}

/// What is to be done with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerChange {
    /// Its name.
    pub name: String,
    /// Its id, if it exists.
    pub id: Option<String>,
    /// Its number in the service.
    pub number: u32,
    /// What is done.
    pub action: Action,
}

/// What is done with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it runs as it should.
    Keep,
    /// It is started (if the command starts anything).
    Start,
    /// It is stopped and started, because what it depends on is made anew.
    Restart(String),
    /// It is made, and started.
    Create,
    /// It is made anew, and started.
    Recreate(Vec<Reason>),
    /// It is stopped and removed.
    Remove(String),
    /// Not known yet: its image is built or pulled first.
    AwaitImage(String),
}

/// Why something is made anew: a field that has changed, or something else that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The field, or what has happened.
    pub what: String,
    /// Before and after, for a field.
    pub change: Option<(String, String)>,
}

impl Reason {
    pub(crate) fn event(what: impl Into<String>) -> Self {
        Self { what: what.into(), change: None }
    }

    pub(crate) fn field(
        what: impl Into<String>,
        before: impl Into<String>,
        after: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), change: Some((before.into(), after.into())) }
    }
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let kept = |change: &ResourceChange| {
            matches!(change.action, ResourceAction::Keep | ResourceAction::KeepDiverged(_))
        };
        self.networks.iter().chain(&self.volumes).all(kept)
            && self.orphans.is_empty()
            && self
                .services
                .iter()
                .flat_map(|service| &service.containers)
                .all(|change| change.action == Action::Keep)
    }

    /// The ids of containers that will be made anew.
    pub(crate) fn recreated(&self) -> impl Iterator<Item = &str> {
        let changes = self.services.iter().flat_map(|service| &service.containers);
        changes
            .filter(|change| matches!(change.action, Action::Recreate(_)))
            .filter_map(|change| change.id.as_deref())
    }
}
