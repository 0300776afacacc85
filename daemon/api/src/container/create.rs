//! Bodies of create, update, wait, top, changes and prune.

use serde::{Deserialize, Serialize};

use super::{ContainerConfig, HostConfig, Resources, RestartPolicy};
use crate::network::NetworkingConfig;

wire! {
    /// Body of `POST /containers/create`.
    pub struct CreateRequest {
        /// The host's half; absent is all defaults.
        pub host_config: Option<HostConfig>,
        /// Endpoints to make.
        pub networking_config: Option<NetworkingConfig>,
    }
    flatten {
        /// The portable half.
        pub config: ContainerConfig,
    }

    /// Answer of `POST /containers/create`.
    pub struct CreateResponse {
        /// The container's id.
        pub id: String,
        /// What was accepted but not done as asked.
        pub warnings: Vec<String>,
    }

    /// Body of `POST /containers/{id}/update`.
    pub struct UpdateRequest {
        /// New restart policy; an empty name leaves the old one.
        pub restart_policy: RestartPolicy,
    }
    flatten {
        /// New limits; zero values leave the old ones.
        pub resources: Resources,
    }

    /// Answer of `POST /containers/{id}/update`.
    pub struct UpdateResponse {
        /// What was accepted but not done as asked.
        pub warnings: Option<Vec<String>>,
    }

    /// Answer of `POST /containers/{id}/wait`.
    pub struct WaitResponse {
        /// Exit code.
        pub status_code: i64,
        /// Why waiting itself failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
    }

    /// Why waiting failed.
    pub struct WaitError {
        /// For the user.
        pub message: String,
    }

    /// Answer of `GET /containers/{id}/top`.
    pub struct TopResponse {
        /// One row per process.
        pub processes: Vec<Vec<String>>,
        /// The columns' names.
        pub titles: Vec<String>,
    }

    /// Answer of `POST /containers/prune`.
    pub struct PruneContainersResponse {
        /// Ids of the removed containers.
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes freed.
        pub space_reclaimed: u64,
    }
}

/// One line of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FilesystemChange {
    /// Path in the container.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}
