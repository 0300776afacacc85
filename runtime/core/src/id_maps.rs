//! The id maps of a new user namespace (user_namespaces(7)).
//!
//! ```text
//!  root (in its own namespace) ───────────────▶ uid_map, gid_map
//!  a user, only itself in the map ── setgroups: deny ─▶ uid_map, gid_map
//!  a user, with ids of /etc/subuid ───────────▶ newuidmap(1), newgidmap(1)
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use berth_spec::{IdMap, IdMaps};
use berth_sys::Pid;
use nix::unistd::{getegid, geteuid};

use crate::error::Error;

/// Maps the ids of the namespace that `pid` is the first process of.
pub(crate) fn write(maps: &IdMaps, pid: Pid) -> Result<(), Error> {
    let privileged = geteuid().is_root();
    let own_group = is_only(&maps.gid, getegid().as_raw());
    if !privileged && own_group {
        // Without it the kernel refuses: dropping a group could give a user more rights, not less.
        file(pid, "setgroups", "deny")?;
    }
    if privileged || own_group {
        file(pid, "gid_map", &IdMaps::text(&maps.gid))?;
    } else {
        helper("newgidmap", "/etc/subgid", pid, &maps.gid)?;
    }
    if privileged || is_only(&maps.uid, geteuid().as_raw()) {
        file(pid, "uid_map", &IdMaps::text(&maps.uid))
    } else {
        helper("newuidmap", "/etc/subuid", pid, &maps.uid)
    }
}

/// The one map that a user may write without help: of the own id.
fn is_only(maps: &[IdMap], own: u32) -> bool {
    matches!(maps, [IdMap { host, size: 1, .. }] if *host == own)
}

fn file(pid: Pid, name: &str, text: &str) -> Result<(), Error> {
    let path = Path::new("/proc").join(pid.to_string()).join(name);
    fs::write(&path, text).map_err(|error| Error::io("write", &path, error))
}

/// The set-user-id programs of shadow-utils, which know what the user was given.
fn helper(program: &'static str, allowed: &'static str, pid: Pid, maps: &[IdMap]) -> Result<(), Error> {
    let numbers = maps.iter().flat_map(|map| [map.container, map.host, map.size]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .map_err(|error| {
            Error::Invalid(format!("{program} cannot be run: {error} (install the package uidmap)"))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Invalid(format!(
        "{program}: {} (are the ids of the mapping given to the user in {allowed}?)",
        said.trim_end()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_id_needs_no_help() {
        let map = |host, size| IdMap { container: 0, host, size };
        assert!(is_only(&[map(1000, 1)], 1000));
        assert!(!is_only(&[map(1000, 2)], 1000));
        assert!(!is_only(&[map(1001, 1)], 1000));
        assert!(!is_only(&[map(1000, 1), map(100_000, 65_536)], 1000));
    }
}
