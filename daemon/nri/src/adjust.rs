//! What a plugin wants of a new container, done to its config.json. Pure.
//!
//! A name that begins with `-` takes away what has the rest as its name.

use serde_json::{Value, json};

use crate::{api, resources};

/// The name that is to be taken away, if it is marked so.
pub(crate) fn marked(name: &str) -> Option<&str> {
    name.strip_prefix('-')
}

/// The entries of a list that may not be there.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Takes the entries away whose `key` is `name`, and appends the one that takes their place.
pub(crate) fn replace(list: &mut Value, key: &str, name: &str, with: Option<Value>) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(entries) = list.as_array_mut() {
        entries.retain(|entry| entry[key] != name);
        entries.extend(with);
    }
}

/// Does to config.json what a plugin wants; devices of CDI files are left to the engine.
pub(crate) fn apply(config: &mut Value, adjust: &api::ContainerAdjustment) -> Result<(), String> {
    pairs(&mut config["annotations"], adjust.annotations.iter());
    for mount in &adjust.mounts {
        match marked(&mount.destination) {
            Some(path) => replace(&mut config["mounts"], "destination", path, None),
            None => {
                let mut entry = json!({"destination": mount.destination, "options": mount.options});
                for (key, text) in [("type", &mount.r#type), ("source", &mount.source)] {
                    if !text.is_empty() {
                        entry[key] = json!(text);
                    }
                }
                replace(&mut config["mounts"], "destination", &mount.destination, Some(entry));
            }
        }
    }
    if !adjust.mounts.is_empty()
        && let Some(mounts) = config["mounts"].as_array_mut()
    {
        // What is mounted below another mount comes after it.
        mounts.sort_by_key(|mount| depth(mount["destination"].as_str().unwrap_or_default()));
    }
    environment(&mut config["process"]["env"], &adjust.env);
    match adjust.args.as_slice() {
        [] => {}
        [first, rest @ ..] if first.is_empty() => config["process"]["args"] = json!(rest),
        args => config["process"]["args"] = json!(args),
    }
    for limit in &adjust.rlimits {
        let entry = json!({"type": limit.r#type, "hard": limit.hard, "soft": limit.soft});
        replace(&mut config["process"]["rlimits"], "type", &limit.r#type, Some(entry));
    }
    if let Some(wanted) = &adjust.hooks {
        hooks(config, wanted);
    }
    match &adjust.linux {
        Some(linux) => self::linux(config, linux),
        None => Ok(()),
    }
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

fn pairs<'a>(object: &mut Value, pairs: impl Iterator<Item = (&'a String, &'a String)> + Clone) {
    for (key, _) in pairs.clone() {
        if let (Some(key), Some(object)) = (marked(key), object.as_object_mut()) {
            object.remove(key);
        }
    }
    for (key, value) in pairs.filter(|(key, _)| marked(key).is_none()) {
        object[key] = json!(value);
    }
}

fn environment(env: &mut Value, wanted: &[api::KeyValue]) {
    if wanted.is_empty() {
        return;
    }
    let mut all: Vec<String> = list(env).filter_map(Value::as_str).map(str::to_owned).collect();
    for variable in wanted {
        let key = marked(&variable.key).unwrap_or(&variable.key);
        all.retain(|one| one.split('=').next() != Some(key));
        if marked(&variable.key).is_none() {
            all.push(format!("{key}={}", variable.value));
        }
    }
    *env = json!(all);
}

fn hooks(config: &mut Value, wanted: &api::Hooks) {
    let kinds = [
        ("prestart", &wanted.prestart),
        ("createRuntime", &wanted.create_runtime),
        ("createContainer", &wanted.create_container),
        ("startContainer", &wanted.start_container),
        ("poststart", &wanted.poststart),
        ("poststop", &wanted.poststop),
    ];
    for (kind, hooks) in kinds.into_iter().filter(|(_, hooks)| !hooks.is_empty()) {
        let all = &mut config["hooks"][kind];
        let mut entries = all.as_array().cloned().unwrap_or_default();
        for hook in hooks {
            let mut entry = json!({"path": hook.path, "args": hook.args, "env": hook.env});
            if let Some(timeout) = hook.timeout {
                entry["timeout"] = json!(timeout.value);
            }
            entries.push(entry);
        }
        *all = json!(entries);
    }
}

fn linux(config: &mut Value, wanted: &api::LinuxContainerAdjustment) -> Result<(), String> {
    for device in &wanted.devices {
        self::device(config, device);
    }
    for namespace in &wanted.namespaces {
        let name = marked(&namespace.r#type).unwrap_or(&namespace.r#type);
        let mut entry = json!({"type": name});
        if !namespace.path.is_empty() {
            entry["path"] = json!(namespace.path);
        }
        let with = marked(&namespace.r#type).is_none().then_some(entry);
        replace(&mut config["linux"]["namespaces"], "type", name, with);
    }
    pairs(&mut config["linux"]["sysctl"], wanted.sysctl.iter());
    for (name, device) in &wanted.net_devices {
        match (marked(name), config["linux"]["netDevices"].as_object_mut()) {
            (None, _) => config["linux"]["netDevices"][name] = json!({"name": device.name}),
            (Some(name), Some(devices)) => drop(devices.remove(name)),
            (Some(_), None) => {}
        }
    }
    if !wanted.cgroups_path.is_empty() {
        config["linux"]["cgroupsPath"] = json!(wanted.cgroups_path);
    }
    if let Some(score) = wanted.oom_score_adj {
        config["process"]["oomScoreAdj"] = json!(score.value);
    }
    if let Some(priority) = &wanted.io_priority {
        let class = priority.class().as_str_name();
        let none = priority.class() == api::IoPrioClass::IoprioClassNone;
        config["process"]["ioPriority"] =
            if none { Value::Null } else { json!({"class": class, "priority": priority.priority}) };
    }
    if let Some(scheduler) = &wanted.scheduler {
        config["process"]["scheduler"] = self::scheduler(scheduler);
    }
    if let Some(policy) = &wanted.seccomp_policy {
        config["linux"]["seccomp"] = seccomp(policy);
    }
    if let Some(policy) = &wanted.memory_policy {
        let flags: Vec<&str> = policy.flags().map(|flag| flag.as_str_name()).collect();
        config["linux"]["memoryPolicy"] =
            json!({"mode": policy.mode().as_str_name(), "nodes": policy.nodes, "flags": flags});
    }
    if let Some(rdt) = &wanted.rdt {
        self::rdt(&mut config["linux"]["intelRdt"], rdt);
    }
    wanted.resources.as_ref().map_or(Ok(()), |wanted| resources::set(config, wanted))
}

/// The device, and the right to use it.
fn device(config: &mut Value, device: &api::LinuxDevice) {
    if let Some(path) = marked(&device.path) {
        return replace(&mut config["linux"]["devices"], "path", path, None);
    }
    let mut entry = json!({
        "path": device.path, "type": device.r#type, "major": device.major, "minor": device.minor,
    });
    let numbers = [
        ("fileMode", device.file_mode.map(|mode| mode.value)),
        ("uid", device.uid.map(|uid| uid.value)),
        ("gid", device.gid.map(|gid| gid.value)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            entry[key] = json!(value);
        }
    }
    replace(&mut config["linux"]["devices"], "path", &device.path, Some(entry));
    let rule = json!({
        "allow": true, "type": device.r#type, "major": device.major, "minor": device.minor, "access": "rwm",
    });
    let rules = &mut config["linux"]["resources"]["devices"];
    let mut all = rules.as_array().cloned().unwrap_or_default();
    all.push(rule);
    *rules = json!(all);
}

fn scheduler(wanted: &api::LinuxScheduler) -> Value {
    let flags: Vec<&str> = wanted.flags().map(|flag| flag.as_str_name()).collect();
    let policy = wanted.policy();
    if policy == api::LinuxSchedulerPolicy::SchedNone {
        return Value::Null;
    }
    json!({
        "policy": policy.as_str_name(), "nice": wanted.nice, "priority": wanted.priority, "flags": flags,
        "runtime": wanted.runtime, "deadline": wanted.deadline, "period": wanted.period,
    })
}

fn seccomp(policy: &api::LinuxSeccomp) -> Value {
    let syscalls = policy.syscalls.iter().map(|call| {
        let args = call.args.iter().map(
            |arg| json!({"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}),
        );
        let mut entry = json!({"names": call.names, "action": call.action, "args": args.collect::<Vec<_>>()});
        if let Some(errno) = call.errno_ret {
            entry["errnoRet"] = json!(errno.value);
        }
        entry
    });
    let mut found = json!({"defaultAction": policy.default_action, "syscalls": syscalls.collect::<Vec<_>>()});
    for (key, list) in [("architectures", &policy.architectures), ("flags", &policy.flags)] {
        if !list.is_empty() {
            found[key] = json!(list);
        }
    }
    let listener = [("listenerPath", &policy.listener_path), ("listenerMetadata", &policy.listener_metadata)];
    for (key, text) in listener {
        if !text.is_empty() {
            found[key] = json!(text);
        }
    }
    if let Some(errno) = policy.default_errno {
        found["defaultErrnoRet"] = json!(errno.value);
    }
    found
}

fn rdt(rdt: &mut Value, wanted: &api::LinuxRdt) {
    if wanted.remove {
        *rdt = Value::Null;
    }
    if let Some(id) = &wanted.clos_id {
        rdt["closID"] = json!(id.value);
    }
    if let Some(schemata) = &wanted.schemata {
        rdt["schemata"] = json!(schemata.value);
    }
    if let Some(monitoring) = wanted.enable_monitoring {
        rdt["enableMonitoring"] = json!(monitoring.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_names_take_away_and_others_replace() {
        let mut config = json!({
            "annotations": {"gone": "1", "stays": "2"},
            "mounts": [{"destination": "/proc"}, {"destination": "/a/b"}, {"destination": "/old"}],
            "process": {"env": ["A=1", "B=2"], "args": ["x"]},
        });
        let mount = |path: &str| api::Mount {
            destination: path.into(),
            r#type: "bind".into(),
            source: "/src".into(),
            options: vec!["ro".into()],
        };
        let variable = |key: &str| api::KeyValue { key: key.into(), value: "new".into() };
        let adjust = api::ContainerAdjustment {
            annotations: [("-gone".into(), String::new()), ("new".into(), "3".into())].into(),
            mounts: vec![mount("/a"), mount("-/old")],
            env: vec![variable("A"), variable("-B")],
            args: vec![String::new(), "y".into()],
            ..Default::default()
        };
        apply(&mut config, &adjust).unwrap();
        assert_eq!(config["annotations"], json!({"stays": "2", "new": "3"}));
        let paths: Vec<&Value> = list(&config["mounts"]).map(|mount| &mount["destination"]).collect();
        assert_eq!(paths, ["/proc", "/a", "/a/b"]);
        assert_eq!(config["process"], json!({"env": ["A=new"], "args": ["y"]}));
    }

    #[test]
    fn a_config_that_was_adjusted_in_every_way_is_still_one() {
        let mut config = serde_json::to_value(berth_spec::oci::Spec::default()).unwrap();
        let hook = api::Hook { path: "/bin/true".into(), ..Default::default() };
        let adjust = api::ContainerAdjustment {
            hooks: Some(api::Hooks {
                create_runtime: vec![hook.clone()],
                poststop: vec![hook],
                ..Default::default()
            }),
            rlimits: vec![api::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 20, soft: 10 }],
            linux: Some(api::LinuxContainerAdjustment {
                devices: vec![api::LinuxDevice {
                    path: "/dev/x".into(),
                    r#type: "c".into(),
                    major: 1,
                    minor: 3,
                    file_mode: Some(api::OptionalFileMode { value: 0o666 }),
                    ..Default::default()
                }],
                resources: Some(api::LinuxResources {
                    memory: Some(api::LinuxMemory {
                        limit: Some(api::OptionalInt64 { value: 1 << 20 }),
                        ..Default::default()
                    }),
                    pids: Some(api::LinuxPids { limit: 7 }),
                    unified: [("memory.high".into(), "1".into())].into(),
                    ..Default::default()
                }),
                cgroups_path: "/x".into(),
                oom_score_adj: Some(api::OptionalInt { value: 5 }),
                io_priority: Some(api::LinuxIoPriority {
                    class: api::IoPrioClass::IoprioClassBe as i32,
                    priority: 4,
                }),
                seccomp_policy: Some(api::LinuxSeccomp {
                    default_action: "SCMP_ACT_ALLOW".into(),
                    syscalls: vec![api::LinuxSyscall {
                        names: vec!["mkdir".into()],
                        action: "SCMP_ACT_ERRNO".into(),
                        errno_ret: Some(api::OptionalUInt32 { value: 1 }),
                        args: vec![],
                    }],
                    ..Default::default()
                }),
                sysctl: [("net.ipv4.ip_forward".into(), "1".into())].into(),
                scheduler: Some(api::LinuxScheduler {
                    policy: api::LinuxSchedulerPolicy::SchedBatch as i32,
                    nice: 5,
                    ..Default::default()
                }),
                memory_policy: Some(api::LinuxMemoryPolicy {
                    mode: api::MpolMode::MpolBind as i32,
                    nodes: "0".into(),
                    flags: vec![api::MpolFlag::MpolFStaticNodes as i32],
                }),
                namespaces: vec![api::LinuxNamespace { r#type: "-network".into(), path: String::new() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        apply(&mut config, &adjust).unwrap();
        let spec: berth_spec::oci::Spec = serde_json::from_value(config).unwrap();
        let linux = spec.linux().clone().unwrap();
        assert!(linux.memory_policy().is_some() && linux.seccomp().is_some());
        assert_eq!(linux.cgroups_path().clone().unwrap().to_str(), Some("/x"));
        assert_eq!(linux.resources().clone().unwrap().pids().unwrap().limit(), 7);
        assert_eq!(spec.process().clone().unwrap().oom_score_adj(), Some(5));
    }

    #[test]
    fn classes_that_nobody_configured_are_refused() {
        let mut config = json!({});
        let class = Some(api::OptionalString { value: "gold".into() });
        let wanted = api::LinuxResources { rdt_class: class, ..Default::default() };
        assert!(resources::set(&mut config, &wanted).unwrap_err().contains("not configured"));
    }
}
