//! A device's edits, done to a config.json.

use berth_spec::oci;

use super::file::{Edits, Hook, Mount, Node};
use crate::error::{EngineError, Result};
use crate::spec::devices;

/// Does them, in the order of the specification.
pub(super) fn apply(edits: &Edits, spec: &mut oci::Spec) -> Result<()> {
    if let Some(process) = spec.process_mut() {
        let env = process.env().clone().unwrap_or_default();
        // The last of one name counts.
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let kept = env.into_iter().filter(|old| !edits.env.iter().any(|new| name(new) == name(old)));
        process.set_env(Some(kept.chain(edits.env.iter().cloned()).collect()));
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
            if !groups.contains(gid) {
                groups.push(*gid);
            }
        }
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    for node in &edits.device_nodes {
        device(node, spec)?;
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(edits.mounts.iter().map(mount));
    spec.set_mounts(Some(mounts));
    edits.hooks.iter().try_for_each(|one| hook(one, spec))
}

fn device(node: &Node, spec: &mut oci::Spec) -> Result<()> {
    let outside = if node.host_path.as_os_str().is_empty() { &node.path } else { &node.host_path };
    let mut made = oci::LinuxDevice::default();
    if node.kind.is_empty() || (node.major == 0 && node.kind != "p") {
        made = devices::node(outside, &node.path).ok_or_else(|| {
            EngineError::internal(format!(
                "CDI device injection failed: {} is not a device node on this host",
                outside.display()
            ))
        })?;
    } else {
        let kind = match node.kind.as_str() {
            "b" => oci::LinuxDeviceType::B,
            "p" => oci::LinuxDeviceType::P,
            "u" => oci::LinuxDeviceType::U,
            _ => oci::LinuxDeviceType::C,
        };
        made.set_path(node.path.clone()).set_typ(kind).set_major(node.major).set_minor(node.minor);
    }
    if node.file_mode.is_some() {
        made.set_file_mode(node.file_mode);
    }
    if node.uid.is_some() {
        made.set_uid(node.uid);
    }
    if node.gid.is_some() {
        made.set_gid(node.gid);
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(made.typ())).set_access(Some(access.to_owned()));
    rule.set_major(Some(made.major())).set_minor(Some(made.minor()));
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.push(rule);
    resources.set_devices(Some(rules));
    let mut nodes = linux.devices().clone().unwrap_or_default();
    nodes.retain(|old| old.path() != made.path());
    nodes.push(made);
    linux.set_resources(Some(resources)).set_devices(Some(nodes));
    spec.set_linux(Some(linux));
    Ok(())
}

fn mount(wanted: &Mount) -> oci::Mount {
    let mut mount = oci::Mount::default();
    let kind = if wanted.kind.is_empty() { "bind" } else { &wanted.kind };
    let mut options = wanted.options.clone();
    if kind == "bind" && !options.iter().any(|option| ["bind", "rbind"].contains(&option.as_str())) {
        options.push("bind".to_owned());
    }
    mount.set_destination(wanted.container_path.clone()).set_source(Some(wanted.host_path.clone()));
    mount.set_typ(Some(kind.to_owned())).set_options(Some(options));
    mount
}

fn hook(wanted: &Hook, spec: &mut oci::Spec) -> Result<()> {
    let mut made = oci::Hook::default();
    made.set_path(wanted.path.clone()).set_timeout(wanted.timeout);
    made.set_args((!wanted.args.is_empty()).then(|| wanted.args.clone()));
    made.set_env((!wanted.env.is_empty()).then(|| wanted.env.clone()));
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let add =
        |list: &Option<Vec<oci::Hook>>| Some([list.clone().unwrap_or_default(), vec![made.clone()]].concat());
    match wanted.hook_name.as_str() {
        "createRuntime" | "prestart" => hooks.set_create_runtime(add(hooks.create_runtime())),
        "createContainer" => hooks.set_create_container(add(hooks.create_container())),
        "startContainer" => hooks.set_start_container(add(hooks.start_container())),
        "poststart" => hooks.set_poststart(add(hooks.poststart())),
        "poststop" => hooks.set_poststop(add(hooks.poststop())),
        other => {
            return Err(EngineError::internal(format!(
                "CDI device injection failed: {other:?} is no OCI hook"
            )));
        }
    };
    spec.set_hooks(Some(hooks));
    Ok(())
}
