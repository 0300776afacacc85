//! From what was asked for to config.json.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use berth_oci::RuntimeConfig;
use berth_spec::defaults::{NamespaceMode, Seccomp, docker_spec, load_docker_profile};
use berth_spec::oci;
use berth_spec::seccomp::native_arch;
use berth_store::Image;

use super::model::{ContainerSpec, PidScope, PodResources, PodSecurity, SandboxSpec, SecurityProfile};
use super::mounts::Sources;
use super::namespaces::{Pin, Pins};
use super::record::ProcessUser;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::spec::user::{Accounts, User};
use crate::spec::{devices, env};

/// What a container's config.json is made of.
pub(super) struct Inputs<'a> {
    pub(super) id: &'a str,
    pub(super) spec: &'a ContainerSpec,
    pub(super) sandbox: &'a SandboxSpec,
    pub(super) sandbox_id: &'a str,
    pub(super) pins: &'a Pins,
    pub(super) image: &'a RuntimeConfig,
    pub(super) user: User,
    pub(super) sources: Sources,
    /// Process whose pid namespace is joined, for [`PidScope::Target`].
    pub(super) target: Option<i32>,
}

impl Engine {
    /// The user that a container runs as, from its own files.
    pub(super) fn pod_user(
        &self,
        spec: &ContainerSpec,
        image: &Image,
        config: &RuntimeConfig,
    ) -> Result<User> {
        let security = &spec.security;
        if security.run_as_group.is_some()
            && security.run_as_user.is_none()
            && security.run_as_username.is_empty()
        {
            return Err(EngineError::invalid(
                "user group is specified without user: RunAsGroup needs RunAsUser or RunAsUsername",
            ));
        }
        let root = self.store.snapshots().mount_ro(&image.layers)?;
        let accounts = Accounts::read(root.as_fd());
        resolve(&accounts, security, &config.user)
    }

    /// config.json of a container.
    pub(super) fn pod_spec(&self, inputs: Inputs<'_>) -> Result<oci::Spec> {
        let Inputs { id, spec, sandbox, sandbox_id, pins, image, user, sources, target } = inputs;
        let security = &spec.security;
        let capabilities = capabilities(
            &security.add_capabilities,
            &security.drop_capabilities,
            security.privileged,
            self.host.bounding,
        )?;
        let hostname = self.pod_hostname(sandbox);
        let environment = environment(&hostname, spec, image);
        let devices = devices(spec)?;
        let host_ipc = sandbox.namespaces.host_ipc;
        let cgroup_private = self.facts.cgroup_v2 && !security.privileged;
        let mut built = docker_spec()
            .args(command(spec, image)?)
            .env(env::with_home(environment, &user.home))
            .cwd(working_dir(spec, image))
            .user(user.uid, user.gid, user.groups.clone())
            .terminal(spec.tty, None)
            .oom_score_adj(oom_score_adj(spec.resources.oom_score_adj, self.host.bounding))
            .no_new_privileges(security.no_new_privs)
            .apparmor_profile(apparmor(security)?)
            .seccomp(seccomp(security, &capabilities, self.host.kernel)?)
            .capabilities(capabilities)
            .readonly_root(security.readonly_rootfs)
            .privileged(security.privileged)
            .mounts(sources.mounts)
            .shm_size(None)
            .cgroup_path(Some(self.pod_cgroup(sandbox, id)?))
            .resources(resources(&spec.resources))
            .network(namespace(pins, Pin::Network, sandbox.namespaces.host_network))
            .network_sysctls(false)
            .ipc(namespace(pins, Pin::Ipc, host_ipc))
            .uts(namespace(pins, Pin::Uts, sandbox.namespaces.host_network))
            .pid(pid_namespace(&security.pid, pins, target))
            .cgroup(if cgroup_private { NamespaceMode::Private } else { NamespaceMode::Host })
            .devices(devices.nodes)
            .device_rules(devices.rules)
            .masked_paths(Some(paths(&security.masked_paths, security.privileged)))
            .readonly_paths(Some(paths(&security.readonly_paths, security.privileged)))
            .annotations(annotations(spec, sandbox, sandbox_id))
            .build();
        ambient(&mut built, security, self.host.bounding)?;
        super::users::into_user_namespace(&mut built, sandbox, pins)?;
        super::classes::apply(&mut built, spec, sandbox, self.config.block_io_classes.as_deref())?;
        let devices = cdi_devices(spec);
        if !devices.is_empty() {
            self.config.cdi.read().inject_named(&devices, &mut built)?;
        }
        Ok(built)
    }

