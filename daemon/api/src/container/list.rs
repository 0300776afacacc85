//! Answer of `GET /containers/json`.

use std::collections::BTreeMap;

use super::MountPoint;
use crate::{image::Descriptor, network::EndpointSettings, wire::is_default};

wire! {
    /// One line of `docker ps`.
    pub struct ContainerSummary {
        /// Id.
        pub id: String,
        /// Name with a leading slash, then link names.
        pub names: Vec<String>,
        /// Image as typed, or its id when the name now means another image.
        pub image: String,
        /// Image id.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Manifest of the image (API 1.48).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image_manifest_descriptor: Option<Descriptor>,
        /// Command line, joined by blanks.
        pub command: String,
        /// Unix seconds.
        pub created: i64,
        /// Ports.
        pub ports: Vec<PortSummary>,
        /// Bytes in the writable layer (with `size=1`).
        #[serde(skip_serializing_if = "is_default")]
        pub size_rw: i64,
        /// Bytes in all layers (with `size=1`).
        #[serde(skip_serializing_if = "is_default")]
        pub size_root_fs: i64,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// State, `running`.
        pub state: String,
        /// For people, `Up 5 seconds (healthy)`.
        pub status: String,
        /// Part of the host configuration.
        pub host_config: HostConfigSummary,
        /// Result of the health checks (API 1.52).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub health: Option<HealthSummary>,
        /// Endpoints.
        pub network_settings: NetworkSettingsSummary,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
    }

    /// The health checks' part in a list.
    pub struct HealthSummary {
        /// `none`, `starting`, `healthy`, `unhealthy`.
        pub status: String,
        /// Failures in a row.
        pub failing_streak: i64,
    }

    /// The host configuration's part in a list.
    pub struct HostConfigSummary {
        /// Network mode.
        pub network_mode: String,
        /// Annotations.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub annotations: Option<BTreeMap<String, String>>,
    }

    /// The network settings' part in a list.
    pub struct NetworkSettingsSummary {
        /// Network name → endpoint.
        pub networks: BTreeMap<String, EndpointSettings>,
    }

    /// One port in a list.
    pub struct PortSummary {
        /// Host address; absent when not published.
        #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
        pub ip: String,
        /// Port in the container.
        pub private_port: u16,
        /// Port on the host; absent when not published.
        #[serde(skip_serializing_if = "is_default")]
        pub public_port: u16,
        /// `tcp`, `udp`, `sctp`.
        #[serde(rename = "Type")]
        pub kind: String,
    }
}
