//! The order of container set-up. This is the only place that knows it; the picture is at the head of `step.rs`.

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::mount_options;
use crate::oci;
use crate::plan::{HookPlans, IdMaps, NamespaceKind, NamespacePlan, NetDevicePlan, ParentStep, RootPlan};
use crate::process::ProcessPlan;
use crate::step::{DeviceStep, InitStep, MemoryPolicyStep, Propagation, SymlinkStep, SysctlStep};

use super::mounts::Mounts;
use super::{paths, process};

/// Everything the order is made of.
pub(super) struct Parts<'a> {
    pub(super) spec: &'a oci::Spec,
    pub(super) linux: &'a oci::Linux,
    pub(super) namespaces: &'a NamespacePlan,
    pub(super) root: &'a RootPlan,
    pub(super) process: &'a ProcessPlan,
    pub(super) hooks: &'a HookPlans,
    pub(super) mounts: Mounts,
    pub(super) devices: Vec<DeviceStep>,
    pub(super) sysctls: Vec<SysctlStep>,
}

pub(super) fn container(parts: Parts<'_>) -> Result<Vec<InitStep>, SpecError> {
    let mut steps = Vec::with_capacity(64);
    if let (Some(score), false) = (parts.process.oom_score_adj, parts.process.in_user_namespace) {
        steps.push(InitStep::OomScoreAdj(score));
    }
    steps.push(InitStep::NewKeyring);
    if parts.namespaces.creates(NamespaceKind::Network) {
        steps.push(InitStep::LoopbackUp);
    }
    let own_mounts = parts.namespaces.has(NamespaceKind::Mount);
    let root_propagation = root_propagation(parts.linux)?;
    if own_mounts {
        let default = Propagation { flag: libc::MS_SLAVE, recursive: true };
        steps.push(InitStep::RootPropagation(root_propagation.unwrap_or(default)));
    }
    steps.push(InitStep::MountRoot);
    let readonly_later = parts.mounts.readonly_later;
    steps.extend(parts.mounts.steps);
    if !parts.mounts.dev_is_bound {
        steps.extend(parts.devices.into_iter().map(InitStep::Device));
        steps.extend(dev_links());
    }
    if !parts.hooks.prestart.is_empty() || !parts.hooks.create_runtime.is_empty() {
        steps.push(InitStep::CreateRuntimeHooks);
    }
    if !parts.hooks.create_container.is_empty() {
        steps.push(InitStep::CreateContainerHooks);
    }
    steps.push(InitStep::PivotRoot { mount_namespace: own_mounts });
    if parts.process.cwd != Path::new("/") {
        steps.push(InitStep::CreateWorkingDirectory(parts.process.cwd.clone()));
    }
    steps.extend(parts.process.terminal.map(InitStep::Console));
    steps.extend(readonly_later.into_iter().map(InitStep::RemountReadonly));
    if own_mounts {
        steps.extend(root_propagation.map(InitStep::RootMountPropagation));
    }
    if parts.root.readonly {
        steps.push(InitStep::ReadonlyRoot);
    }
    identity(parts.spec, parts.namespaces, &mut steps)?;
    if !parts.sysctls.is_empty() {
        steps.push(InitStep::Sysctls(parts.sysctls));
    }
    restricted_paths(parts.linux, own_mounts, &mut steps)?;
    process_steps(parts.process, parts.linux, parts.process.in_user_namespace, &mut steps)?;
    if !parts.process.args.is_empty() {
        steps.push(InitStep::ResolveExecutable);
    }
    late_seccomp(parts.process, &mut steps);
    steps.push(InitStep::WaitForStart);
    if !parts.hooks.start_container.is_empty() {
        steps.push(InitStep::StartContainerHooks);
    }
    steps.push(InitStep::Exec);
    Ok(steps)
}

/// What an exec does after it has joined the namespaces.
pub(super) fn exec(
    process: &ProcessPlan,
    linux: &oci::Linux,
    in_userns: bool,
) -> Result<Vec<InitStep>, SpecError> {
    let mut steps = Vec::with_capacity(16);
    if let (Some(score), false) = (process.oom_score_adj, in_userns) {
        steps.push(InitStep::OomScoreAdj(score));
    }
    steps.push(InitStep::NewKeyring);
    steps.extend(process.terminal.map(InitStep::ExecConsole));
    process_steps(process, linux, in_userns, &mut steps)?;
    steps.push(InitStep::ResolveExecutable);
    late_seccomp(process, &mut steps);
    steps.push(InitStep::Exec);
    Ok(steps)
}

