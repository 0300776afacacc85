//! The flags of `run` and `create`, and the request they make.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use berth_api::container::{ContainerConfig, CreateRequest, HealthConfig, HostConfig, LogConfig, Resources};
use berth_api::network::{EndpointSettings, NetworkingConfig};
use clap::Args;

use super::content_trust::ContentTrust;
use super::mount::{Volume, mount, volume};
use super::{environment, network, port, resources};
use crate::output::units;

/// Flags that shape a container.
#[derive(Debug, Args)]
pub(crate) struct ContainerFlags {
    /// Give the container a name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set an environment variable (NAME=value, or NAME to pass ours on)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group of the process: name or id[:name or id]
    #[arg(short, long)]
    user: Option<String>,
    /// Join further groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory in the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// Program to run instead of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Keep standard input open even if nobody is attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run a small init that reaps zombies and forwards signals
    #[arg(long)]
    init: bool,
    /// Host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// NIS domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Label the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Annotate the container for the OCI runtime
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Signal that stops the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Seconds to wait for it to stop before it is killed
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Restart policy: no, always, unless-stopped, on-failure[:times]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Platform of the image: os/architecture[/variant]
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Pull the image before running: always, missing, never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(crate) pull: String,
    /// OCI runtime
    #[arg(long)]
    runtime: Option<String>,
    /// Give the container the engine's socket as /var/run/docker.sock, and our logins to registries
    #[arg(long)]
    pub(crate) use_api_socket: bool,
    #[command(flatten)]
    trust: ContentTrust,
    #[command(flatten)]
    storage: StorageFlags,
    #[command(flatten)]
    network: NetworkFlags,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    security: SecurityFlags,
    #[command(flatten)]
    health: HealthFlags,
    /// Log driver
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Log driver option
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage")]
struct StorageFlags {
    /// Mount a directory or a volume: source:target[:options]
    #[arg(short, long, value_name = "SPEC")]
    volume: Vec<String>,
    /// Mount, long form: type=bind,source=…,target=…
    #[arg(long, value_name = "SPEC")]
    mount: Vec<String>,
    /// Mount a tmpfs: path[:options]
    #[arg(long, value_name = "SPEC")]
    tmpfs: Vec<String>,
    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Volume driver
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    shm_size: Option<i64>,
    /// Storage driver option
    #[arg(long, value_name = "KEY=VALUE")]
    storage_opt: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct NetworkFlags {
    /// Network to join: a name, bridge, host, none, container:name, or name=NAME,alias=…,ip=…,gw-priority=…
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Publish a port: [[address:]host port:]container port[/protocol]
    #[arg(short, long, value_name = "SPEC")]
    publish: Vec<String>,
    /// Publish all exposed ports to free ones
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port without publishing it
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// IPv4 address on a network of one's own
    #[arg(long)]
    ip: Option<String>,
    /// IPv6 address on a network of one's own
    #[arg(long)]
    ip6: Option<String>,
    /// Further address of the link, in 169.254.0.0/16 or fe80::/10
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<String>,
    /// MAC address
    #[arg(long)]
    mac_address: Option<String>,
    /// Line for /etc/hosts: name:address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Name server
    #[arg(long)]
    dns: Vec<String>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt")]
    dns_option: Vec<String>,
    /// Search domain
    #[arg(long)]
    dns_search: Vec<String>,
    /// Link to another container
    #[arg(long)]
    link: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory: Option<i64>,
    /// Memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory_or_unlimited, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    memory_reservation: Option<i64>,
    /// Limit of kernel memory; the engine ignores it, as docker's does: Linux has it no longer
    #[arg(long, value_name = "BYTES", value_parser = units::parse_memory)]
    kernel_memory: Option<i64>,
    /// Swappiness, 0 to 100
    #[arg(long, allow_negative_numbers = true)]
    memory_swappiness: Option<i64>,
    /// Do not kill when memory runs out
    #[arg(long)]
    oom_kill_disable: bool,
    /// OOM score adjustment, -1000 to 1000
    #[arg(long, allow_negative_numbers = true)]
    oom_score_adj: Option<i64>,
    /// Number of processors
    #[arg(long, value_parser = units::parse_cpus)]
    cpus: Option<i64>,
    /// Processor shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Scheduler period in microseconds
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Processor time per period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Real-time scheduler period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time per period in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// Processors that may be used: 0-3, 0,1
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Number of processes; -1 is unlimited
    #[arg(long, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Resource limit of processes: name=soft[:hard]
    #[arg(long, value_name = "SPEC")]
    ulimit: Vec<String>,
    /// Block I/O weight, 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Block I/O weight of a device: path:weight
    #[arg(long, value_name = "SPEC")]
    blkio_weight_device: Vec<String>,
    /// Read rate of a device: path:bytes
    #[arg(long, value_name = "SPEC")]
    device_read_bps: Vec<String>,
    /// Write rate of a device: path:bytes
    #[arg(long, value_name = "SPEC")]
    device_write_bps: Vec<String>,
    /// Reads per second of a device: path:number
    #[arg(long, value_name = "SPEC")]
    device_read_iops: Vec<String>,
    /// Writes per second of a device: path:number
    #[arg(long, value_name = "SPEC")]
    device_write_iops: Vec<String>,
    /// Parent cgroup
    #[arg(long)]
    cgroup_parent: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Security and namespaces")]
struct SecurityFlags {
    /// Give all capabilities and devices
    #[arg(long)]
    privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Security option: seccomp=…, no-new-privileges, apparmor=…, label=…
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Add a device: path[:path][:permissions]
    #[arg(long, value_name = "SPEC")]
    device: Vec<String>,
    /// Rule of the device cgroup: c 1:3 rwm
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// GPUs: all, a number, device=id
    #[arg(long, value_name = "SPEC")]
    gpus: Option<String>,
    /// Kernel parameter of a namespace
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    /// PID namespace: host, container:name
    #[arg(long)]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host, none, container:name
    #[arg(long)]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long)]
    uts: Option<String>,
    /// User namespace
    #[arg(long)]
    userns: Option<String>,
    /// cgroup namespace: host, private
    #[arg(long)]
    cgroupns: Option<String>,
    /// Isolation technology: on Linux there is `default` alone
    #[arg(long, value_name = "TECHNOLOGY")]
    isolation: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health")]
struct HealthFlags {
    /// Command that checks health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between checks
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    health_interval: Option<i64>,
    /// Longest time of a check
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    health_timeout: Option<i64>,
    /// Time to start up before failures count
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    health_start_period: Option<i64>,
    /// Time between checks while starting up
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    health_start_interval: Option<i64>,
    /// Failures that make a container unhealthy
    #[arg(long)]
    health_retries: Option<i64>,
    /// No health check, whatever the image says
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
}

/// What the engine is asked for, given the image and the words behind it.
pub(crate) fn request(flags: &ContainerFlags, image: &str, words: &[String]) -> Result<CreateRequest> {
    let (exposed_ports, port_bindings) = port::parse(&flags.network.publish, &flags.network.expose)?;
    let mut volumes = std::collections::BTreeMap::new();
    let mut binds = Vec::new();
    for spec in &flags.storage.volume {
        match volume(spec)? {
            Volume::Anonymous(path) => drop(volumes.insert(path, berth_api::Empty)),
            Volume::Bind(bind) => binds.push(bind),
        }
    }
    let config = ContainerConfig {
        hostname: flags.hostname.clone().unwrap_or_default(),
        domainname: flags.domainname.clone().unwrap_or_default(),
        user: flags.user.clone().unwrap_or_default(),
        exposed_ports,
        tty: flags.tty,
        open_stdin: flags.interactive,
        env: some(environment::variables(&flags.env_file, &flags.env, |name| std::env::var(name).ok())?),
        healthcheck: healthcheck(&flags.health),
        image: image.to_owned(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: flags.workdir.clone().unwrap_or_default(),
        labels: environment::labels(&flags.label_file, &flags.label)?,
        stop_signal: flags.stop_signal.clone().unwrap_or_default(),
        stop_timeout: flags.stop_timeout,
        cmd: some(words.to_vec()),
        entrypoint: flags.entrypoint.as_ref().map(|program| vec![program.clone()]),
        ..ContainerConfig::default()
    };
    let mut host = host_config(flags)?;
    host.binds = some(binds);
    host.port_bindings = port_bindings;
    let networking_config = networking(&flags.network, &host.network_mode)?;
    Ok(CreateRequest { config, host_config: Some(host), networking_config: Some(networking_config) })
}

fn host_config(flags: &ContainerFlags) -> Result<HostConfig> {
    let (storage, network, security) = (&flags.storage, &flags.network, &flags.security);
    let tmpfs: std::collections::BTreeMap<_, _> = storage
        .tmpfs
        .iter()
        .map(|spec| {
            let (path, options) = spec.split_once(':').unwrap_or((spec, ""));
            (path.to_owned(), options.to_owned())
        })
        .collect();
    let mounts = storage.mount.iter().map(|spec| mount(spec)).collect::<Result<Vec<_>>>()?;
    Ok(HostConfig {
        log_config: LogConfig {
            driver: flags.log_driver.clone().unwrap_or_default(),
            config: environment::pairs("--log-opt", &flags.log_opt)?,
        },
        network_mode: match network.network.first() {
            Some(spec) => network::network(spec)?.0,
            None => "default".to_owned(),
        },
        restart_policy: flags.restart.as_deref().map(resources::restart).transpose()?.unwrap_or_default(),
        auto_remove: flags.rm,
        volume_driver: storage.volume_driver.clone().unwrap_or_default(),
        volumes_from: some(storage.volumes_from.clone()),
        mounts: some(mounts),
        annotations: map(environment::pairs("--annotation", &flags.annotation)?),
        cap_add: some(security.cap_add.clone()),
        cap_drop: some(security.cap_drop.clone()),
        cgroupns_mode: security.cgroupns.clone().unwrap_or_default(),
        isolation: security.isolation.clone().unwrap_or_default(),
        dns: some(network.dns.clone()),
        dns_options: some(network.dns_option.clone()),
        dns_search: some(network.dns_search.clone()),
        extra_hosts: some(network.add_host.iter().map(|line| line.replacen('=', ":", 1)).collect()),
        group_add: some(flags.group_add.clone()),
        ipc_mode: security.ipc.clone().unwrap_or_default(),
        links: some(network.link.clone()),
        oom_score_adj: flags.limits.oom_score_adj.unwrap_or(0),
        pid_mode: security.pid.clone().unwrap_or_default(),
        privileged: security.privileged,
        publish_all_ports: network.publish_all,
        readonly_rootfs: storage.read_only,
        security_opt: some(security_options(&security.security_opt)?),
        storage_opt: map(environment::pairs("--storage-opt", &storage.storage_opt)?),
        tmpfs: map(tmpfs),
        uts_mode: security.uts.clone().unwrap_or_default(),
        userns_mode: security.userns.clone().unwrap_or_default(),
        shm_size: storage.shm_size.unwrap_or(0),
        sysctls: map(environment::pairs("--sysctl", &security.sysctl)?),
        runtime: flags.runtime.clone().unwrap_or_default(),
        init: flags.init.then_some(true),
        resources: limits(&flags.limits, security)?,
        ..HostConfig::default()
    })
}

fn limits(flags: &LimitFlags, security: &SecurityFlags) -> Result<Resources> {
    if flags.cpus.is_some() && (flags.cpu_quota.is_some() || flags.cpu_period.is_some()) {
        bail!("conflicting options: --cpus cannot be given with --cpu-period or --cpu-quota");
    }
    let throttles = |flag: &str, specs: &[String], in_bytes| {
        let all: Result<Vec<_>> =
            specs.iter().map(|spec| resources::throttle(flag, spec, in_bytes)).collect();
        all.map(some)
    };
    let weights: Result<Vec<_>> =
        flags.blkio_weight_device.iter().map(|spec| resources::weight(spec)).collect();
    let devices: Result<Vec<_>> = security.device.iter().map(|spec| resources::device(spec)).collect();
    let ulimits: Result<Vec<_>> = flags.ulimit.iter().map(|spec| resources::ulimit(spec)).collect();
    Ok(Resources {
        cpu_shares: flags.cpu_shares.unwrap_or(0),
        memory: flags.memory.unwrap_or(0),
        kernel_memory: flags.kernel_memory.unwrap_or(0),
        nano_cpus: flags.cpus.unwrap_or(0),
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        blkio_weight: flags.blkio_weight.unwrap_or(0),
        blkio_weight_device: some(weights?),
        blkio_device_read_bps: throttles("device-read-bps", &flags.device_read_bps, true)?,
        blkio_device_write_bps: throttles("device-write-bps", &flags.device_write_bps, true)?,
        blkio_device_read_iops: throttles("device-read-iops", &flags.device_read_iops, false)?,
        blkio_device_write_iops: throttles("device-write-iops", &flags.device_write_iops, false)?,
        cpu_period: flags.cpu_period.unwrap_or(0),
        cpu_quota: flags.cpu_quota.unwrap_or(0),
        cpu_realtime_period: flags.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: flags.cpu_rt_runtime.unwrap_or(0),
        cpuset_cpus: flags.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: flags.cpuset_mems.clone().unwrap_or_default(),
        devices: some(devices?),
        device_cgroup_rules: some(security.device_cgroup_rule.clone()),
        device_requests: security
            .gpus
            .as_deref()
            .map(resources::gpus)
            .transpose()?
            .map(|request| vec![request]),
        memory_reservation: flags.memory_reservation.unwrap_or(0),
        memory_swap: flags.memory_swap.unwrap_or(0),
        memory_swappiness: flags.memory_swappiness,
        oom_kill_disable: flags.oom_kill_disable.then_some(true),
        pids_limit: flags.pids_limit,
        ulimits: some(ulimits?),
        ..Resources::default()
    })
}

/// Docker's CLI reads seccomp profiles itself and sends their text; so do we.
fn security_options(options: &[String]) -> Result<Vec<String>> {
    let read = options.iter().map(|option| {
        let file = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:"));
        match file {
            None | Some("unconfined" | "builtin") => Ok(option.clone()),
            Some(file) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("--security-opt {option}: cannot read {file}"))?;
                let profile: serde_json::Value = serde_json::from_str(&text)
                    .with_context(|| format!("--security-opt {option}: {file} is no JSON"))?;
                Ok(format!("seccomp={profile}"))
            }
        }
    });
    read.collect()
}

fn healthcheck(flags: &HealthFlags) -> Option<HealthConfig> {
    if flags.no_healthcheck {
        return Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() });
    }
    let config = HealthConfig {
        test: flags.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
        interval: flags.health_interval.unwrap_or(0),
        timeout: flags.health_timeout.unwrap_or(0),
        start_period: flags.health_start_period.unwrap_or(0),
        start_interval: flags.health_start_interval.unwrap_or(0),
        retries: flags.health_retries.unwrap_or(0),
    };
    (config != HealthConfig::default()).then_some(config)
}

fn networking(flags: &NetworkFlags, mode: &str) -> Result<NetworkingConfig> {
    let mut config = NetworkingConfig::default();
    let own = !matches!(mode, "default" | "bridge" | "host" | "none") && !mode.starts_with("container:");
    if !own && (flags.ip.is_some() || flags.ip6.is_some()) {
        bail!("--ip and --ip6 need a network of one's own: berth network create --subnet …");
    }
    for (i, spec) in flags.network.iter().enumerate().filter(|(i, _)| own || *i > 0) {
        let (name, mut endpoint) = network::network(spec)?;
        if i == 0 {
            endpoint.aliases.get_or_insert_default().extend(flags.network_alias.iter().cloned());
            endpoint.aliases = endpoint.aliases.filter(|aliases| !aliases.is_empty());
            endpoint.links = some(flags.link.clone());
            if let Some(mac) = &flags.mac_address {
                endpoint.mac_address.clone_from(mac);
            }
            if let Some(ip) = &flags.ip {
                network::addresses(&mut endpoint).ipv4_address.clone_from(ip);
            }
            if let Some(ip) = &flags.ip6 {
                network::addresses(&mut endpoint).ipv6_address.clone_from(ip);
            }
            if !flags.link_local_ip.is_empty() {
                network::addresses(&mut endpoint).link_local_ips = Some(flags.link_local_ip.clone());
            }
        }
        config.endpoints_config.insert(name, Some(endpoint));
    }
    if !own && let Some(mac) = &flags.mac_address {
        let name = if mode == "default" { "bridge" } else { mode };
        let endpoint = EndpointSettings { mac_address: mac.clone(), ..EndpointSettings::default() };
        config.endpoints_config.insert(name.to_owned(), Some(endpoint));
    }
    Ok(config)
}

/// An absent list is `null`, as docker's CLI sends it.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn map<K, V>(map: std::collections::BTreeMap<K, V>) -> Option<std::collections::BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn parsed(words: &str) -> Result<CreateRequest> {
        let command = ContainerFlags::augment_args(
            clap::Command::new("run").no_binary_name(true).disable_help_flag(true),
        );
        let matches = command.try_get_matches_from(words.split_whitespace())?;
        request(&ContainerFlags::from_arg_matches(&matches)?, "busybox", &[])
    }

    #[test]
    fn flags_that_mean_little_go_to_the_engine() {
        let host = parsed("--kernel-memory 64m --isolation hyperv --disable-content-trust")
            .unwrap()
            .host_config
            .unwrap();
        assert_eq!((host.resources.kernel_memory, host.isolation.as_str()), (64 << 20, "hyperv"));
        assert!(parsed("--disable-content-trust=true").is_ok());
        let error = parsed("--disable-content-trust=false").unwrap_err().to_string();
        assert!(error.contains("Notary"), "{error}");
    }
}
