//! Pods with users of their own: one range of the host's ids, from root on.
//!
//! The namespaces of such a pod belong to its user namespace, so they are made with it, by the pod's init (`holder`), and
//! pinned afterwards. Files of images and the pod belong to the same ids inside as on the disk: by mounts that map ids.

use std::os::fd::AsFd as _;
use std::path::Path;

use berth_spec::oci;

use super::model::{IdMapping, SandboxSpec};
use super::mounts::id_lines;
use super::namespaces::{Pin, Pins};
use crate::engine::Engine;
use crate::error::{IoContext as _, Result};

/// A container of such a pod is in its user namespace, and sees its generated files as root's.
pub(super) fn into_user_namespace(spec: &mut oci::Spec, sandbox: &SandboxSpec, pins: &Pins) -> Result<()> {
    let Some(users) = sandbox.namespaces.users else { return Ok(()) };
    if let Some(root) = spec.root_mut() {
        // Where the root file system is mounted before it is the root: the container's own directory is closed to its
        // users, this one is empty.
        root.set_path(pins.empty());
    }
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut namespace = oci::LinuxNamespace::default();
    namespace.set_typ(oci::LinuxNamespaceType::User).set_path(Some(pins.path(Pin::User)));
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.push(namespace);
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(Some(id_lines(users)?)).set_gid_mappings(Some(id_lines(users)?));
    Ok(())
}

/// What the init of such a pod makes.
pub(super) fn of_holder(linux: &mut oci::Linux, users: IdMapping) -> Result<()> {
    linux.set_uid_mappings(Some(id_lines(users)?)).set_gid_mappings(Some(id_lines(users)?));
    Ok(())
}

impl Engine {
    /// Makes the network namespace of such a pod ready, and its files its root's. Blocking.
    pub(super) fn settle_users(&self, spec: &SandboxSpec, pins: &Pins) -> Result<()> {
        let Some(users) = spec.namespaces.users else { return Ok(()) };
        if !spec.namespaces.host_network {
            self.network.prepare_sandbox(pins.open(Pin::Network)?.as_fd())?;
        }
        for name in ["hostname", "resolv.conf", "hosts"] {
            own(&pins.dir.join(name), users)?;
        }
        Ok(())
    }
}

/// Gives a file to the pod's root.
pub(super) fn own(path: &Path, users: IdMapping) -> Result<()> {
    std::os::unix::fs::chown(path, Some(users.host_id), Some(users.host_id))
        .during("give to the pod's root", path)
}