/// From the root user of the container to the user's process, short of the exec.
fn process_steps(
    process: &ProcessPlan,
    linux: &oci::Linux,
    in_userns: bool,
    steps: &mut Vec<InitStep>,
) -> Result<(), SpecError> {
    steps.extend(personality(linux)?.map(InitStep::Personality));
    steps.extend(memory_policy(linux)?.map(InitStep::MemoryPolicy));
    if !in_userns && !process.rlimits.is_empty() {
        steps.push(InitStep::Rlimits(process.rlimits.clone()));
    }
    steps.extend(process.scheduler.map(InitStep::Scheduler));
    steps.extend(process.io_priority.map(InitStep::IoPriority));
    steps.extend(process.apparmor.clone().map(InitStep::AppArmor));
    steps.extend(process.selinux.clone().map(InitStep::SelinuxLabel));
    if process.no_new_privileges {
        steps.push(InitStep::NoNewPrivileges);
    } else if process.seccomp.is_some() {
        // Without no_new_privs the filter needs CAP_SYS_ADMIN, so it goes in before that is dropped (seccomp(2)).
        steps.push(InitStep::Seccomp);
    }
    if let Some(capabilities) = process.capabilities {
        steps.push(InitStep::BoundingCapabilities(capabilities.bounding));
    }
    steps.push(InitStep::User(process.user.clone()));
    steps.push(InitStep::WorkingDirectory(process.cwd.clone()));
    steps.extend(process.capabilities.map(InitStep::Capabilities));
    Ok(())
}

/// With no_new_privs the filter goes in as late as possible: the fewer calls of the runtime it must allow.
fn late_seccomp(process: &ProcessPlan, steps: &mut Vec<InitStep>) {
    if process.no_new_privileges && process.seccomp.is_some() {
        steps.push(InitStep::Seccomp);
    }
}

/// The parent's work on a new container.
pub(super) fn parent(
    linux: &oci::Linux,
    namespaces: &NamespacePlan,
    id_maps: &IdMaps,
    process: &ProcessPlan,
) -> Result<Vec<ParentStep>, SpecError> {
    let mut steps = Vec::new();
    if !id_maps.is_empty() {
        steps.push(ParentStep::IdMaps);
    }
    steps.extend(exec_parent(process, namespaces.has(NamespaceKind::User)));
    let mut devices: Vec<_> = linux
        .net_devices()
        .iter()
        .flatten()
        .map(|(host, device)| NetDevicePlan {
            host_name: host.clone(),
            container_name: device
                .name()
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| host.clone()),
        })
        .collect();
    if !devices.is_empty() {
        if !namespaces.has(NamespaceKind::Network) {
            return Err(SpecError::new("linux.netDevices", "needs a network namespace")
                .hint("add {\"type\": \"network\"} to linux.namespaces"));
        }
        for device in &devices {
            for name in [&device.host_name, &device.container_name] {
                link_name(name)?;
            }
        }
        devices.sort_by(|a, b| a.host_name.cmp(&b.host_name));
        steps.push(ParentStep::NetDevices(devices));
    }
    Ok(steps)
}

/// What needs the privileges of the initial user namespace is done from outside.
pub(super) fn exec_parent(process: &ProcessPlan, in_userns: bool) -> Vec<ParentStep> {
    let mut steps = Vec::new();
    if in_userns {
        steps.extend(process.oom_score_adj.map(ParentStep::OomScoreAdj));
        if !process.rlimits.is_empty() {
            steps.push(ParentStep::Rlimits(process.rlimits.clone()));
        }
    }
    steps
}

/// dev_valid_name() of the kernel.
fn link_name(name: &str) -> Result<(), SpecError> {
    let bad = name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || name == "."
        || name == ".."
        || name.bytes().any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace());
    if bad {
        return Err(SpecError::new(format!("linux.netDevices.{name}"), "is no name of a network device"));
    }
    Ok(())
}

fn root_propagation(linux: &oci::Linux) -> Result<Option<Propagation>, SpecError> {
    linux
        .rootfs_propagation()
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(|name| {
            mount_options::propagation(name).ok_or_else(|| {
                SpecError::new("linux.rootfsPropagation", format!("{name:?} is not supported"))
                    .hint("use shared, slave, private or unbindable, each also with an r in front")
            })
        })
        .transpose()
}

fn identity(
    spec: &oci::Spec,
    namespaces: &NamespacePlan,
    steps: &mut Vec<InitStep>,
) -> Result<(), SpecError> {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    for (field, name, step) in [
        ("hostname", given(spec.hostname()), InitStep::Hostname as fn(String) -> InitStep),
        ("domainname", given(spec.domainname()), InitStep::Domainname),
    ] {
        let Some(name) = name else { continue };
        if !namespaces.has(NamespaceKind::Uts) {
            return Err(SpecError::new(
                field,
                format!("unable to set {field} without a private UTS namespace"),
            )
            .hint("add {\"type\": \"uts\"} to linux.namespaces"));
        }
        if name.len() > 64 || name.contains('\0') {
            return Err(SpecError::new(field, "is longer than 64 bytes or contains a NUL byte"));
        }
        steps.push(step(name));
    }
    Ok(())
}