    /// The host name that processes of a pod see.
    pub(super) fn pod_hostname(&self, sandbox: &SandboxSpec) -> String {
        match sandbox.hostname.as_str() {
            "" => crate::system::hostname(),
            name if !sandbox.namespaces.host_network => name.to_owned(),
            _ => crate::system::hostname(),
        }
    }

    /// The cgroup of a process of a pod, as config.json names it.
    pub(super) fn pod_cgroup(&self, sandbox: &SandboxSpec, id: &str) -> Result<PathBuf> {
        self.config.cgroup_of(&sandbox.cgroup_parent, id)
    }
}

fn capabilities(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: u64,
) -> Result<Vec<oci::Capability>> {
    berth_spec::defaults::capabilities(add, drop, privileged, available)
        .map_err(|error| EngineError::invalid(error.to_string()))
}

fn resolve(accounts: &Accounts, security: &PodSecurity, image_user: &str) -> Result<User> {
    let wanted = match (security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => uid.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    let mut user = accounts.resolve(&wanted, &[])?;
    if let Some((name, _)) = wanted.split_once(':') {
        // The image's memberships count even when the image names a group.
        user.groups = accounts.resolve(name, &[])?.groups;
    }
    if let Some(gid) = security.run_as_group {
        user.gid = gid;
    }
    let memberships = if security.strict_groups { Vec::new() } else { std::mem::take(&mut user.groups) };
    let mut groups = vec![user.gid];
    for gid in memberships.into_iter().chain(security.supplemental_groups.iter().copied()) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    user.groups = groups;
    Ok(user)
}

impl From<&User> for ProcessUser {
    fn from(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }
}

/// `command` takes the place of the image's entrypoint, and its command goes; `args` takes the place of the command.
fn command(spec: &ContainerSpec, image: &RuntimeConfig) -> Result<Vec<String>> {
    let list = |words: Option<&Vec<String>>| words.cloned().unwrap_or_default();
    let words: Vec<String> = match (spec.command.is_empty(), spec.args.is_empty()) {
        (false, _) => spec.command.iter().chain(&spec.args).cloned().collect(),
        (true, false) => [list(image.entrypoint.as_ref()), spec.args.clone()].concat(),
        (true, true) => [list(image.entrypoint.as_ref()), list(image.cmd.as_ref())].concat(),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(EngineError::invalid(format!(
            "no command specified: neither container {:?} nor its image {:?} names one",
            spec.name, spec.asked_image
        )));
    }
    Ok(words)
}

fn working_dir(spec: &ContainerSpec, image: &RuntimeConfig) -> String {
    let dir = if spec.working_dir.is_empty() { &image.working_dir } else { &spec.working_dir };
    if dir.is_empty() { "/".to_owned() } else { dir.to_owned() }
}

fn environment(hostname: &str, spec: &ContainerSpec, image: &RuntimeConfig) -> Vec<String> {
    let own = spec.env.iter().map(|(key, value)| format!("{key}={value}"));
    let wanted: Vec<String> = image.env.iter().cloned().chain(own).collect();
    env::container(hostname, spec.tty, &wanted)
}

fn namespace(pins: &Pins, pin: Pin, host: bool) -> NamespaceMode {
    if host { NamespaceMode::Host } else { NamespaceMode::Path(pins.path(pin)) }
}

fn pid_namespace(scope: &PidScope, pins: &Pins, target: Option<i32>) -> NamespaceMode {
    match (scope, target) {
        (PidScope::Node, _) => NamespaceMode::Host,
        (PidScope::Container, _) => NamespaceMode::Private,
        (PidScope::Target(_), Some(pid)) => NamespaceMode::Path(format!("/proc/{pid}/ns/pid").into()),
        (PidScope::Pod | PidScope::Target(_), _) => NamespaceMode::Path(pins.path(Pin::Pid)),
    }
}

fn paths(given: &[String], privileged: bool) -> Vec<String> {
    if privileged { Vec::new() } else { given.to_vec() }
}

fn annotations(
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    sandbox_id: &str,
) -> std::collections::HashMap<String, String> {
    let own = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", spec.name.as_str()),
        ("io.kubernetes.cri.image-name", spec.asked_image.as_str()),
        ("io.kubernetes.cri.sandbox-id", sandbox_id),
        ("io.kubernetes.cri.sandbox-name", sandbox.name.as_str()),
        ("io.kubernetes.cri.sandbox-namespace", sandbox.namespace.as_str()),
        ("io.kubernetes.cri.sandbox-uid", sandbox.uid.as_str()),
    ];
    own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Devices of the host, named one by one or, for a privileged container, all.
fn devices(spec: &ContainerSpec) -> Result<devices::Devices> {
    let mappings = spec.devices.iter().map(|device| berth_api::container::DeviceMapping {
        path_on_host: device.host_path.clone(),
        path_in_container: device.container_path.clone(),
        cgroup_permissions: device.permissions.clone(),
    });
    let mut host =
        berth_api::container::HostConfig { privileged: spec.security.privileged, ..Default::default() };
    host.resources.devices = Some(mappings.collect());
    devices::collect(&host)
}

/// Without CAP_SYS_RESOURCE the value cannot go below our own: then it is ours.
pub(super) fn oom_score_adj(wanted: i64, bounding: u64) -> i32 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let wanted = i32::try_from(wanted.clamp(-1000, 1000)).unwrap_or(0);
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    if bounding & SYS_RESOURCE != 0 { wanted } else { wanted.max(own.unwrap_or(0)) }
}

