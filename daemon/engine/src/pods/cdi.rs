//! Devices by name: what vendors say in CDI files is added to config.json.
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_spec::oci;
use serde::Deserialize;

use super::model::Pairs;
use crate::error::{EngineError, IoContext as _, Result};
use crate::spec::devices;

/// Annotations with this beginning name devices, too.
const ANNOTATION: &str = "cdi.k8s.io/";

/// Directories of CDI files; a later one overrides an earlier.
#[derive(Debug, Clone)]
pub struct CdiDirs(pub Vec<PathBuf>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// `vendor.com/class=name`
fn parse(name: &str) -> Result<(&str, &str)> {
    let parts = name.split_once('=').filter(|(kind, device)| kind.contains('/') && !device.is_empty());
    parts.ok_or_else(|| {
        EngineError::invalid(format!("{name:?} is no name of a CDI device: vendor/class=name is expected"))
    })
}

impl CdiDirs {
    /// Names of all devices, sorted.
    pub(crate) fn devices(&self) -> Vec<String> {
        match self.read() {
            Ok((devices, _)) => devices.into_keys().collect(),
            Err(error) => {
                tracing::warn!(%error, "CDI files");
                Vec::new()
            }
        }
    }

    /// Adds the devices that are named.
    pub(crate) fn inject(&self, spec: &mut oci::Spec, names: &[String], annotations: &Pairs) -> Result<()> {
        let annotated = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
        let annotated = annotated.flat_map(|(_, list)| list.split(',').map(|name| name.trim().to_owned()));
        let mut wanted: Vec<String> = names.iter().cloned().chain(annotated).collect();
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let (known, vendors) = self.read()?;
        let mut used = Vec::new();
        for name in &wanted {
            let (kind, _) = parse(name)?;
            let dirs: Vec<_> = self.0.iter().map(|dir| dir.display().to_string()).collect();
            let edits = known.get(name).ok_or_else(|| {
                EngineError::invalid(format!(
                    "unresolvable CDI device {name}: no file in {} has it",
                    dirs.join(", ")
                ))
            })?;
            apply(spec, edits)?;
            // What a vendor says of all its devices, once.
            if !used.contains(&kind) {
                used.push(kind);
                vendors.get(kind).map_or(Ok(()), |edits| apply(spec, edits))?;
            }
        }
        Ok(())
    }

    /// Edits by device, and by kind.
    fn read(&self) -> Result<(BTreeMap<String, Edits>, BTreeMap<String, Edits>)> {
        let (mut devices, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for dir in &self.0 {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                match read(&path) {
                    Ok(definition) => {
                        for device in definition.devices {
                            devices.insert(
                                format!("{}={}", definition.kind, device.name),
                                device.container_edits,
                            );
                        }
                        kinds.insert(definition.kind, definition.container_edits);
                    }
                    // Others' devices do not suffer from it.
                    Err(error) => tracing::warn!(%error, "a CDI file"),
                }
            }
        }
        Ok((devices, kinds))
    }
}

fn read(path: &Path) -> Result<Definition> {
    let text = std::fs::read(path).during("read", path)?;
    serde_json::from_slice(&text)
        .map_err(|error| EngineError::invalid(format!("{}: {error}", path.display())))
}

fn apply(spec: &mut oci::Spec, edits: &Edits) -> Result<()> {
    if let Some(process) = spec.process_mut() {
        let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let mut env = process.env().clone().unwrap_or_default();
        for entry in &edits.env {
            env.retain(|known| key(known) != key(entry));
            env.push(entry.clone());
        }
        process.set_env(Some(env));
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &edits.mounts {
        let mut made = oci::Mount::default();
        let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
        let options = if mount.options.is_empty() { vec!["rbind".to_owned()] } else { mount.options.clone() };
        made.set_destination((&mount.container_path).into()).set_typ(Some(kind.to_owned()));
        made.set_source(Some((&mount.host_path).into())).set_options(Some(options));
        mounts.push(made);
    }
    spec.set_mounts(Some(mounts));
    add_nodes(spec, &edits.device_nodes)?;
    add_hooks(spec, &edits.hooks)
}

fn add_nodes(spec: &mut oci::Spec, nodes: &[Node]) -> Result<()> {
    let mappings = nodes.iter().map(|node| berth_api::container::DeviceMapping {
        path_on_host: if node.host_path.is_empty() { node.path.clone() } else { node.host_path.clone() },
        path_in_container: node.path.clone(),
        cgroup_permissions: node.permissions.clone(),
    });
    let mut host = berth_api::container::HostConfig::default();
    host.resources.devices = Some(mappings.collect());
    let found = devices::collect(&host)?;
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut all = linux.devices().clone().unwrap_or_default();
    all.extend(found.nodes);
    linux.set_devices((!all.is_empty()).then_some(all));
    let mut limits = linux.resources().clone().unwrap_or_default();
    let mut rules = limits.devices().clone().unwrap_or_default();
    rules.extend(found.rules);
    limits.set_devices(Some(rules));
    linux.set_resources(Some(limits));
    Ok(())
}

fn add_hooks(spec: &mut oci::Spec, hooks: &[Hook]) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let mut all = spec.hooks().clone().unwrap_or_default();
    for hook in hooks {
        let mut made = oci::Hook::default();
        made.set_path((&hook.path).into()).set_args(Some(hook.args.clone())).set_env(Some(hook.env.clone()));
        made.set_timeout(hook.timeout);
        let list = match hook.hook_name.as_str() {
            "createRuntime" => all.create_runtime_mut(),
            "createContainer" => all.create_container_mut(),
            "startContainer" => all.start_container_mut(),
            "poststart" => all.poststart_mut(),
            "poststop" => all.poststop_mut(),
            other => {
                return Err(EngineError::invalid(format!(
                    "a CDI file wants the hook {other:?}, which there is not"
                )));
            }
        };
        list.get_or_insert_default().push(made);
    }
    spec.set_hooks(Some(all));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_brings_what_its_vendor_says() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"cdiVersion":"0.6.0","kind":"vendor.com/thing","containerEdits":{"env":["ALL=1"]},
            "devices":[{"name":"one","containerEdits":{"env":["ONE=1"],"additionalGids":[7],
                "deviceNodes":[{"path":"/dev/thing","hostPath":"/dev/null"}],
                "mounts":[{"hostPath":"/etc/hostname","containerPath":"/thing"}],
                "hooks":[{"hookName":"createContainer","path":"/bin/true"}]}},{"name":"two"}]}"#;
        std::fs::write(dir.path().join("a.json"), text).unwrap();
        std::fs::write(dir.path().join("b.json"), "{").unwrap();
        let dirs = CdiDirs(vec![dir.path().to_owned(), "/nonexistent".into()]);
        let mut spec = oci::Spec::default();
        let annotations = [("cdi.k8s.io/x".to_owned(), "vendor.com/thing=two".to_owned())].into();
        dirs.inject(&mut spec, &["vendor.com/thing=one".to_owned()], &annotations).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert!(env.contains(&"ALL=1".to_owned()) && env.contains(&"ONE=1".to_owned()), "{env:?}");
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.devices().as_ref().unwrap().last().unwrap().path(), Path::new("/dev/thing"));
        assert!(
            spec.mounts().as_ref().unwrap().iter().any(|mount| mount.destination() == Path::new("/thing"))
        );
        assert_eq!(spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap().len(), 1);
        for bad in ["vendor.com/thing=three", "thing", "a=b"] {
            assert!(dirs.inject(&mut spec, &[bad.to_owned()], &Pairs::new()).is_err(), "{bad}");
        }
    }
}
