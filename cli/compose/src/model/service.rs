//! A service.

use std::collections::BTreeMap;

use super::{
    Always, Build, Bytes, Command, Deploy, Develop, DeviceRequest, Duration, EnvFile, FileReference, Float,
    HealthTest, Hook, Hosts, Mount, Pairs, Strings, Ulimit, Variables,
};

/// Services by name.
pub type Services = BTreeMap<String, Service>;

/// A command that is written even when there is none: none leaves the image's, an empty one clears it.
pub type MaybeCommand = Always<Option<Command>>;

record! {
    /// One service: what its containers are made of.
    Service {
        /// Profiles that enable it; none is always enabled.
        profiles: Vec<String>,
        /// Annotations for the OCI runtime.
        annotations: Pairs,
        /// Whether `up` shows its output.
        attach: Option<bool>,
        /// How its image is built.
        build: Option<Build>,
        /// What `watch` does.
        develop: Option<Develop>,
        /// Block I/O limits.
        blkio_config: Option<Blkio>,
        /// Capabilities to add.
        cap_add: Vec<String>,
        /// Capabilities to drop.
        cap_drop: Vec<String>,
        /// Parent cgroup.
        cgroup_parent: String,
        /// Cgroup namespace: `host` or `private`.
        cgroup: String,
        /// Number of CPUs (Windows).
        cpu_count: i64,
        /// Share of the CPUs (Windows).
        cpu_percent: Float,
        /// CFS period in µs.
        cpu_period: i64,
        /// CFS quota in µs.
        cpu_quota: i64,
        /// Real-time period in µs.
        cpu_rt_period: i64,
        /// Real-time run time in µs.
        cpu_rt_runtime: i64,
        /// CPUs it may use up.
        cpus: Float,
        /// CPUs it may run on.
        cpuset: String,
        /// Relative weight.
        cpu_shares: i64,
        /// Command.
        command: MaybeCommand,
        /// Configs it is granted.
        configs: Vec<FileReference>,
        /// Name of its only container.
        container_name: String,
        /// Managed service account (Windows).
        credential_spec: Option<CredentialSpec>,
        /// What must be there before it.
        depends_on: BTreeMap<String, Dependency>,
        /// Replicas, limits, restarts.
        deploy: Option<Deploy>,
        /// Device cgroup rules.
        device_cgroup_rules: Vec<String>,
        /// Devices.
        devices: Vec<Device>,
        /// Name servers.
        dns: Strings,
        /// Resolver options.
        dns_opt: Vec<String>,
        /// Search domains.
        dns_search: Strings,
        /// Domain name.
        domainname: String,
        /// Entrypoint.
        entrypoint: MaybeCommand,
        /// A provider that is asked instead of the engine.
        provider: Option<Provider>,
        /// Variables.
        environment: Variables,
        /// Files of variables.
        env_file: Vec<EnvFile>,
        /// Ports it listens on.
        expose: Strings,
        /// Links to containers of others.
        external_links: Vec<String>,
        /// Additional names.
        extra_hosts: Hosts,
        /// Additional groups.
        group_add: Vec<String>,
        /// GPUs.
        gpus: Vec<DeviceRequest>,
        /// Host name.
        hostname: String,
        /// Health check.
        healthcheck: Option<HealthCheck>,
        /// Image.
        image: String,
        /// Whether an init process runs first.
        init: Option<bool>,
        /// IPC namespace.
        ipc: String,
        /// Isolation (Windows).
        isolation: String,
        /// Labels.
        labels: Pairs,
        /// Files of labels.
        label_file: Vec<String>,
        /// Links to services.
        links: Vec<String>,
        /// Log driver.
        logging: Option<Logging>,
        /// Memory limit.
        mem_limit: Bytes,
        /// Soft memory limit.
        mem_reservation: Bytes,
        /// Memory plus swap.
        memswap_limit: Bytes,
        /// Swappiness.
        mem_swappiness: Bytes,
        /// Hardware address.
        mac_address: String,
        /// Models.
        models: BTreeMap<String, Option<ServiceModel>>,
        /// Network mode.
        network_mode: String,
        /// Networks.
        networks: BTreeMap<String, Option<ServiceNetwork>>,
        /// Whether the OOM killer spares it.
        oom_kill_disable: bool,
        /// OOM score adjustment.
        oom_score_adj: i64,
        /// PID namespace.
        pid: String,
        /// Number of processes.
        pids_limit: i64,
        /// Platform.
        platform: String,
        /// Published ports.
        ports: Vec<Port>,
        /// All privileges.
        privileged: bool,
        /// When to pull.
        pull_policy: String,
        /// Read-only root.
        read_only: bool,
        /// Restart policy.
        restart: String,
        /// OCI runtime.
        runtime: String,
        /// Number of containers.
        scale: Option<i64>,
        /// Secrets it is granted.
        secrets: Vec<FileReference>,
        /// Security options.
        security_opt: Vec<String>,
        /// Size of /dev/shm.
        shm_size: Bytes,
        /// Whether stdin stays open.
        stdin_open: bool,
        /// Time between the stop signal and SIGKILL.
        stop_grace_period: Option<Duration>,
        /// Stop signal.
        stop_signal: String,
        /// Options of the storage driver.
        storage_opt: Pairs,
        /// Kernel parameters.
        sysctls: Pairs,
        /// tmpfs mounts.
        tmpfs: Strings,
        /// Whether it has a terminal.
        tty: bool,
        /// Resource limits.
        ulimits: BTreeMap<String, Ulimit>,
        /// Whether it is handed the engine's socket.
        use_api_socket: bool,
        /// User.
        user: String,
        /// User namespace.
        userns_mode: String,
        /// UTS namespace.
        uts: String,
        /// Mounts.
        volumes: Vec<Mount>,
        /// Containers and services whose volumes it mounts.
        volumes_from: Vec<String>,
        /// Working directory.
        working_dir: String,
        /// Commands after the start.
        post_start: Vec<Hook>,
        /// Commands before the stop.
        pre_stop: Vec<Hook>,
    }

