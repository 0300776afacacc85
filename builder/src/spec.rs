//! `config.json` of a `RUN` step: Docker's default confinement, nothing given away.

use std::path::Path;

use berth_runtime_client::protocol::NETNS_PLACEHOLDER;
use berth_spec::defaults::{NamespaceMode, all_capabilities, docker_spec};
use oci_spec::runtime as oci;

use crate::BuildRequest;
use crate::fault::Fault;
use crate::request::Limits;
use crate::users::User;

/// Host name in steps: the same on every machine, so that what a step makes of it is the same, too. It is the name
/// that BuildKit uses.
const HOSTNAME: &str = "buildkitsandbox";
/// Where steps' cgroups are, unless the request says otherwise.
const CGROUP_PARENT: &str = "/berth/builds";

/// What a step runs.
pub(crate) struct StepProcess<'a> {
    pub(crate) args: &'a [String],
    pub(crate) env: Vec<String>,
    pub(crate) cwd: &'a str,
    pub(crate) user: &'a User,
    /// `RUN --security=insecure`: everything that the builder itself may do.
    pub(crate) insecure: bool,
}

/// The step's configuration.
pub(crate) fn step_spec(
    id: &str,
    request: &BuildRequest,
    process: StepProcess<'_>,
    mounts: Vec<oci::Mount>,
    with_netns: bool,
) -> Result<oci::Spec, Fault> {
    let mut env = process.env;
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home = process.user.home.as_deref().unwrap_or("/");
        env.push(format!("HOME={home}"));
    }
    let parent = request.cgroup_parent.as_deref().unwrap_or(CGROUP_PARENT);
    let mut spec = docker_spec()
        .args(process.args.iter().cloned())
        .env(env)
        .cwd(process.cwd)
        .user(process.user.uid, process.user.gid, process.user.groups.clone())
        .hostname(Some(HOSTNAME.into()))
        .cgroup_path(Some(Path::new(parent).join(id)))
        .resources(resources(&request.limits)?)
        .mounts(mounts)
        .network(if with_netns {
            NamespaceMode::Path(NETNS_PLACEHOLDER.into())
        } else {
            NamespaceMode::Host
        });
    if process.insecure {
        spec = spec.privileged(true).capabilities(all_capabilities(bounding_capabilities()));
    }
    if !request.ulimits.is_empty() {
        spec = spec.ulimits(request.ulimits.clone());
    }
    if let Some(size) = request.shm_size.and_then(|size| i64::try_from(size).ok()) {
        spec = spec.shm_size(Some(size));
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // As Docker: no private cgroup namespace on v1.
        spec = spec.cgroup(NamespaceMode::Host);
    }
    Ok(spec.build())
}

/// What the builder itself may hand on (`CapBnd` of proc_pid_status(5)).
fn bounding_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn resources(limits: &Limits) -> Result<oci::LinuxResources, Fault> {
    let bad = |e: oci_spec::OciSpecError| Fault::said(format!("limits: {e}"));
    let mut memory = oci::LinuxMemoryBuilder::default();
    if let Some(limit) = limits.memory {
        memory = memory.limit(limit);
    }
    if let Some(swap) = limits.memory_swap {
        memory = memory.swap(swap);
    }
    let mut cpu = oci::LinuxCpuBuilder::default();
    if let Some(shares) = limits.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(quota) = limits.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = limits.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        cpu = cpu.cpus(cpus);
    }
    if let Some(mems) = &limits.cpuset_mems {
        cpu = cpu.mems(mems);
    }
    let mut resources = oci::LinuxResources::default();
    if limits.memory.is_some() || limits.memory_swap.is_some() {
        resources.set_memory(Some(memory.build().map_err(bad)?));
    }
    let any_cpu = limits.cpu_shares.is_some()
        || limits.cpu_quota.is_some()
        || limits.cpu_period.is_some()
        || limits.cpuset_cpus.is_some()
        || limits.cpuset_mems.is_some();
    if any_cpu {
        resources.set_cpu(Some(cpu.build().map_err(bad)?));
    }
    Ok(resources)
}
