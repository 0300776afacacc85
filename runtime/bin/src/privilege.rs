//! Whose runtime this is: root's, or a user's.

use std::path::PathBuf;

use anyhow::Context;
use nix::unistd::geteuid;

/// The map of the initial user namespace (user_namespaces(7)).
const INITIAL: [&str; 3] = ["0", "0", "4294967295"];

/// Where containers are kept, unless told otherwise.
pub(crate) fn default_root() -> anyhow::Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/run/berth-runtime"));
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let own = own.context("no place for the state of containers: set XDG_RUNTIME_DIR, or give --root")?;
    Ok(PathBuf::from(own).join("berth-runtime"))
}

/// Whether cgroups may be missing for lack of privilege; `choice` is the flag `--rootless`.
pub(crate) fn is_unprivileged(choice: &str) -> bool {
    match choice {
        "true" => true,
        "false" => false,
        _ => !geteuid().is_root() || in_user_namespace(),
    }
}

fn in_user_namespace() -> bool {
    // A kernel without user namespaces has no such file, and only the initial one.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_whitespace().ne(INITIAL)
}