    /// A provider that is asked instead of the engine.
    Provider {
        /// Its name.
        r#type: String,
        /// Options.
        options: BTreeMap<String, Strings>,
    }

    /// What must be there before a service.
    Dependency {
        /// `service_started`, `service_healthy`, `service_completed_successfully`.
        condition: String,
        /// Whether the service restarts when this one is made anew.
        restart: bool,
        /// Whether the service can do without.
        required: Always<bool>,
    }

    /// Block I/O limits.
    Blkio {
        /// Weight.
        weight: u16,
        /// Weights per device.
        weight_device: Vec<DeviceWeight>,
        /// Read limits in bytes.
        device_read_bps: Vec<DeviceRate>,
        /// Read limits in operations.
        device_read_iops: Vec<DeviceRate>,
        /// Write limits in bytes.
        device_write_bps: Vec<DeviceRate>,
        /// Write limits in operations.
        device_write_iops: Vec<DeviceRate>,
    }

    /// Weight of one device. (The large letters are docker compose's.)
    DeviceWeight {
        /// Path.
        #[serde(rename(serialize = "Path"))]
        path: Always<String>,
        /// Weight.
        #[serde(rename(serialize = "Weight"))]
        weight: Always<u16>,
    }

    /// Rate of one device.
    DeviceRate {
        /// Path.
        #[serde(rename(serialize = "Path"))]
        path: Always<String>,
        /// Rate.
        #[serde(rename(serialize = "Rate"))]
        rate: Always<Bytes>,
    }

    /// Managed service account (Windows).
    CredentialSpec {
        /// Config.
        config: String,
        /// File.
        file: String,
        /// Registry.
        registry: String,
    }

