//! Requests as the engine understands them.

use std::path::Path;

use berth_engine::{
    ContainerSpec, IdMapping, PidScope, PodDevice, PodDns, PodMount, PodNamespaces, PodPort, PodResources,
    PodSecurity, Propagation, SandboxSpec, SecurityProfile,
};
use tonic::Status;

use super::signal;
use crate::failure::missing;
use crate::v1;

/// The handlers that are offered: the default one by both its names.
pub(crate) const HANDLERS: [&str; 2] = ["", "berth"];

/// A sandbox.
pub(crate) fn sandbox(config: v1::PodSandboxConfig, handler: String) -> Result<SandboxSpec, Status> {
    if !HANDLERS.contains(&handler.as_str()) {
        return Err(Status::invalid_argument(format!("no runtime for {handler:?} is configured")));
    }
    let metadata = config.metadata.ok_or_else(|| missing("config.metadata"))?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return Err(Status::invalid_argument("runAsGroup is specified without runAsUser"));
    }
    refuse_label(security.selinux_options.as_ref())?;
    let options = security.namespace_options.unwrap_or_default();
    Ok(SandboxSpec {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns: config.dns_config.map(|dns| PodDns {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        ports: config.port_mappings.into_iter().map(port).collect::<Result<_, _>>()?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        runtime_handler: handler,
        cgroup_parent: linux.cgroup_parent,
        sysctls: linux.sysctls.into_iter().collect(),
        namespaces: PodNamespaces {
            host_network: options.network() == v1::NamespaceMode::Node,
            host_ipc: options.ipc() == v1::NamespaceMode::Node,
            pid: pid(&options),
            users: options.userns_options.as_ref().map(users).transpose()?.flatten(),
        },
        privileged: security.privileged,
    })
}

fn port(port: v1::PortMapping) -> Result<PodPort, Status> {
    let number = |value: i32| {
        u16::try_from(value).map_err(|_| Status::invalid_argument(format!("{value} is no port")))
    };
    let protocol = match port.protocol() {
        v1::Protocol::Tcp => berth_engine::Protocol::Tcp,
        v1::Protocol::Udp => berth_engine::Protocol::Udp,
        v1::Protocol::Sctp => berth_engine::Protocol::Sctp,
    };
    let host_ip = match port.host_ip.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Status::invalid_argument(format!("{text:?} is no address of a host port")))?,
        ),
    };
    Ok(PodPort {
        container_port: number(port.container_port)?,
        host_port: number(port.host_port)?,
        host_ip,
        protocol,
    })
}

fn pid(options: &v1::NamespaceOption) -> PidScope {
    match options.pid() {
        v1::NamespaceMode::Pod => PidScope::Pod,
        v1::NamespaceMode::Container => PidScope::Container,
        v1::NamespaceMode::Node => PidScope::Node,
        v1::NamespaceMode::Target => PidScope::Target(options.target_id.clone()),
    }
}

/// One range of ids from 0 on, the same for users and groups; none: the host's.
fn users(options: &v1::UserNamespace) -> Result<Option<IdMapping>, Status> {
    match options.mode() {
        v1::NamespaceMode::Node => return Ok(None),
        v1::NamespaceMode::Pod => {}
        mode => {
            let mode = mode.as_str_name();
            return Err(Status::invalid_argument(format!("unsupported mode of a user namespace: {mode}")));
        }
    }
    if options.uids != options.gids {
        return Err(Status::invalid_argument("a user namespace needs the same ids for users and groups"));
    }
    mapping(&options.uids).map(Some)
}

fn mapping(lines: &[v1::IdMapping]) -> Result<IdMapping, Status> {
    let [line] = lines else {
        return Err(Status::invalid_argument("exactly one range of ids is supported in a mapping"));
    };
    if line.container_id != 0 || line.length == 0 {
        return Err(Status::invalid_argument("the range of a mapping must begin with id 0 of the container"));
    }
    Ok(IdMapping { host_id: line.host_id, length: line.length })
}

/// A container.
pub(crate) fn container(config: v1::ContainerConfig) -> Result<ContainerSpec, Status> {
    let metadata = config.metadata.ok_or_else(|| missing("config.metadata"))?;
    let image = config.image.ok_or_else(|| missing("config.image"))?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    refuse_label(security.selinux_options.as_ref())?;
    let stop_signal = signal::name(config.stop_signal);
    Ok(ContainerSpec {
        name: metadata.name,
        attempt: metadata.attempt,
        asked_image: match image.user_specified_image.as_str() {
            "" => image.image.clone(),
            _ => image.user_specified_image,
        },
        image: image.image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        env: config.envs.into_iter().map(|pair| (pair.key, text(pair.value))).collect(),
        mounts: config.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().map(device).collect(),
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        log_path: config.log_path,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal,
        resources: resources(linux.resources.unwrap_or_default()),
        security: self::security(security)?,
    })
}

/// A label counts only where SELinux is in force; there a process must not run without the one it was promised.
fn refuse_label(label: Option<&v1::SeLinuxOption>) -> Result<(), Status> {
    match label.filter(|label| **label != v1::SeLinuxOption::default()) {
        Some(label) if Path::new("/sys/fs/selinux/enforce").exists() => {
            Err(Status::invalid_argument(format!(
                "seLinuxOptions ({}:{}:{}:{}) are not supported: remove them from the pod",
                label.user, label.role, label.r#type, label.level
            )))
        }
        _ => Ok(()),
    }
}

/// A variable's value; what is no UTF-8 cannot be given to a program by config.json either.
fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn device(device: v1::Device) -> PodDevice {
    PodDevice {
        container_path: device.container_path,
        host_path: device.host_path,
        permissions: device.permissions,
    }
}

