//! Devices by name: `--device vendor.com/class=name` and `--gpus`, resolved through the Container Device Interface.
//!
//! A vendor's tool (`nvidia-ctk cdi generate`) describes its devices in files; what a file says of a device is done to the
//! config.json of a container that asks for it. The files are read at each start that needs them: drivers are updated
//! while daemons run.

mod edits;
mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_api::container::DeviceRequest;
use berth_spec::oci;

use crate::error::{EngineError, Result};
use file::{Device, Edits, File};

/// Kinds that `--gpus` means, the likeliest first.
const GPU_KINDS: [&str; 3] = ["nvidia.com/gpu", "amd.com/gpu", "intel.com/gpu"];

/// Directories of such files; a later one wins.
#[derive(Debug, Clone)]
pub struct CdiDirs(pub Vec<PathBuf>);

impl CdiDirs {
    /// The devices there are now.
    pub(crate) fn read(&self) -> Devices {
        Devices::read(&self.0)
    }
}

/// The devices that the files of this host name.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// `vendor.com/class=name` → its own edits and those of its file.
    known: BTreeMap<String, (Edits, Edits)>,
    /// Why files could not be used.
    problems: Vec<String>,
}

impl Devices {
    /// Reads the files; a directory that comes later wins.
    fn read(dirs: &[PathBuf]) -> Self {
        let mut devices = Self::default();
        for dir in dirs {
            let mut paths: Vec<PathBuf> =
                std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let extension = path.extension().and_then(|extension| extension.to_str());
                if matches!(extension, Some("json" | "yaml" | "yml")) {
                    match file::read(&path) {
                        Ok(file) => devices.add(file),
                        Err(problem) => devices.complain(&path, &problem),
                    }
                }
            }
        }
        devices
    }

    fn add(&mut self, file: File) {
        let File { kind, devices, container_edits, .. } = file;
        for Device { name, container_edits: own } in devices {
            self.known.insert(format!("{kind}={name}"), (own, container_edits.clone()));
        }
    }

    fn complain(&mut self, path: &Path, problem: &str) {
        tracing::warn!(path = %path.display(), problem, "a CDI file is not used");
        self.problems.push(format!("{}: {problem}", path.display()));
    }

    /// Names of all devices.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Does to a config.json what the requests ask for.
    pub(crate) fn inject(&self, requests: &[DeviceRequest], spec: &mut oci::Spec) -> Result<()> {
        let mut names = Vec::new();
        for request in requests {
            for name in self.resolve(request)? {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        self.inject_named(&names, spec)
    }

    /// Does to a config.json what the devices of these names want.
    pub(crate) fn inject_named(&self, names: &[String], spec: &mut oci::Spec) -> Result<()> {
        let missing: Vec<&str> =
            names.iter().filter(|name| !self.known.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let mut text =
                format!("CDI device injection failed: unresolvable CDI devices {}", missing.join(", "));
            for problem in &self.problems {
                text.push_str(&format!(" ({problem})"));
            }
            return Err(EngineError::invalid(text));
        }
        let mut kinds: Vec<&str> = Vec::new();
        for name in names {
            let kind = name.split('=').next().unwrap_or_default();
            let Some((own, common)) = self.known.get(name) else { continue };
            // A file's own edits are done once, however many of its devices are asked for.
            if !kinds.contains(&kind) {
                kinds.push(kind);
                edits::apply(common, spec)?;
            }
            edits::apply(own, spec)?;
        }
        Ok(())
    }

    /// The names that a request means.
    fn resolve(&self, request: &DeviceRequest) -> Result<Vec<String>> {
        let ids = request.device_ids.as_deref().unwrap_or_default();
        if request.driver == "cdi" {
            return Ok(ids.to_vec());
        }
        let lists = request.capabilities.as_deref().unwrap_or_default();
        let gpu = lists.iter().flatten().any(|capability| capability == "gpu");
        let kind = GPU_KINDS.iter().find(|kind| {
            let driver = ["", kind.split('.').next().unwrap_or_default()].contains(&request.driver.as_str());
            driver && (gpu || !request.driver.is_empty()) && !self.of_kind(kind).is_empty()
        });
        let Some(kind) = kind else {
            let lists: Vec<String> = lists.iter().map(|list| format!("[{}]", list.join(" "))).collect();
            let driver = &request.driver;
            return Err(EngineError::internal(format!(
                "could not select device driver {driver:?} with capabilities: [{}]: no CDI file names such devices \
                 (the vendor's tool writes one, for instance: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml)",
                lists.join(" ")
            )));
        };
        if !ids.is_empty() {
            return Ok(ids.iter().map(|id| format!("{kind}={id}")).collect());
        }
        let mut single = self.of_kind(kind);
        single.retain(|name| *name != "all");
        single.sort_by_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), *name));
        let wanted = match usize::try_from(request.count) {
            Err(_) => single.len(),
            Ok(count) => count.max(1),
        };
        if wanted > single.len() {
            return Err(EngineError::internal(format!(
                "could not select {wanted} devices of {kind}: there are {}",
                single.len()
            )));
        }
        Ok(single[..wanted].iter().map(|name| format!("{kind}={name}")).collect())
    }

    /// Names of one kind, without it.
    fn of_kind(&self, kind: &str) -> Vec<&str> {
        self.names().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('=')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: nvidia.com/gpu
containerEdits:
  env: [COMMON=1]
  hooks:
    - {hookName: createContainer, path: /bin/true, args: [true, x]}
devices:
  - name: "0"
    containerEdits:
      deviceNodes:
        - {path: /dev/null}
  - name: "1"
    containerEdits:
      deviceNodes:
        - {path: /dev/inside, hostPath: /dev/zero, permissions: r}
      mounts:
        - {hostPath: /etc, containerPath: /vendor, options: [ro]}
  - name: all
    containerEdits: {env: [ALL=1]}
"#;

    fn devices() -> (tempfile::TempDir, Devices) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nvidia.yaml"), YAML).unwrap();
        std::fs::write(dir.path().join("broken.json"), "{").unwrap();
        let devices = Devices::read(&[dir.path().to_owned()]);
        (dir, devices)
    }

    fn spec(request: &str) -> Result<oci::Spec> {
        let (_dir, devices) = devices();
        let mut spec = berth_spec::defaults::docker_spec().args(["x"]).build();
        devices.inject(&[serde_json::from_str(request).unwrap()], &mut spec).map(|()| spec)
    }

    #[test]
    fn a_named_device_comes_with_its_files_edits() {
        let spec = spec(r#"{"Driver":"cdi","DeviceIDs":["nvidia.com/gpu=1"]}"#).unwrap();
        assert!(spec.process().as_ref().unwrap().env().as_ref().unwrap().contains(&"COMMON=1".to_owned()));
        let linux = spec.linux().as_ref().unwrap();
        let node = linux.devices().as_ref().unwrap().last().unwrap();
        assert_eq!((node.path().to_str(), node.major(), node.minor()), (Some("/dev/inside"), 1, 5));
        let rule = linux.resources().as_ref().unwrap().devices().as_ref().unwrap().last().unwrap();
        assert_eq!(rule.access().as_deref(), Some("r"));
        let mount = spec.mounts().as_ref().unwrap().last().unwrap();
        assert_eq!(mount.options().as_ref().unwrap(), &["ro", "bind"]);
        assert_eq!(spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn gpus_are_counted_or_named() {
        let nodes = |request: &str| {
            let spec = spec(request)?;
            let linux = spec.linux().as_ref().unwrap().clone();
            Ok::<_, EngineError>(linux.devices().as_ref().map_or(0, Vec::len))
        };
        let none = berth_spec::defaults::docker_spec().args(["x"]).build();
        let none = none.linux().as_ref().unwrap().devices().as_ref().map_or(0, Vec::len);
        assert_eq!(nodes(r#"{"Count":-1,"Capabilities":[["gpu"]]}"#).unwrap(), none + 2);
        assert_eq!(nodes(r#"{"Count":1,"Capabilities":[["gpu"]]}"#).unwrap(), none + 1);
        assert_eq!(nodes(r#"{"DeviceIDs":["1"],"Capabilities":[["gpu"]]}"#).unwrap(), none + 1);
        assert!(nodes(r#"{"Count":3,"Capabilities":[["gpu"]]}"#).is_err());
    }

    #[test]
    fn what_is_not_there_is_named_and_so_is_the_broken_file() {
        let error = spec(r#"{"Driver":"cdi","DeviceIDs":["a.com/b=c"]}"#).unwrap_err();
        assert!(error.message().contains("unresolvable CDI devices a.com/b=c"), "{error}");
        assert!(error.message().contains("broken.json"), "{error}");
        let error = spec(r#"{"Driver":"","Count":1,"Capabilities":[["tpu"]]}"#).unwrap_err();
        assert!(
            error.message().starts_with("could not select device driver \"\" with capabilities: [[tpu]]")
        );
    }
}
