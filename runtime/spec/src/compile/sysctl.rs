//! `linux.sysctl`: only what belongs to a namespace of the container may be set.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::SpecError;
use crate::plan::{NamespaceKind, NamespacePlan};
use crate::step::SysctlStep;

/// Parameters of the IPC namespace (ipc_namespaces(7)) beside `fs.mqueue.*`.
const IPC: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/auto_msgmni",
];

pub(super) fn plan(
    sysctls: Option<&HashMap<String, String>>,
    namespaces: &NamespacePlan,
) -> Result<Vec<SysctlStep>, SpecError> {
    let mut steps = Vec::new();
    for (key, value) in sysctls.into_iter().flatten() {
        let field = format!("linux.sysctl.{key}");
        let path = path(key);
        if path.split('/').any(|part| part.is_empty() || part == ".." || part == ".") || path.contains('\0') {
            return Err(SpecError::new(field, "is no name of a kernel parameter"));
        }
        let (kind, what) = owner(&field, &path)?;
        if !namespaces.has(kind) {
            return Err(SpecError::new(
                field,
                format!("sysctl {key:?} is not allowed in the host {what} namespace"),
            )
            .hint(format!("give the container its own {what} namespace or set it on the host")));
        }
        steps.push(SysctlStep { key: key.clone(), path: PathBuf::from(path), value: value.clone() });
    }
    steps.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(steps)
}

/// sysctl.d(5): the first separator decides; with dots, a slash stands for a dot in a name (`net.ipv4.conf.eth0/1.mtu`).
fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    }
}

fn owner(field: &str, path: &str) -> Result<(NamespaceKind, &'static str), SpecError> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return Ok((NamespaceKind::Ipc, "ipc"));
    }
    if path.starts_with("net/") {
        return Ok((NamespaceKind::Network, "network"));
    }
    if path == "kernel/domainname" {
        return Ok((NamespaceKind::Uts, "uts"));
    }
    if path == "kernel/hostname" {
        return Err(SpecError::new(field, "is not allowed as it conflicts with the OCI \"hostname\" field")
            .hint("set hostname"));
    }
    if path.starts_with("user/") {
        return Ok((NamespaceKind::User, "user"));
    }
    Err(SpecError::new(field, "is not in a separate kernel namespace").hint("set it on the host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/mtu"), "net/ipv4/conf/eth0.1/mtu");
        assert_eq!(path("net.ipv4.conf.eth0/1.mtu"), "net/ipv4/conf/eth0.1/mtu");
    }

    #[test]
    fn only_parameters_of_own_namespaces() {
        let own = NamespacePlan { create: NamespaceKind::Ipc.clone_flag(), ..NamespacePlan::default() };
        let try_one = |key: &str| plan(Some(&HashMap::from([(key.to_owned(), "1".to_owned())])), &own);
        assert!(try_one("kernel.shmmax").is_ok());
        assert!(try_one("fs.mqueue.msg_max").is_ok());
        for refused in
            ["net.ipv4.ip_forward", "kernel.hostname", "vm.swappiness", "net.../x", "kernel.domainname"]
        {
            assert!(try_one(refused).is_err(), "{refused}");
        }
    }
}