/// A path that is masked twice would have a mount too many.
fn once_each(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        if !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

fn restricted_paths(
    linux: &oci::Linux,
    own_mounts: bool,
    steps: &mut Vec<InitStep>,
) -> Result<(), SpecError> {
    type Check = fn(&str, &Path) -> Result<(), SpecError>;
    let list = |field: &str, list: &Option<Vec<String>>, check: Check| -> Result<Vec<PathBuf>, SpecError> {
        list.iter()
            .flatten()
            .enumerate()
            .map(|(at, path)| {
                check(&format!("linux.{field}[{at}]"), Path::new(path))?;
                Ok(paths::clean(Path::new(path)))
            })
            .collect()
    };
    // A relative path to protect is taken from the root, as runc takes it. One to hide is refused: who wrote it would
    // believe that something else is hidden.
    let readonly = list("readonlyPaths", linux.readonly_paths(), paths::no_nul)?;
    let masked = list("maskedPaths", linux.masked_paths(), paths::absolute)?;
    let masked = once_each(masked);
    let restricted = !readonly.is_empty() || !masked.is_empty();
    if restricted && !own_mounts {
        return Err(SpecError::new(
            "linux.maskedPaths",
            "unable to restrict sys entries without a private MNT namespace",
        )
        .hint("add {\"type\": \"mount\"} to linux.namespaces"));
    }
    if !readonly.is_empty() {
        steps.push(InitStep::ReadonlyPaths(readonly));
    }
    if !masked.is_empty() {
        steps.push(InitStep::MaskPaths(masked));
    }
    Ok(())
}

/// personality(2); config-linux.md knows no flag yet.
fn personality(linux: &oci::Linux) -> Result<Option<u32>, SpecError> {
    let Some(personality) = linux.personality() else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(SpecError::new("linux.personality.flags", "personality flags are not supported yet")
            .hint("leave them out"));
    }
    Ok(Some(match personality.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn memory_policy(linux: &oci::Linux) -> Result<Option<MemoryPolicyStep>, SpecError> {
    use oci::{MemoryPolicyFlagType as F, MemoryPolicyModeType as M};
    let Some(policy) = linux.memory_policy() else { return Ok(None) };
    // linux/mempolicy.h
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0u32, |all, flag| {
        all | match flag {
            F::MpolFStaticNodes => 1 << 15,
            F::MpolFRelativeNodes => 1 << 14,
            F::MpolFNumaBalancing => 1 << 13,
        }
    });
    let nodes = match policy.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(nodes) => process::number_list("linux.memoryPolicy.nodes", nodes).map_err(|error| {
            SpecError { problem: format!("invalid memory policy node: {}", error.problem), ..error }
        })?,
        None => Vec::new(),
    };
    // set_mempolicy(2); the kernel itself says EINVAL to all of it.
    let refused = |problem: String| Err(SpecError::new("linux.memoryPolicy.nodes", problem));
    match policy.mode() {
        M::MpolDefault | M::MpolLocal if !nodes.is_empty() => {
            return refused(format!("invalid memory policy: mode requires 0 nodes but got {}", nodes.len()));
        }
        M::MpolBind | M::MpolInterleave | M::MpolWeightedInterleave | M::MpolPreferredMany
            if nodes.is_empty() =>
        {
            return refused("is missing: this mode needs nodes".to_owned());
        }
        _ => {}
    }
    Ok(Some(MemoryPolicyStep { mode: mode | flags, nodes }))
}

/// config-linux.md, "Default Devices" and runc's links beside them.
fn dev_links() -> impl Iterator<Item = InitStep> {
    let link = |path: &str, target: &str, replace: bool, if_exists: Option<&str>| {
        InitStep::Symlink(SymlinkStep {
            path: PathBuf::from(path),
            target: PathBuf::from(target),
            replace,
            if_exists: if_exists.map(PathBuf::from),
        })
    };
    [
        link("/dev/ptmx", "pts/ptmx", true, None),
        link("/dev/fd", "/proc/self/fd", false, None),
        link("/dev/stdin", "/proc/self/fd/0", false, None),
        link("/dev/stdout", "/proc/self/fd/1", false, None),
        link("/dev/stderr", "/proc/self/fd/2", false, None),
        link("/dev/core", "/proc/kcore", false, Some("/proc/kcore")),
    ]
    .into_iter()
}
