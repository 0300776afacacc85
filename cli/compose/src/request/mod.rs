//! From a service to the engine's words: the request that creates one of its containers. Pure.

mod health;
mod mounts;
mod network;
mod resources;

use std::collections::BTreeMap;

use berth_client::api::{
    ApiVersion, Empty,
    container::{
        ContainerConfig, ContainerSummary, CreateRequest, HostConfig, LogConfig, PortBinding, PortMap,
        RestartPolicy,
    },
};

pub(crate) use mounts::refuse;
pub(crate) use network::{endpoint, primary_network};
pub(crate) use resources::ulimits;

use crate::{
    Result,
    error::Error,
    labels::{self, merged},
    model::{Project, Service},
};

/// What a container is made for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) project: &'a Project,
    /// The service's name.
    pub(crate) name: &'a str,
    /// The service, with references to others resolved.
    pub(crate) service: &'a Service,
    /// Number in the service; 0 for one of `run`.
    pub(crate) number: u32,
    /// Name of the container.
    pub(crate) container: String,
    /// Labels beside the service's own.
    pub(crate) labels: BTreeMap<String, String>,
    /// Links, `container:alias`.
    pub(crate) links: Vec<String>,
    /// Whether the service's names lead to it.
    pub(crate) aliases: bool,
    /// Whether a client attaches to its stdin.
    pub(crate) attach_stdin: bool,
    /// Whether it goes when it ends.
    pub(crate) auto_remove: bool,
    /// The container it replaces, with the anonymous volumes its image declares.
    pub(crate) inherit: Option<(&'a ContainerSummary, &'a [String])>,
    /// The engine's version.
    pub(crate) api: ApiVersion,
    /// Whether the engine makes secrets in memory.
    pub(crate) secrets: bool,
}

impl Wanted<'_> {
    /// The request.
    pub(crate) fn request(&self) -> Result<CreateRequest> {
        let service = self.service;
        let wrong = |message: String| Error::service(self.name, message);
        let (networks, mode) = network::settings(self)?;
        let (binds, mounts) = mounts::of(self)?;
        let (security_opt, unconfined) = security_options(self)?;
        let environment = service.environment.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        });
        let config = ContainerConfig {
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            user: service.user.clone(),
            exposed_ports: exposed_ports(service),
            tty: service.tty,
            open_stdin: service.stdin_open,
            stdin_once: self.attach_stdin && service.stdin_open,
            attach_stdin: self.attach_stdin,
            attach_stdout: true,
            attach_stderr: true,
            env: Some(environment.collect()),
            cmd: service.command.0.clone().map(|command| command.0),
            entrypoint: service.entrypoint.0.clone().map(|command| command.0),
            image: service.image_name(&self.project.name, self.name),
            working_dir: service.working_dir.clone(),
            network_disabled: service.network_mode == "disabled",
            mac_address: network::container_mac(self)?,
            labels: self.all_labels(),
            stop_signal: service.stop_signal.clone(),
            stop_timeout: service.stop_grace_period.map(|time| time.seconds()),
            healthcheck: health::of(service, self.api).map_err(wrong)?,
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            auto_remove: self.auto_remove,
            annotations: some(service.annotations.0.clone()),
            binds: list(binds),
            mounts: list(mounts),
            cap_add: list(capabilities(&service.cap_add)),
            cap_drop: list(capabilities(&service.cap_drop)),
            network_mode: mode,
            init: service.init,
            ipc_mode: service.ipc.clone(),
            cgroupns_mode: service.cgroup.clone(),
            readonly_rootfs: service.read_only,
            restart_policy: restart_policy(service),
            shm_size: service.shm_size.0,
            sysctls: some(service.sysctls.0.clone()),
            port_bindings: port_bindings(service),
            resources: resources::of(service),
            volumes_from: list(service.volumes_from.clone()),
            dns: list(service.dns.0.clone()),
            dns_search: list(service.dns_search.0.clone()),
            dns_options: list(service.dns_opt.clone()),
            extra_hosts: Some(service.extra_hosts.lines(":")),
            security_opt: list(security_opt),
            storage_opt: some(service.storage_opt.0.clone()),
            userns_mode: service.userns_mode.clone(),
            uts_mode: service.uts.clone(),
            privileged: service.privileged,
            pid_mode: service.pid.clone(),
            tmpfs: some(tmpfs(service)),
            isolation: service.isolation.clone(),
            runtime: service.runtime.clone(),
            log_config: log_config(service),
            group_add: list(service.group_add.clone()),
            links: list(self.links.clone()),
            oom_score_adj: service.oom_score_adj,
            masked_paths: unconfined.then(Vec::new),
            readonly_paths: unconfined.then(Vec::new),
            ..HostConfig::default()
        };
        Ok(CreateRequest { host_config: Some(host), networking_config: networks, config })
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = merged(&self.service.labels, self.labels.clone());
        labels.insert(labels::CONFIG_HASH.to_owned(), self.service.hash());
        if self.number > 0 {
            labels.insert(labels::NUMBER.to_owned(), self.number.to_string());
        }
        let on = self.service.depends_on.iter();
        let on: Vec<String> =
            on.map(|(name, config)| format!("{name}:{}:{}", config.condition, config.restart)).collect();
        labels.insert(labels::DEPENDENCIES.to_owned(), on.join(","));
        labels
    }
}