fn mount(mount: v1::Mount) -> Result<PodMount, Status> {
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => Propagation::Private,
        v1::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        v1::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if mount.uid_mappings != mount.gid_mappings {
        return Err(Status::invalid_argument("a mount needs the same ids for users and groups"));
    }
    let ids = match mount.uid_mappings.as_slice() {
        [] => None,
        lines => Some(mapping(lines)?),
    };
    Ok(PodMount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        read_only: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        relabel: mount.selinux_relabel,
        propagation,
        ids,
        image: mount.image.map(|image| image.image).filter(|image| !image.is_empty()),
        image_sub_path: mount.image_sub_path,
    })
}

/// Limits.
pub(crate) fn resources(wanted: v1::LinuxContainerResources) -> PodResources {
    PodResources {
        cpu_period: wanted.cpu_period,
        cpu_quota: wanted.cpu_quota,
        cpu_shares: wanted.cpu_shares,
        cpuset_cpus: wanted.cpuset_cpus,
        cpuset_mems: wanted.cpuset_mems,
        memory: wanted.memory_limit_in_bytes,
        memory_swap: wanted.memory_swap_limit_in_bytes,
        oom_score_adj: wanted.oom_score_adj,
        hugepages: wanted.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect(),
        unified: wanted.unified.into_iter().collect(),
        ..PodResources::default()
    }
}

#[allow(deprecated)]
fn security(given: v1::LinuxContainerSecurityContext) -> Result<PodSecurity, Status> {
    let id = |value: Option<v1::Int64Value>, what: &str| {
        let number = value.map(|value| u32::try_from(value.value)).transpose();
        number.map_err(|_| Status::invalid_argument(format!("{what} is no id")))
    };
    let capabilities = given.capabilities.clone().unwrap_or_default();
    let groups = given.supplemental_groups.iter().map(|group| u32::try_from(*group));
    Ok(PodSecurity {
        privileged: given.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        ambient_capabilities: capabilities.add_ambient_capabilities,
        pid: given.namespace_options.as_ref().map(pid).unwrap_or_default(),
        run_as_user: id(given.run_as_user, "run_as_user")?,
        run_as_group: id(given.run_as_group, "run_as_group")?,
        strict_groups: given.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Strict,
        supplemental_groups: groups
            .collect::<Result<_, _>>()
            .map_err(|_| Status::invalid_argument("a supplemental group is no id"))?,
        seccomp: profile(given.seccomp, &given.seccomp_profile_path)?,
        apparmor: profile(given.apparmor, &given.apparmor_profile)?,
        run_as_username: given.run_as_username,
        readonly_rootfs: given.readonly_rootfs,
        no_new_privs: given.no_new_privs,
        masked_paths: given.masked_paths,
        readonly_paths: given.readonly_paths,
    })
}

/// A profile, or what older clients write into a text: `localhost/…`, `runtime/default`, `unconfined`.
fn profile(given: Option<v1::SecurityProfile>, old: &str) -> Result<Option<SecurityProfile>, Status> {
    use v1::security_profile::ProfileType;
    let Some(given) = given else {
        return match old {
            "" => Ok(None),
            "unconfined" => Ok(Some(SecurityProfile::Unconfined)),
            "runtime/default" | "docker/default" => Ok(Some(SecurityProfile::RuntimeDefault)),
            old => match old.strip_prefix("localhost/") {
                Some(name) => Ok(Some(SecurityProfile::Localhost(name.to_owned()))),
                None => Err(Status::invalid_argument(format!("invalid security profile {old:?}"))),
            },
        };
    };
    Ok(Some(match given.profile_type() {
        ProfileType::RuntimeDefault => SecurityProfile::RuntimeDefault,
        ProfileType::Unconfined => SecurityProfile::Unconfined,
        ProfileType::Localhost => SecurityProfile::Localhost(given.localhost_ref),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_namespaces_are_one_range_for_both() {
        let line = |container_id, length| v1::IdMapping { host_id: 65536, container_id, length };
        let with = |mode: v1::NamespaceMode, uids: Vec<v1::IdMapping>, gids| {
            users(&v1::UserNamespace { mode: mode as i32, uids, gids })
        };
        let one = vec![line(0, 65536)];
        let found = with(v1::NamespaceMode::Pod, one.clone(), one.clone()).unwrap();
        assert_eq!(found, Some(IdMapping { host_id: 65536, length: 65536 }));
        assert_eq!(with(v1::NamespaceMode::Node, vec![], vec![]).unwrap(), None);
        assert!(with(v1::NamespaceMode::Pod, one.clone(), vec![]).is_err());
        assert!(with(v1::NamespaceMode::Pod, vec![line(5, 10)], vec![line(5, 10)]).is_err());
        assert!(with(v1::NamespaceMode::Target, one.clone(), one).is_err());
    }

    #[test]
    fn the_new_field_of_a_profile_beats_the_old_one() {
        let new = v1::SecurityProfile { profile_type: 1, ..Default::default() };
        assert_eq!(profile(Some(new), "runtime/default").unwrap(), Some(SecurityProfile::Unconfined));
        let old = profile(None, "localhost//etc/x.json").unwrap();
        assert_eq!(old, Some(SecurityProfile::Localhost("/etc/x.json".into())));
        assert!(profile(None, "bogus").is_err());
        assert_eq!(profile(None, "").unwrap(), None);
    }

    #[test]
    fn a_handler_that_nobody_knows_is_refused() {
        let config = v1::PodSandboxConfig { metadata: Some(Default::default()), ..Default::default() };
        assert!(sandbox(config.clone(), "berth".into()).is_ok());
        let error = sandbox(config, "kata".into()).unwrap_err();
        assert_eq!(error.message(), "no runtime for \"kata\" is configured");
    }
}