fn seccomp(security: &PodSecurity, capabilities: &[oci::Capability], kernel: (u32, u32)) -> Result<Seccomp> {
    if security.privileged {
        return Ok(Seccomp::Unconfined);
    }
    Ok(match &security.seccomp {
        None | Some(SecurityProfile::Unconfined) => Seccomp::Unconfined,
        Some(SecurityProfile::RuntimeDefault) => Seccomp::Default,
        Some(SecurityProfile::Localhost(path)) => {
            let text = fs::read_to_string(path).during("read the seccomp profile", path)?;
            let profile = load_docker_profile(&text, capabilities, native_arch(), kernel)
                .map_err(|error| EngineError::invalid(format!("seccomp profile {path}: {error}")))?;
            Seccomp::Profile(Box::new(profile))
        }
    })
}

fn apparmor(security: &PodSecurity) -> Result<Option<String>> {
    const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
    let Some(SecurityProfile::Localhost(name)) = security.apparmor.as_ref().filter(|_| !security.privileged)
    else {
        return Ok(None);
    };
    let Ok(loaded) = fs::read_to_string(PROFILES) else {
        return Err(EngineError::invalid(format!(
            "AppArmor profile {name:?} cannot be applied: the kernel has no AppArmor"
        )));
    };
    let known = loaded.lines().any(|line| line.split(" (").next() == Some(name));
    known.then(|| Some(name.clone())).ok_or_else(|| {
        EngineError::invalid(format!("AppArmor profile not found {name}: load it with apparmor_parser"))
    })
}

/// Ambient capabilities are inheritable, too; a process keeps them past execve as an ordinary user.
fn ambient(spec: &mut oci::Spec, security: &PodSecurity, available: u64) -> Result<()> {
    if security.ambient_capabilities.is_empty() {
        return Ok(());
    }
    let wanted = capabilities(&security.ambient_capabilities, &["ALL".to_owned()], false, available)?;
    let Some(process) = spec.process_mut() else { return Ok(()) };
    let mut all = process.capabilities().clone().unwrap_or_default();
    let joined = |set: &Option<oci::Capabilities>| {
        set.iter().flatten().copied().chain(wanted.iter().copied()).collect::<oci::Capabilities>()
    };
    let (bounding, permitted, effective) =
        (joined(all.bounding()), joined(all.permitted()), joined(all.effective()));
    all.set_bounding(Some(bounding)).set_permitted(Some(permitted)).set_effective(Some(effective));
    all.set_inheritable(Some(wanted.iter().copied().collect()));
    all.set_ambient(Some(wanted.into_iter().collect()));
    process.set_capabilities(Some(all));
    Ok(())
}