fn some(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Capabilities by their kernel names, each once: what docker's client makes of them.
fn capabilities(names: &[String]) -> Vec<String> {
    let full = |name: &String| match name.trim().to_uppercase() {
        name if name == "ALL" || name.starts_with("CAP_") => name,
        name => format!("CAP_{name}"),
    };
    names.iter().map(full).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// A list that says something; engines keep an empty one apart from none.
pub(crate) fn list<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn exposed_ports(service: &Service) -> BTreeMap<String, Empty> {
    let exposed = service.expose.0.iter().cloned();
    let published = service.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol));
    exposed.chain(published).map(|port| (port, Empty)).collect()
}

fn port_bindings(service: &Service) -> PortMap {
    let mut bindings = PortMap::new();
    for port in &service.ports {
        let binding = PortBinding { host_ip: port.host_ip.clone(), host_port: port.published.clone() };
        let key = format!("{}/{}", port.target, port.protocol);
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn tmpfs(service: &Service) -> BTreeMap<String, String> {
    let lines = service.tmpfs.0.iter();
    lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(path, options)| (path.to_owned(), options.to_owned()))
        .collect()
}

fn log_config(service: &Service) -> LogConfig {
    match &service.logging {
        Some(logging) => LogConfig { driver: logging.driver.clone(), config: logging.options.0.clone() },
        None => LogConfig::default(),
    }
}

fn restart_policy(service: &Service) -> RestartPolicy {
    let mode = |condition: &str| match condition {
        "none" | "no" => "no".to_owned(),
        "any" | "always" => "always".to_owned(),
        other => other.to_owned(),
    };
    if let Some(policy) = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()) {
        let attempts = policy.max_attempts.map_or(0, |attempts| i64::try_from(attempts).unwrap_or(i64::MAX));
        return RestartPolicy { name: mode(&policy.condition), maximum_retry_count: attempts };
    }
    let (condition, attempts) = service.restart.split_once(':').unwrap_or((&service.restart, ""));
    RestartPolicy { name: mode(condition), maximum_retry_count: attempts.parse().unwrap_or(0) }
}

/// Security options as the engine wants them: a seccomp profile travels as its text.
fn security_options(wanted: &Wanted<'_>) -> Result<(Vec<String>, bool)> {
    let mut unconfined = false;
    let mut options = Vec::new();
    for option in &wanted.service.security_opt {
        if option == "systempaths=unconfined" {
            unconfined = true;
            continue;
        }
        let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => (option.as_str(), ""),
            None => return Err(Error::service(wanted.name, format!("invalid security-opt: {option:?}"))),
        };
        if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
            options.push(option.clone());
            continue;
        }
        let path = wanted.project.working_dir.join(value);
        let text =
            std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
            Error::service(wanted.name, format!("seccomp profile {} is not JSON: {error}", path.display()))
        })?;
        options.push(format!("seccomp={profile}"));
    }
    Ok((options, unconfined))
}
