//! What a user may ask for: checks of the host configuration, in docker's words, and docker's defaults. Pure.
//!
//! What is understood but not supported is refused here by its field's name; nothing is silently ignored.

use berth_api::container::{ContainerConfig, HostConfig, Resources};
use berth_spec::defaults::{MASKED_PATHS, READONLY_PATHS};

use super::restart;
use crate::config::{BUILT_IN, EngineConfig};
use crate::error::{EngineError, Result};

/// The least memory that a container can be given.
const LEAST_MEMORY: i64 = 6 << 20;

/// What the host can do, for checks and defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFacts {
    pub(crate) cgroup_v2: bool,
    pub(crate) cpus: usize,
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(EngineError::invalid(message))
}

fn unsupported<T>(field: &str, what: &str) -> Result<T> {
    Err(EngineError::not_implemented(format!("{what} (HostConfig.{field})")))
}

/// Checks and completes a whole request.
pub(crate) fn complete(
    config: &mut ContainerConfig,
    host: &mut HostConfig,
    facts: &HostFacts,
    daemon: &EngineConfig,
) -> Result<Vec<String>> {
    portable(config)?;
    resources(&host.resources, facts)?;
    if !host.resources.cgroup_parent.is_empty() {
        daemon.cgroup_driver.check_parent(&host.resources.cgroup_parent)?;
    }
    refuse_unsupported(host, daemon)?;
    runtime(host, daemon)?;
    crate::users::check(host, daemon.userns_remap.is_some())?;
    modes(config, host)?;
    restart::validate(&mut host.restart_policy)?;
    if host.auto_remove && host.restart_policy.name != "no" {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if host.log_config.driver.is_empty() {
        host.log_config.driver.clone_from(&daemon.defaults.log_driver);
    }
    if host.log_config.driver == daemon.defaults.log_driver {
        for (key, value) in &daemon.defaults.log_options {
            host.log_config.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    crate::logs::plan(&host.log_config)?;
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return Err(EngineError::invalid(format!(
                "invalid DNS server {server:?}: an address is expected"
            )));
        }
    }
    for entry in host.extra_hosts.iter().flatten() {
        extra_host(entry)?;
    }
    if host.shm_size == 0 {
        host.shm_size = daemon.defaults.shm_size;
    }
    defaults(host, facts);
    Ok(warnings(config, host))
}

fn portable(config: &ContainerConfig) -> Result<()> {
    if !config.stop_signal.is_empty() {
        super::signal::parse(&config.stop_signal)?;
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if config.hostname.len() > 63 || config.hostname.bytes().any(|byte| byte == 0 || byte == b'\n') {
        return invalid(format!("invalid hostname: {:?}", config.hostname));
    }
    if let Some(check) = &config.healthcheck {
        super::health::validate(check)?;
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return invalid(format!("invalid environment variable: {entry}"));
        }
        if entry.contains('\0') {
            return invalid("invalid environment variable: contains nul byte (\\x00)".to_owned());
        }
    }
    Ok(())
}

/// Checks limits; also those of an update.
pub(crate) fn resources(wanted: &Resources, facts: &HostFacts) -> Result<()> {
    memory(wanted)?;
    cpu(wanted, facts)?;
    if wanted.blkio_weight != 0 && !(10..=1000).contains(&wanted.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if wanted.oom_kill_disable == Some(true) && facts.cgroup_v2 {
        return unsupported("OomKillDisable", "the OOM killer cannot be disabled on cgroup v2");
    }
    if wanted.kernel_memory_tcp != 0 || wanted.kernel_memory != 0 {
        return unsupported("KernelMemory", "kernel memory limits have left the kernel");
    }
    Ok(())
}

fn memory(wanted: &Resources) -> Result<()> {
    let (limit, swap, reservation) = (wanted.memory, wanted.memory_swap, wanted.memory_reservation);
    if limit != 0 && limit < LEAST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if limit > 0 && swap > 0 && swap < limit {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if limit == 0 && swap > 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = wanted.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if reservation != 0 && reservation < LEAST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if limit > 0 && reservation > 0 && limit < reservation {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    Ok(())
}

fn cpu(wanted: &Resources, facts: &HostFacts) -> Result<()> {
    if wanted.nano_cpus > 0 && wanted.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if wanted.nano_cpus > 0 && wanted.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    let most = i64::try_from(facts.cpus).unwrap_or(i64::MAX / 1_000_000_000) * 1_000_000_000;
    if wanted.nano_cpus < 0 || wanted.nano_cpus > most {
        let cpus = facts.cpus;
        return invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if wanted.cpu_shares < 0 {
        return invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            wanted.cpu_shares
        ));
    }
    if wanted.cpu_period != 0 && !(1_000..=1_000_000).contains(&wanted.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if wanted.cpu_quota > 0 && wanted.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (name, list) in [("cpus", &wanted.cpuset_cpus), ("mems", &wanted.cpuset_mems)] {
        let Some(numbers) = parse_set(list) else {
            return invalid(format!("Invalid value {list} for cpuset {name}"));
        };
        if name == "cpus" && numbers.iter().any(|cpu| *cpu >= facts.cpus) {
            let available = facts.cpus - 1;
            return invalid(format!(
                "Requested CPUs are not available - requested {list}, available: 0-{available}"
            ));
        }
    }
    Ok(())
}

/// The members of `0-2,4`; `None` if it is no such list.
fn parse_set(list: &str) -> Option<Vec<usize>> {
    let mut members = Vec::new();
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 8192 {
            return None;
        }
        members.extend(first..=last);
    }
    Some(members)
}

/// Names that mean Berth's own runtime; clients expect some of them.
pub(crate) const OWN_RUNTIMES: [&str; 3] = [BUILT_IN, "io.containerd.runc.v2", "berth"];

fn runtime(host: &mut HostConfig, daemon: &EngineConfig) -> Result<()> {
    if host.runtime.is_empty() {
        host.runtime.clone_from(&daemon.defaults.runtime);
    }
    let name = host.runtime.as_str();
    if OWN_RUNTIMES.contains(&name) || daemon.runtimes.contains_key(name) {
        return Ok(());
    }
    invalid(format!("unknown or invalid runtime name: {name}"))
}

fn refuse_unsupported(host: &HostConfig, daemon: &EngineConfig) -> Result<()> {
    if !host.isolation.is_empty() && host.isolation != "default" {
        return invalid(format!("invalid isolation '{}' on linux", host.isolation));
    }
    if super::size::asked(host.storage_opt.iter().flatten())?.is_some() {
        super::size::check(&daemon.root)?;
    }
    if !host.cgroup.is_empty() {
        return invalid("invalid cgroup mode: use CgroupParent");
    }
    Ok(())
}

/// Modes of namespaces, by themselves and against each other.
fn modes(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let donor = |mode: &str| mode.strip_prefix("container:").map(str::to_owned);
    if donor(&host.network_mode).is_some_and(|name| name.is_empty()) {
        return invalid("invalid container format container:<name|id>");
    }
    if !host.pid_mode.is_empty()
        && host.pid_mode != "host"
        && donor(&host.pid_mode).is_none_or(|n| n.is_empty())
    {
        return invalid(format!("invalid PID mode: {}", host.pid_mode));
    }
    let ipc = host.ipc_mode.as_str();
    if !["", "none", "private", "shareable", "host"].contains(&ipc)
        && donor(ipc).is_none_or(|name| name.is_empty())
    {
        return invalid(format!("invalid IPC mode: {ipc}"));
    }
    if !["", "host"].contains(&host.uts_mode.as_str()) {
        return invalid(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if !["", "host", "private"].contains(&host.cgroupns_mode.as_str()) {
        return invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    let links = host.links.as_ref().is_some_and(|links| !links.is_empty());
    if links && (host.network_mode == "host" || donor(&host.network_mode).is_some()) {
        let kind = if host.network_mode == "host" { "host" } else { "container" };
        return invalid(format!(
            "conflicting options: {kind} type networking can't be used with links. This would result in undefined behavior"
        ));
    }
    if donor(&host.network_mode).is_some() {
        let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if !config.hostname.is_empty() {
            return invalid("conflicting options: hostname and the network mode");
        }
        if some(&host.dns) {
            return invalid("conflicting options: dns and the network mode");
        }
        if some(&host.extra_hosts) {
            return invalid("conflicting options: custom host-to-IP mapping and the network mode");
        }
        if !host.port_bindings.is_empty() || host.publish_all_ports {
            return invalid("conflicting options: port publishing and the container type network mode");
        }
        if !config.exposed_ports.is_empty() {
            return invalid("conflicting options: port exposing and the container type network mode");
        }
    }
    Ok(())
}

fn extra_host(entry: &str) -> Result<()> {
    let bad = || EngineError::invalid(format!("bad format for add-host: {entry:?}"));
    let (name, address) = entry.split_once([':', '=']).ok_or_else(bad)?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return invalid(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(())
}

/// What docker stores for what was left open.
fn defaults(host: &mut HostConfig, facts: &HostFacts) {
    let set = |slot: &mut String, value: &str| {
        if slot.is_empty() {
            value.clone_into(slot);
        }
    };
    if host.network_mode.is_empty() || host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    // The docker CLI's word for none.
    host.resources.memory_swappiness = host.resources.memory_swappiness.filter(|value| *value != -1);
    set(&mut host.ipc_mode, "private");
    let cgroupns = if facts.cgroup_v2 && !host.privileged { "private" } else { "host" };
    set(&mut host.cgroupns_mode, cgroupns);
    if !facts.cgroup_v2 {
        host.resources.oom_kill_disable.get_or_insert(false);
    }
    // 0 and -1 both mean no limit; docker keeps null.
    if host.resources.pids_limit.is_some_and(|limit| limit <= 0) {
        host.resources.pids_limit = None;
    }
    if host.resources.memory > 0 && host.resources.memory_swap == 0 {
        host.resources.memory_swap = host.resources.memory.saturating_mul(2);
    }
    let open = host.security_opt.iter().flatten().any(|option| option == "systempaths=unconfined");
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    if open || host.privileged {
        host.masked_paths.get_or_insert_default();
        host.readonly_paths.get_or_insert_default();
    } else {
        host.masked_paths.get_or_insert_with(|| list(&MASKED_PATHS));
        host.readonly_paths.get_or_insert_with(|| list(&READONLY_PATHS));
    }
    if host.privileged {
        // Docker shows null here.
        if host.masked_paths.as_ref().is_some_and(Vec::is_empty) {
            host.masked_paths = None;
        }
        if host.readonly_paths.as_ref().is_some_and(Vec::is_empty) {
            host.readonly_paths = None;
        }
    }
    if let Some(options) = &mut host.security_opt {
        options.retain(|option| option != "systempaths=unconfined");
    }
}

fn warnings(config: &ContainerConfig, host: &HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(config.healthcheck.as_ref().and_then(super::health::warning));
    let publishes = !host.port_bindings.is_empty() || host.publish_all_ports;
    if publishes && host.network_mode == "host" {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: HostFacts = HostFacts { cgroup_v2: false, cpus: 2 };

    fn check(host: &str) -> Result<HostConfig> {
        let mut host = serde_json::from_str(host).unwrap();
        let daemon = EngineConfig::new("/r", "/s", "/shim");
        complete(&mut ContainerConfig::default(), &mut host, &FACTS, &daemon)?;
        Ok(host)
    }

    #[test]
    fn limits_are_refused_in_dockers_words() {
        let message = |host| check(host).unwrap_err().message().to_owned();
        assert_eq!(message(r#"{"Memory":1000}"#), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            message(r#"{"Memory":67108864,"MemorySwap":1000}"#),
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        );
        assert_eq!(
            message(r#"{"NanoCpus":9000000000}"#),
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
        );
        assert_eq!(message(r#"{"CpusetCpus":"x"}"#), "Invalid value x for cpuset cpus");
        assert_eq!(
            message(r#"{"CpusetCpus":"0-7"}"#),
            "Requested CPUs are not available - requested 0-7, available: 0-1"
        );
        assert_eq!(
            message(r#"{"OomScoreAdj":2000}"#),
            "Invalid value 2000, range for oom score adj is [-1000, 1000]"
        );
        assert_eq!(
            message(r#"{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#),
            "can't create 'AutoRemove' container with restart policy"
        );
        assert_eq!(message(r#"{"Runtime":"x"}"#), "unknown or invalid runtime name: x");
        assert_eq!(message(r#"{"ExtraHosts":["a"]}"#), "bad format for add-host: \"a\"");
        assert_eq!(message(r#"{"ExtraHosts":["a:b"]}"#), "invalid IP address in add-host: \"b\"");
        assert!(check(r#"{"ExtraHosts":["a:::1","b=1.2.3.4","c:host-gateway"]}"#).is_ok());
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refused = check(r#"{"StorageOpt":{"dm.basesize":"1G"}}"#).unwrap_err();
        assert!(refused.message().contains("Unknown option dm.basesize"), "{refused}");
        let refused = check(r#"{"StorageOpt":{"size":"much"}}"#).unwrap_err();
        assert!(refused.message().contains("invalid size: 'much'"), "{refused}");
    }

    #[test]
    fn defaults_are_dockers() {
        let host = check("{}").unwrap();
        assert_eq!(host.network_mode, "bridge");
        assert_eq!((host.ipc_mode.as_str(), host.cgroupns_mode.as_str()), ("private", "host"));
        assert_eq!((host.shm_size, host.runtime.as_str()), (64 << 20, "runc"));
        assert_eq!(host.restart_policy.name, "no");
        assert_eq!(host.masked_paths.unwrap().len(), 12);
        assert_eq!(host.resources.oom_kill_disable, Some(false));
        assert_eq!(check(r#"{"Memory":67108864}"#).unwrap().resources.memory_swap, 2 * 67_108_864);
        assert_eq!(check(r#"{"Privileged":true}"#).unwrap().masked_paths, None);
        let open = check(r#"{"SecurityOpt":["systempaths=unconfined"]}"#).unwrap();
        assert_eq!((open.masked_paths, open.security_opt), (Some(vec![]), Some(vec![])));
    }

    #[test]
    fn modes_exclude_each_other() {
        assert!(check(r#"{"IpcMode":"bogus"}"#).is_err());
        assert!(check(r#"{"PidMode":"container:"}"#).is_err());
        assert_eq!(
            check(r#"{"NetworkMode":"container:x","Dns":["1.1.1.1"]}"#).unwrap_err().message(),
            "conflicting options: dns and the network mode"
        );
    }
}
