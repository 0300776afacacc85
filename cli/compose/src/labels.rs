//! Labels that docker compose writes on what it makes, and reads to find it again.

use std::collections::BTreeMap;

use berth_client::api::{Filters, container::ContainerSummary};

/// The version of docker compose whose labels, names and hashes these are.
pub const COMPOSE_VERSION: &str = "2.40.3";

pub(crate) const PROJECT: &str = "com.docker.compose.project";
pub(crate) const SERVICE: &str = "com.docker.compose.service";
pub(crate) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
pub(crate) const NUMBER: &str = "com.docker.compose.container-number";
pub(crate) const VOLUME: &str = "com.docker.compose.volume";
pub(crate) const NETWORK: &str = "com.docker.compose.network";
pub(crate) const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
pub(crate) const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
pub(crate) const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
pub(crate) const ONEOFF: &str = "com.docker.compose.oneoff";
pub(crate) const SLUG: &str = "com.docker.compose.slug";
pub(crate) const IMAGE: &str = "com.docker.compose.image";
pub(crate) const DEPENDENCIES: &str = "com.docker.compose.depends_on";
pub(crate) const VERSION: &str = "com.docker.compose.version";
pub(crate) const REPLACE: &str = "com.docker.compose.replace";

/// The prefix of all of them.
pub(crate) const PREFIX: &str = "com.docker.compose.";

/// Which containers of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneOff {
    /// Also those of `run`.
    Include,
    /// Not those of `run`.
    Exclude,
}

/// Filters for what belongs to a project.
pub(crate) fn of_project(project: &str) -> Filters {
    let mut filters = Filters::new();
    filters.add("label", format!("{PROJECT}={project}"));
    filters
}

/// A container as Compose sees it.
pub trait Labelled {
    /// Its name, without slash.
    fn short_name(&self) -> &str;
    /// The value of a label; empty if there is none.
    fn label(&self, label: &str) -> &str;
    /// Its service.
    fn service(&self) -> &str {
        self.label(SERVICE)
    }
    /// Its number within the service; 0 for one of `run`.
    fn number(&self) -> u32 {
        self.label(NUMBER).parse().unwrap_or(0)
    }
    /// Whether `run` made it.
    fn is_one_off(&self) -> bool {
        self.label(ONEOFF) == "True"
    }
    /// Its name without the project's, if the project gave it its name: `web-1`.
    fn log_name(&self) -> &str {
        let (project, name) = (self.label(PROJECT), self.short_name());
        let rest = name.strip_prefix(project).and_then(|rest| rest.strip_prefix(['-', '_']));
        match rest {
            Some(rest)
                if self.number() > 0 && rest.len() == self.service().len() + 1 + self.label(NUMBER).len() =>
            {
                rest
            }
            _ => name,
        }
    }
}

impl Labelled for ContainerSummary {
    fn short_name(&self) -> &str {
        // Names of links have a second slash.
        let own = self.names.iter().find(|name| name.rfind('/') == Some(0)).or(self.names.first());
        own.map_or(self.id.get(..12).unwrap_or(&self.id), |name| name.trim_start_matches('/'))
    }

    fn label(&self, label: &str) -> &str {
        self.labels.get(label).map_or("", String::as_str)
    }
}

/// Labels of one map on top of another's.
pub(crate) fn merged(
    base: &BTreeMap<String, String>,
    over: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    base.clone().into_iter().chain(over).collect()
}
