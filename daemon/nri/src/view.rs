//! Pods and containers as plugins see them: the engine's views, and what config.json says of a container.

use std::collections::BTreeMap;

use berth_engine::{ContainerPhase, ContainerView, SandboxView};
use serde_json::Value;

use crate::adjust::list;
use crate::{api, resources};

fn nanoseconds(at: Option<jiff::Timestamp>) -> i64 {
    at.and_then(|at| i64::try_from(at.as_nanosecond()).ok()).unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn words(value: &Value) -> Vec<String> {
    list(value).map(text).collect()
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// An object of texts.
pub(crate) fn texts(value: &Value) -> BTreeMap<String, String> {
    let all = value.as_object().into_iter().flatten();
    all.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A pod.
pub(crate) fn pod(sandbox: &SandboxView) -> api::PodSandbox {
    let spec = &sandbox.spec;
    let network = sandbox
        .network
        .iter()
        .map(|path| api::LinuxNamespace { r#type: "network".to_owned(), path: path.display().to_string() });
    api::PodSandbox {
        id: sandbox.id.clone(),
        name: spec.name.clone(),
        uid: spec.uid.clone(),
        namespace: spec.namespace.clone(),
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        runtime_handler: spec.runtime_handler.clone(),
        linux: Some(api::LinuxPodSandbox {
            cgroup_parent: spec.cgroup_parent.clone(),
            namespaces: network.collect(),
            ..Default::default()
        }),
        pid: 0,
        ips: sandbox.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// A container.
pub(crate) fn container(container: &ContainerView, config: &Value) -> api::Container {
    let (status, process) = (&container.status, &config["process"]);
    let state = match status.phase {
        ContainerPhase::Created => api::ContainerState::ContainerCreated,
        ContainerPhase::Running => api::ContainerState::ContainerRunning,
        ContainerPhase::Exited => api::ContainerState::ContainerStopped,
    };
    let mut annotations = container.spec.annotations.clone();
    annotations.extend(texts(&config["annotations"]));
    api::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        name: container.spec.name.clone(),
        state: state as i32,
        labels: container.spec.labels.clone(),
        annotations,
        args: words(&process["args"]),
        env: words(&process["env"]),
        mounts: list(&config["mounts"]).map(mount).collect(),
        hooks: config["hooks"].is_object().then(|| hooks(&config["hooks"])),
        linux: Some(linux(config)),
        pid: u32::try_from(status.pid).unwrap_or(0),
        rlimits: list(&process["rlimits"])
            .map(|limit| api::PosixRlimit {
                r#type: text(&limit["type"]),
                hard: limit["hard"].as_u64().unwrap_or(0),
                soft: limit["soft"].as_u64().unwrap_or(0),
            })
            .collect(),
        created_at: nanoseconds(Some(container.created)),
        started_at: nanoseconds(status.started),
        finished_at: nanoseconds(status.finished),
        exit_code: status.exit_code,
        status_reason: String::new(),
        status_message: status.message.clone(),
        cdi_devices: container
            .spec
            .cdi_devices
            .iter()
            .map(|name| api::CdiDevice { name: name.clone() })
            .collect(),
        user: Some(api::User {
            uid: container.user.uid,
            gid: container.user.gid,
            additional_gids: container.user.groups.clone(),
        }),
    }
}

fn mount(mount: &Value) -> api::Mount {
    api::Mount {
        destination: text(&mount["destination"]),
        r#type: text(&mount["type"]),
        source: text(&mount["source"]),
        options: words(&mount["options"]),
    }
}

fn hooks(all: &Value) -> api::Hooks {
    let of = |kind: &str| -> Vec<api::Hook> {
        list(&all[kind])
            .map(|hook| api::Hook {
                path: text(&hook["path"]),
                args: words(&hook["args"]),
                env: words(&hook["env"]),
                timeout: hook["timeout"].as_i64().map(|value| api::OptionalInt { value }),
            })
            .collect()
    };
    api::Hooks {
        prestart: of("prestart"),
        create_runtime: of("createRuntime"),
        create_container: of("createContainer"),
        start_container: of("startContainer"),
        poststart: of("poststart"),
        poststop: of("poststop"),
    }
}

fn linux(config: &Value) -> api::LinuxContainer {
    let linux = &config["linux"];
    api::LinuxContainer {
        namespaces: list(&linux["namespaces"])
            .map(|one| api::LinuxNamespace { r#type: text(&one["type"]), path: text(&one["path"]) })
            .collect(),
        devices: list(&linux["devices"]).map(device).collect(),
        resources: Some(resources::view(config)),
        oom_score_adj: config["process"]["oomScoreAdj"].as_i64().map(|value| api::OptionalInt { value }),
        cgroups_path: text(&linux["cgroupsPath"]),
        sysctl: texts(&linux["sysctl"]),
        ..Default::default()
    }
}

fn device(device: &Value) -> api::LinuxDevice {
    let optional = |value: &Value| value.is_number().then(|| api::OptionalUInt32 { value: number(value) });
    api::LinuxDevice {
        path: text(&device["path"]),
        r#type: text(&device["type"]),
        major: device["major"].as_i64().unwrap_or(0),
        minor: device["minor"].as_i64().unwrap_or(0),
        file_mode: device["fileMode"]
            .is_number()
            .then(|| api::OptionalFileMode { value: number(&device["fileMode"]) }),
        uid: optional(&device["uid"]),
        gid: optional(&device["gid"]),
    }
}
