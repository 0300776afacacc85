//! What is kept of a container: what was asked for and what became of it.

use std::collections::BTreeMap;

use berth_api::container::{ContainerConfig, Health, HostConfig};
use berth_api::network::EndpointSettings;
use berth_network::{Endpoint, PublishedPort};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::links::Link;
use super::machine::Phase;
use super::mounts::MountPlan;

/// What was asked for, resolved against the image. Changes by rename, update and network connect only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: String,
    /// Without leading slash.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// `sha256:…`
    pub(crate) image_id: String,
    /// Merged with the image's configuration.
    pub(crate) config: ContainerConfig,
    pub(crate) host: HostConfig,
    /// Network name → wishes.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    pub(crate) mounts: Vec<MountPlan>,
    /// Links on the default bridge.
    #[serde(default)]
    pub(crate) links: Vec<Link>,
}

impl Definition {
    /// Program and arguments: entrypoint, then command.
    pub(crate) fn command(&self) -> (String, Vec<String>) {
        let words = self.config.entrypoint.iter().flatten().chain(self.config.cmd.iter().flatten());
        let mut words = words.cloned();
        (words.next().unwrap_or_default(), words.collect())
    }

    /// A host name as hostname(7) allows; the network mode `host` shares the host's instead.
    pub(crate) fn hostname(&self) -> &str {
        &self.config.hostname
    }

    /// The other container whose network this one shares.
    pub(crate) fn network_donor(&self) -> Option<&str> {
        self.host.network_mode.strip_prefix("container:")
    }

    pub(crate) fn has_host_network(&self) -> bool {
        self.host.network_mode == "host"
    }
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    /// Init's pid; 0 if there is none.
    pub(crate) pid: i32,
    pub(crate) exit_code: i32,
    /// Why the last start failed.
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    /// Restarts by policy since the last start by a user.
    pub(crate) restart_count: i64,
    /// Ends in a row that the policy answered quickly; they lengthen the pause.
    pub(crate) quick_failures: u32,
    /// A user stopped it: the restart policy rests until the next start.
    pub(crate) manually_stopped: bool,
    /// It was started once: its generated files exist.
    pub(crate) ever_started: bool,
    /// Network name → endpoint, while it runs.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// How its check says it is; none without a check.
    pub(crate) health: Option<Health>,
    /// Ends so far; waiters count them.
    pub(crate) ends: u64,
    /// It is gone. (Never written: the row is deleted.)
    #[serde(skip)]
    pub(crate) removed: bool,
    /// Why its removal failed.
    #[serde(skip)]
    pub(crate) removal_error: Option<String>,
}

impl Status {
    /// All published ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &PublishedPort> {
        self.endpoints.values().flat_map(|endpoint| &endpoint.ports)
    }
}
