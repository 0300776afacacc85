//! The engine's views as answers.

use berth_engine::{
    ContainerPhase, ContainerView, IdMapping, PidScope, PodMount, PodResources, Propagation, SandboxView,
};

use super::{nanoseconds, signal};
use crate::v1;

pub(crate) fn sandbox_state(sandbox: &SandboxView) -> v1::PodSandboxState {
    if sandbox.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

pub(crate) fn container_state(container: &ContainerView) -> v1::ContainerState {
    match container.status.phase {
        ContainerPhase::Created => v1::ContainerState::ContainerCreated,
        ContainerPhase::Running => v1::ContainerState::ContainerRunning,
        ContainerPhase::Exited => v1::ContainerState::ContainerExited,
    }
}

pub(crate) fn pod_metadata(sandbox: &SandboxView) -> v1::PodSandboxMetadata {
    let spec = &sandbox.spec;
    v1::PodSandboxMetadata {
        name: spec.name.clone(),
        uid: spec.uid.clone(),
        namespace: spec.namespace.clone(),
        attempt: spec.attempt,
    }
}

pub(crate) fn container_metadata(container: &ContainerView) -> v1::ContainerMetadata {
    v1::ContainerMetadata { name: container.spec.name.clone(), attempt: container.spec.attempt }
}

/// A sandbox in a list.
pub(crate) fn sandbox_item(sandbox: &SandboxView) -> v1::PodSandbox {
    v1::PodSandbox {
        id: sandbox.id.clone(),
        metadata: Some(pod_metadata(sandbox)),
        state: sandbox_state(sandbox) as i32,
        created_at: nanoseconds(Some(sandbox.created)),
        labels: sandbox.spec.labels.clone().into_iter().collect(),
        annotations: sandbox.spec.annotations.clone().into_iter().collect(),
        runtime_handler: sandbox.spec.runtime_handler.clone(),
    }
}

/// A sandbox by itself.
pub(crate) fn sandbox_status(sandbox: &SandboxView) -> v1::PodSandboxStatus {
    let mut addresses = sandbox.addresses.iter().map(ToString::to_string);
    let network = v1::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| v1::PodIp { ip }).collect(),
    };
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: Some(pod_metadata(sandbox)),
        state: sandbox_state(sandbox) as i32,
        created_at: nanoseconds(Some(sandbox.created)),
        network: Some(network),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(namespaces(sandbox)) }),
        }),
        labels: sandbox.spec.labels.clone().into_iter().collect(),
        annotations: sandbox.spec.annotations.clone().into_iter().collect(),
        runtime_handler: sandbox.spec.runtime_handler.clone(),
    }
}

/// The options as they were asked for; the orchestrator compares.
fn namespaces(sandbox: &SandboxView) -> v1::NamespaceOption {
    let own = &sandbox.spec.namespaces;
    let of_host = |host| if host { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let (pid, target_id) = match &own.pid {
        PidScope::Pod => (v1::NamespaceMode::Pod, String::new()),
        PidScope::Container => (v1::NamespaceMode::Container, String::new()),
        PidScope::Node => (v1::NamespaceMode::Node, String::new()),
        PidScope::Target(id) => (v1::NamespaceMode::Target, id.clone()),
    };
    v1::NamespaceOption {
        network: of_host(own.host_network) as i32,
        pid: pid as i32,
        ipc: of_host(own.host_ipc) as i32,
        target_id,
        userns_options: own.users.map(|users| v1::UserNamespace {
            mode: v1::NamespaceMode::Pod as i32,
            uids: mapping(users),
            gids: mapping(users),
        }),
    }
}

fn mapping(ids: IdMapping) -> Vec<v1::IdMapping> {
    vec![v1::IdMapping { host_id: ids.host_id, container_id: 0, length: ids.length }]
}

fn image_spec(container: &ContainerView) -> v1::ImageSpec {
    v1::ImageSpec {
        image: container.image_name.clone(),
        user_specified_image: container.spec.asked_image.clone(),
        ..v1::ImageSpec::default()
    }
}

/// A container in a list.
pub(crate) fn container_item(container: &ContainerView) -> v1::Container {
    v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: Some(container_metadata(container)),
        image: Some(image_spec(container)),
        image_ref: container.image_id.clone(),
        state: container_state(container) as i32,
        created_at: nanoseconds(Some(container.created)),
        labels: container.spec.labels.clone().into_iter().collect(),
        annotations: container.spec.annotations.clone().into_iter().collect(),
        image_id: container.image_id.clone(),
    }
}

/// A container by itself.
pub(crate) fn container_status(container: &ContainerView) -> v1::ContainerStatus {
    let (spec, status) = (&container.spec, &container.status);
    v1::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(container_metadata(container)),
        state: container_state(container) as i32,
        created_at: nanoseconds(Some(container.created)),
        started_at: nanoseconds(status.started),
        finished_at: nanoseconds(status.finished),
        exit_code: status.exit_code,
        image: Some(image_spec(container)),
        image_ref: container.image_ref.clone(),
        reason: reason(container).to_owned(),
        message: status.message.clone(),
        labels: spec.labels.clone().into_iter().collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        mounts: mounts(container),
        log_path: container.log.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: Some(v1::ContainerResources { linux: Some(resources(&spec.resources)), windows: None }),
        image_id: container.image_id.clone(),
        user: Some(v1::ContainerUser {
            linux: Some(v1::LinuxContainerUser {
                uid: container.user.uid.into(),
                gid: container.user.gid.into(),
                supplemental_groups: container.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }),
        stop_signal: signal::number(container.stop_signal),
    }
}

/// Why it ended, in the words that clients look for.
fn reason(container: &ContainerView) -> &'static str {
    let status = &container.status;
    match status.phase {
        ContainerPhase::Created | ContainerPhase::Running => "",
        ContainerPhase::Exited if status.start_failed => "StartError",
        ContainerPhase::Exited if status.lost => "Unknown",
        ContainerPhase::Exited if status.oom_killed => "OOMKilled",
        ContainerPhase::Exited if status.exit_code == 0 => "Completed",
        ContainerPhase::Exited => "Error",
    }
}

fn mounts(container: &ContainerView) -> Vec<v1::Mount> {
    let mut images = container.mounted_images.iter();
    container.spec.mounts.iter().map(|mount| self::mount(mount, &mut images)).collect()
}

fn mount<'a>(mount: &PodMount, images: &mut impl Iterator<Item = &'a String>) -> v1::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    let ids = mount.ids.map(mapping).unwrap_or_default();
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.read_only,
        selinux_relabel: mount.relabel,
        propagation: propagation as i32,
        uid_mappings: ids.clone(),
        gid_mappings: ids,
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| v1::ImageSpec {
            image: image.clone(),
            image_ref: images.next().cloned().unwrap_or_default(),
            ..v1::ImageSpec::default()
        }),
        image_sub_path: mount.image_sub_path.clone(),
    }
}

/// Limits in force.
pub(crate) fn resources(limits: &PodResources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory,
        oom_score_adj: limits.oom_score_adj,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        hugepage_limits: limits
            .hugepages
            .iter()
            .map(|(size, limit)| v1::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: limits.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: limits.memory_swap,
    }
}