    /// A device of the host.
    Device {
        /// Path on the host.
        source: String,
        /// Path in the container.
        target: String,
        /// Any of `rwm`.
        permissions: String,
    }

    /// A health check.
    HealthCheck {
        /// Command.
        test: HealthTest,
        /// Time after which a check has failed.
        timeout: Option<Duration>,
        /// Time between checks.
        interval: Option<Duration>,
        /// Failures in a row that count.
        retries: Option<u64>,
        /// Time during which failures do not count.
        start_period: Option<Duration>,
        /// Time between checks then.
        start_interval: Option<Duration>,
        /// No check, not even the image's.
        disable: bool,
    }

    /// Log driver.
    Logging {
        /// Driver.
        driver: String,
        /// Options.
        options: Pairs,
    }

    /// A model a service uses.
    ServiceModel {
        /// Variable with the endpoint.
        endpoint_var: String,
        /// Variable with the model.
        model_var: String,
    }

    /// A service's endpoint in a network.
    ServiceNetwork {
        /// Further names.
        aliases: Vec<String>,
        /// Driver options.
        driver_opts: Pairs,
        /// The highest one gives the default gateway.
        gw_priority: i64,
        /// Interface's name.
        interface_name: String,
        /// Address.
        ipv4_address: String,
        /// IPv6 address.
        ipv6_address: String,
        /// Link-local addresses.
        link_local_ips: Vec<String>,
        /// Hardware address.
        mac_address: String,
        /// The highest one is connected first.
        priority: i64,
    }

    /// A published port.
    Port {
        /// Name.
        name: String,
        /// `ingress` or `host`.
        mode: String,
        /// Host address.
        host_ip: String,
        /// Port in the container.
        target: u32,
        /// Port or range on the host.
        published: String,
        /// `tcp`, `udp`, `sctp`.
        protocol: String,
        /// What is spoken there.
        app_protocol: String,
    }
}

impl Service {
    /// How many containers it has.
    #[must_use]
    pub fn replicas(&self) -> i64 {
        let deployed = || self.deploy.as_ref().and_then(|deploy| deploy.replicas);
        self.scale.or_else(deployed).unwrap_or(1)
    }

    /// Sets how many containers it has.
    pub fn set_replicas(&mut self, replicas: i64) {
        self.scale = Some(replicas);
        if let Some(deploy) = &mut self.deploy {
            deploy.replicas = Some(replicas);
        }
    }

    /// Publishes more ports, given in the short form.
    ///
    /// # Errors
    /// What is wrong with one, for people.
    pub fn add_ports(&mut self, ports: &[String]) -> Result<(), String> {
        for port in ports {
            self.ports.extend(crate::load::short_ports(port)?);
        }
        Ok(())
    }

    /// Mounts more volumes, given in the short form; one at the same place is replaced.
    ///
    /// # Errors
    /// What is wrong with one, for people.
    pub fn add_volumes(&mut self, volumes: &[String]) -> Result<(), String> {
        for volume in volumes {
            let mount = crate::load::short_mount(volume)?;
            self.volumes.retain(|other| other.target != mount.target);
            self.volumes.push(mount);
        }
        Ok(())
    }

    /// Its networks, the most important first.
    #[must_use]
    pub fn networks_by_priority(&self) -> Vec<&str> {
        let priority = |name: &str| match self.networks.get(name) {
            Some(Some(network)) => network.priority,
            _ => 0,
        };
        let mut names: Vec<&str> = self.networks.keys().map(String::as_str).collect();
        names.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        names
    }

    /// Whether one of the profiles enables it.
    #[must_use]
    pub fn has_profile(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty()
            || profiles.iter().any(|profile| profile == "*" || self.profiles.contains(profile))
    }

    /// Its image: the one it names, or that of its build.
    #[must_use]
    pub fn image_name(&self, project: &str, name: &str) -> String {
        if self.image.is_empty() { format!("{project}-{name}") } else { self.image.clone() }
    }
}