/// The limits as config.json has them.
pub(super) fn resources(wanted: &PodResources) -> oci::LinuxResources {
    let mut resources = oci::LinuxResources::default();
    resources.set_devices(None);
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(unsigned(wanted.cpu_shares)).set_period(unsigned(wanted.cpu_period));
    cpu.set_quota((wanted.cpu_quota != 0).then_some(wanted.cpu_quota));
    cpu.set_cpus(text(&wanted.cpuset_cpus)).set_mems(text(&wanted.cpuset_mems));
    resources.set_cpu((cpu != oci::LinuxCpu::default()).then_some(cpu));
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit((wanted.memory != 0).then_some(wanted.memory));
    memory.set_swap((wanted.memory_swap != 0).then_some(wanted.memory_swap));
    memory.set_reservation((wanted.memory_reservation != 0).then_some(wanted.memory_reservation));
    resources.set_memory((memory != oci::LinuxMemory::default()).then_some(memory));
    if wanted.pids != 0 {
        let mut pids = oci::LinuxPids::default();
        pids.set_limit(wanted.pids);
        resources.set_pids(Some(pids));
    }
    let hugepages = wanted.hugepages.iter().filter_map(|(size, limit)| {
        let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
        oci::LinuxHugepageLimitBuilder::default().page_size(size.clone()).limit(limit).build().ok()
    });
    let hugepages: Vec<_> = hugepages.collect();
    // A kubelet names every size of page, with 0 unless more is asked for. Where nothing can be limited that must not
    // keep containers from running.
    let limited = !hugepages.is_empty() && crate::system::limits_huge_pages();
    resources.set_hugepage_limits(limited.then_some(hugepages));
    let unified: std::collections::HashMap<_, _> =
        wanted.unified.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    resources.set_unified((!unified.is_empty()).then_some(unified));
    resources
}

/// Limits that config.json has; what it does not say stays as it is in `given`.
pub(super) fn limits(config: &oci::Spec, given: &PodResources) -> PodResources {
    let mut found = given.clone();
    let Some(resources) = config.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else {
        return found;
    };
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let Some(cpu) = resources.cpu() {
        found.cpu_shares = cpu.shares().map_or(found.cpu_shares, signed);
        found.cpu_period = cpu.period().map_or(found.cpu_period, signed);
        found.cpu_quota = cpu.quota().unwrap_or(found.cpu_quota);
        found.cpuset_cpus = cpu.cpus().clone().unwrap_or(found.cpuset_cpus);
        found.cpuset_mems = cpu.mems().clone().unwrap_or(found.cpuset_mems);
    }
    if let Some(memory) = resources.memory() {
        found.memory = memory.limit().unwrap_or(found.memory);
        found.memory_swap = memory.swap().unwrap_or(found.memory_swap);
        found.memory_reservation = memory.reservation().unwrap_or(found.memory_reservation);
    }
    found.pids = resources.pids().as_ref().map_or(found.pids, |pids| pids.limit());
    for limit in resources.hugepage_limits().iter().flatten() {
        found.hugepages.insert(limit.page_size().clone(), u64::try_from(limit.limit()).unwrap_or(0));
    }
    found.unified.extend(resources.unified().clone().unwrap_or_default());
    if let Some(score) = config.process().as_ref().and_then(|process| process.oom_score_adj()) {
        found.oom_score_adj = score.into();
    }
    found
}

/// Devices by name: those asked for, and those that annotations name (CDI, `cdi.k8s.io/…`), each once.
fn cdi_devices(spec: &ContainerSpec) -> Vec<String> {
    let annotated = spec.annotations.iter().filter(|(key, _)| key.starts_with("cdi.k8s.io/"));
    let annotated = annotated.flat_map(|(_, list)| list.split(',').map(|name| name.trim().to_owned()));
    let mut wanted: Vec<String> = spec.cdi_devices.iter().cloned().chain(annotated).collect();
    wanted.sort();
    wanted.dedup();
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let own = |list: &[&str]| -> Vec<String> { list.iter().map(|word| (*word).to_owned()).collect() };
        let image = RuntimeConfig {
            entrypoint: Some(own(&["e"])),
            cmd: Some(own(&["c"])),
            ..RuntimeConfig::default()
        };
        let words = |command: &[&str], args: &[&str]| {
            let spec = ContainerSpec { command: own(command), args: own(args), ..ContainerSpec::default() };
            super::command(&spec, &image).map(|words| words.join(" "))
        };
        assert_eq!(words(&[], &[]).unwrap(), "e c");
        assert_eq!(words(&["x"], &[]).unwrap(), "x");
        assert_eq!(words(&["x"], &["y"]).unwrap(), "x y");
        assert_eq!(words(&[], &["y"]).unwrap(), "e y");
    }

    #[test]
    fn limits_that_are_not_given_are_left_out() {
        assert!(resources(&PodResources::default()).cpu().is_none());
        let wanted =
            PodResources { cpu_shares: 512, memory: 1 << 20, memory_swap: -1, ..PodResources::default() };
        let limits = resources(&wanted);
        assert_eq!(limits.cpu().as_ref().unwrap().shares(), Some(512));
        assert_eq!(limits.memory().as_ref().unwrap().swap(), Some(-1));
    }
}
