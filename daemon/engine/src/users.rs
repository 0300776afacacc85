//! Containers with users of their own (`userns-remap`): root inside is nobody of the host.
//!
//! ```text
//!   Create ─▶ the runtime makes user, network and all other namespaces ─▶ the network is joined from outside ─▶ Start
//! ```
//!
//! Files of images, volumes and the engine belong to the same ids inside as on the disk, by mounts that map ids: one store
//! serves containers with and without users of their own. Only binds of the host's directories are what they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_api::container::HostConfig;
use berth_spec::oci;

use crate::containers::Definition;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// A run of the host's ids; inside they are 0 and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The id that is root inside.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// The host's ids that containers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    /// Users.
    pub users: IdRange,
    /// Groups.
    pub groups: IdRange,
}

/// Settings that every network namespace gets when it is joined.
const SET_OUTSIDE: [&str; 2] = ["net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"];

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnUsers {
    range: UserRange,
    /// That of the container whose namespaces are joined.
    pub(crate) joined: Option<PathBuf>,
}

/// What cannot be had with users of one's own, in docker's words.
pub(crate) fn check(host: &HostConfig, remapped: bool) -> Result<()> {
    if !["", "host"].contains(&host.userns_mode.as_str()) {
        return Err(EngineError::invalid(format!("invalid USER mode: {}", host.userns_mode)));
    }
    if !remapped || host.userns_mode == "host" {
        return Ok(());
    }
    let refused = [
        (
            host.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host \
             namespace when running privileged mode",
        ),
        (
            host.network_mode == "host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (host.pid_mode == "host", "cannot share the host PID namespace when user namespaces are enabled"),
        (host.ipc_mode == "host", "cannot share the host IPC namespace when user namespaces are enabled"),
        (
            !crate::containers::OWN_RUNTIMES.contains(&host.runtime.as_str()),
            "other runtimes cannot be used when user namespaces are enabled",
        ),
    ];
    match refused.into_iter().find(|(wanted, _)| *wanted) {
        Some((_, words)) => Err(EngineError::invalid(format!("{words} (--userns=host)"))),
        None => Ok(()),
    }
}

fn line(range: IdRange) -> Result<Vec<oci::LinuxIdMapping>> {
    let line = oci::LinuxIdMappingBuilder::default().container_id(0u32).host_id(range.first);
    let line = line.size(range.count).build();
    line.map(|line| vec![line]).map_err(|error| EngineError::internal(error.to_string()))
}

impl OwnUsers {
    /// Puts the container into them. `root` is an empty directory that all of them can enter: there the root file system is
    /// mounted before it is the root. `asked` are the settings that the user has named.
    pub(crate) fn put_into(
        &self,
        spec: &mut oci::Spec,
        root: &Path,
        asked: &BTreeMap<String, String>,
    ) -> Result<()> {
        if let Some(place) = spec.root_mut() {
            place.set_path(root.to_owned());
        }
        let Some(linux) = spec.linux_mut() else { return Ok(()) };
        // From outside, where all groups can be named.
        if let Some(sysctls) = linux.sysctl_mut() {
            sysctls.retain(|name, _| !SET_OUTSIDE.contains(&name.as_str()) || asked.contains_key(name));
        }
        let mut namespace = oci::LinuxNamespace::default();
        namespace.set_typ(oci::LinuxNamespaceType::User).set_path(self.joined.clone());
        linux.namespaces_mut().get_or_insert_default().push(namespace);
        linux
            .set_uid_mappings(Some(line(self.range.users)?))
            .set_gid_mappings(Some(line(self.range.groups)?));
        Ok(())
    }
}

impl Engine {
    /// The users of a container that has its own.
    pub(crate) fn users_of(&self, definition: &Definition) -> Result<Option<OwnUsers>> {
        let host = &definition.host;
        let range = self.config.userns_remap.filter(|_| host.userns_mode != "host");
        // Namespaces of another container belong to its users.
        let donors = [&host.network_mode, &host.pid_mode, &host.ipc_mode];
        let mut joined = None;
        for donor in donors.into_iter().filter_map(|mode| mode.strip_prefix("container:")) {
            let found = self.containers.find(donor)?;
            let theirs = self.config.userns_remap.filter(|_| found.definition().host.userns_mode != "host");
            if theirs != range {
                return Err(EngineError::conflict(format!(
                    "cannot join namespaces of container {donor}: only one of the two has the host's users (--userns=host)"
                )));
            }
            joined = Some(PathBuf::from(format!("/proc/{}/ns/user", found.status().pid)));
        }
        Ok(range.map(|range| OwnUsers { range, joined }))
    }

    /// The directory for [`OwnUsers::put_into`].
    pub(crate) fn place_of_roots(&self) -> Result<PathBuf> {
        let path = self.config.run_root.join("root");
        std::fs::create_dir_all(&path).during("create", &path)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_of_ones_own_exclude() {
        let checked = |json: &str, remapped| {
            check(&serde_json::from_str(json).unwrap(), remapped).map_err(|error| error.message().to_owned())
        };
        assert!(checked(r#"{"UsernsMode":"bogus"}"#, false).unwrap_err().contains("invalid USER mode"));
        assert!(checked(r#"{"Privileged":true,"Runtime":"runc"}"#, false).is_ok());
        assert!(checked(r#"{"Privileged":true,"Runtime":"runc"}"#, true).unwrap_err().contains("privileged"));
        assert!(checked(r#"{"Privileged":true,"UsernsMode":"host"}"#, true).is_ok());
        for json in [r#"{"NetworkMode":"host"}"#, r#"{"PidMode":"host"}"#, r#"{"Runtime":"crun"}"#] {
            assert!(checked(json, true).is_err(), "{json}");
        }
    }
}
