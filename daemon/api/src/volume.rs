//! Volumes.

use std::collections::BTreeMap;

use crate::wire::Time;

wire! {
    /// A volume.
    pub struct Volume {
        /// When it was made.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub created_at: Option<Time>,
        /// Driver.
        pub driver: String,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Path on the host.
        pub mountpoint: String,
        /// Name.
        pub name: String,
        /// Options of the driver.
        pub options: Option<BTreeMap<String, String>>,
        /// `local`.
        pub scope: String,
        /// What the driver tells.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<BTreeMap<String, serde_json::Value>>,
        /// Use of it; only in `system df`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<VolumeUsage>,
    }

    /// Use of a volume.
    pub struct VolumeUsage {
        /// Containers that refer to it; -1 when not counted.
        pub ref_count: i64,
        /// Bytes; -1 when not counted.
        pub size: i64,
    }

    /// Answer of `GET /volumes`.
    pub struct VolumeList {
        /// The volumes.
        pub volumes: Vec<Volume>,
        /// Drivers that did not answer.
        pub warnings: Option<Vec<String>>,
    }

    /// Body of `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        /// Name; empty makes an anonymous volume.
        pub name: String,
        /// Driver; empty is `local`.
        pub driver: String,
        /// Options of the driver; engines tell an empty map from none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
    }

    /// Answer of `POST /volumes/prune`.
    pub struct PruneVolumesResponse {
        /// Names of the removed volumes.
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes freed.
        pub space_reclaimed: u64,
    }
}
