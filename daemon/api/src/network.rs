//! Networks and endpoints.

use std::collections::BTreeMap;

use crate::wire::{Time, is_default};

wire! {
    /// Endpoints to make for a new container.
    pub struct NetworkingConfig {
        /// Network → settings; `null` settings are defaults.
        pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// A container's endpoint in a network: what was asked for and what was given.
    pub struct EndpointSettings {
        /// Requested addresses.
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpamConfig>,
        /// Links to other containers of the network.
        pub links: Option<Vec<String>>,
        /// Further names.
        pub aliases: Option<Vec<String>>,
        /// Options of the network driver.
        pub driver_opts: Option<BTreeMap<String, String>>,
        /// The highest one gives the default gateway.
        pub gw_priority: i64,
        /// Network's id.
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        /// Endpoint's id; empty when the container does not run.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Gateway.
        pub gateway: String,
        /// Address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Hardware address; on input the wanted one.
        pub mac_address: String,
        /// Length of the address's prefix.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: u8,
        /// IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Length of the IPv6 address's prefix.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: u8,
        /// Names that resolve to the container.
        #[serde(rename = "DNSNames")]
        pub dns_names: Option<Vec<String>>,
    }

    /// Requested addresses of an endpoint.
    pub struct EndpointIpamConfig {
        /// IPv4 address.
        #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
        pub ipv4_address: String,
        /// IPv6 address.
        #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
        pub ipv6_address: String,
        /// Link-local addresses.
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Option::is_none")]
        pub link_local_ips: Option<Vec<String>>,
    }

    /// A network.
    pub struct Network {
        /// Name.
        pub name: String,
        /// Id, 64 hex digits.
        pub id: String,
        /// When it was made.
        pub created: Time,
        /// `local`.
        pub scope: String,
        /// Driver.
        pub driver: String,
        /// Whether it has IPv4.
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: bool,
        /// Whether it has IPv6.
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        /// Whether it has no way out.
        pub internal: bool,
        /// Swarm only.
        pub attachable: bool,
        /// Swarm only.
        pub ingress: bool,
        /// Network that gives the configuration.
        pub config_from: ConfigReference,
        /// Whether it only gives its configuration to others.
        pub config_only: bool,
        /// Containers by id; only in inspect (`None` in lists).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub containers: Option<BTreeMap<String, EndpointResource>>,
        /// Options of the driver.
        pub options: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// How full it is; only in inspect (API 1.52).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub status: Option<NetworkStatus>,
    }

    /// How full a network is.
    pub struct NetworkStatus {
        /// Of its addresses.
        #[serde(rename = "IPAM")]
        pub ipam: IpamStatus,
    }

    /// How many addresses of a network are taken.
    pub struct IpamStatus {
        /// By subnet.
        pub subnets: BTreeMap<String, SubnetStatus>,
    }

    /// How many addresses of a subnet are taken.
    pub struct SubnetStatus {
        /// Taken ones, those that the network itself needs included.
        #[serde(rename = "IPsInUse")]
        pub ips_in_use: u64,
        /// Those that containers can still get without asking for one.
        #[serde(rename = "DynamicIPsAvailable")]
        pub dynamic_ips_available: u64,
    }

    /// Address management of a network.
    pub struct Ipam {
        /// Driver; empty is `default`.
        pub driver: String,
        /// Options of the driver.
        pub options: Option<BTreeMap<String, String>>,
        /// Pools; `None` lets the engine choose.
        pub config: Option<Vec<IpamConfig>>,
    }

    /// One pool of addresses.
    pub struct IpamConfig {
        /// The subnet in CIDR form.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub subnet: String,
        /// Part of the subnet from which addresses are drawn.
        #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
        pub ip_range: String,
        /// Gateway.
        #[serde(skip_serializing_if = "String::is_empty")]
        pub gateway: String,
        /// Addresses not to use: name → address.
        #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "Option::is_none")]
        pub aux_addresses: Option<BTreeMap<String, String>>,
    }

    /// Name of the network that gives the configuration.
    pub struct ConfigReference {
        /// Its name.
        pub network: String,
    }

    /// One container in a network.
    pub struct EndpointResource {
        /// Container's name.
        pub name: String,
        /// Endpoint's id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Hardware address.
        pub mac_address: String,
        /// Address in CIDR form.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        /// IPv6 address in CIDR form.
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }

    /// Body of `POST /networks/create`.
    pub struct NetworkCreateRequest {
        /// Name.
        pub name: String,
        /// Of no effect: names are unique since API 1.44.
        #[serde(skip_serializing_if = "is_default")]
        pub check_duplicate: bool,
        /// Driver; empty is `bridge`.
        pub driver: String,
        /// `local` or empty.
        pub scope: String,
        /// Whether to have IPv4; `None` is yes.
        #[serde(rename = "EnableIPv4", skip_serializing_if = "Option::is_none")]
        pub enable_ipv4: Option<bool>,
        /// Whether to have IPv6; `None` takes the daemon's default.
        #[serde(rename = "EnableIPv6", skip_serializing_if = "Option::is_none")]
        pub enable_ipv6: Option<bool>,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        /// Whether to have no way out.
        pub internal: bool,
        /// Swarm only.
        pub attachable: bool,
        /// Swarm only.
        pub ingress: bool,
        /// Whether it only gives its configuration to others.
        pub config_only: bool,
        /// Network that gives the configuration.
        pub config_from: Option<ConfigReference>,
        /// Options of the driver.
        pub options: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }

    /// Answer of `POST /networks/create`.
    pub struct NetworkCreateResponse {
        /// Id.
        pub id: String,
        /// What was accepted but not done as asked.
        pub warning: String,
    }

    /// Body of `POST /networks/{id}/connect`.
    pub struct NetworkConnectRequest {
        /// Container, by name or id.
        pub container: String,
        /// Settings of the endpoint.
        pub endpoint_config: Option<EndpointSettings>,
    }

    /// Body of `POST /networks/{id}/disconnect`.
    pub struct NetworkDisconnectRequest {
        /// Container, by name or id.
        pub container: String,
        /// Whether to disconnect a container that is gone.
        pub force: bool,
    }

    /// Answer of `POST /networks/prune`.
    pub struct PruneNetworksResponse {
        /// Names of the removed networks.
        pub networks_deleted: Option<Vec<String>>,
    }
}
