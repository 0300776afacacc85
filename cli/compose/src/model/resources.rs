//! Networks, volumes, configs, secrets, models.

use super::Pairs;

record! {
    /// A network.
    Network {
        /// Its name on the engine.
        name: String,
        /// Driver.
        driver: String,
        /// Driver options.
        driver_opts: Pairs,
        /// Addresses.
        ipam: Ipam,
        /// Made by others.
        external: bool,
        /// No way out.
        internal: bool,
        /// Cluster only.
        attachable: bool,
        /// Labels.
        labels: Pairs,
        /// IPv4.
        enable_ipv4: Option<bool>,
        /// IPv6.
        enable_ipv6: Option<bool>,
    }

    /// Addresses of a network.
    Ipam {
        /// Driver.
        driver: String,
        /// Pools.
        config: Vec<IpamPool>,
    }

    /// A pool of addresses.
    IpamPool {
        /// Subnet.
        subnet: String,
        /// Gateway.
        gateway: String,
        /// Part from which addresses are drawn.
        ip_range: String,
        /// Addresses not to use.
        aux_addresses: Pairs,
    }

    /// A volume.
    Volume {
        /// Its name on the engine.
        name: String,
        /// Driver.
        driver: String,
        /// Driver options.
        driver_opts: Pairs,
        /// Made by others.
        external: bool,
        /// Labels.
        labels: Pairs,
    }

    /// A config or secret.
    FileObject {
        /// Name.
        name: String,
        /// File on this machine.
        file: String,
        /// Variable with the content.
        environment: String,
        /// The content itself.
        content: String,
        /// Made by others (cluster only).
        external: bool,
        /// Labels.
        labels: Pairs,
        /// Driver (cluster only).
        driver: String,
        /// Driver options.
        driver_opts: Pairs,
        /// Template driver (cluster only).
        template_driver: String,
    }

    /// A model.
    Model {
        /// Name.
        name: String,
        /// Model.
        model: String,
        /// Size of the context.
        context_size: i64,
        /// Flags of the runtime.
        runtime_flags: Vec<String>,
    }
}
