//! The process that some pods have: the init of a shared pid namespace.
//!
//! It is a container that is created and never started: its init waits at the gate for ever, reaps what is orphaned to
//! it, and costs no program and no image. Its shim outlives the daemon like any other.

use std::sync::Arc;

use berth_runtime_client::protocol::{Create, Event, Log, Rootfs, StdinMode};
use berth_runtime_client::{Reconnected, Shim, bundle};
use berth_spec::oci;

use super::events::PodChange;
use super::model::{PidScope, SandboxSpec};
use super::namespaces::{Pin, Pins};
use super::record::SandboxPhase;
use super::registry::Sandbox;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// Its run directory, in that of the pod. No container's id looks like this.
const DIR: &str = "init";

/// The namespaces that the init makes, to be pinned.
fn made_by_holder(spec: &SandboxSpec) -> Vec<Pin> {
    let own = &spec.namespaces;
    let users = own.users.is_some();
    let all = [
        (own.pid == PidScope::Pod, Pin::Pid),
        (users, Pin::User),
        (users && !own.host_network, Pin::Network),
        (users && !own.host_network, Pin::Uts),
        (users && !own.host_ipc, Pin::Ipc),
    ];
    all.into_iter().filter(|(made, _)| *made).map(|(_, pin)| pin).collect()
}

impl Engine {
    /// Makes the pod's init, in the namespaces that are pinned, and pins what it adds to them.
    pub(super) async fn make_holder(self: &Arc<Self>, sandbox: &Arc<Sandbox>, pins: &Pins) -> Result<()> {
        let record = sandbox.record();
        let dir = pins.dir.join(DIR);
        let rootfs = pins.empty();
        for path in [&dir, &rootfs.join("dev")] {
            std::fs::create_dir_all(path).during("create", path)?;
        }
        bundle::write(&dir, &self.holder_spec(&record.spec, &record.id, pins)?)?;
        let shim = self.spawner.spawn(&dir).await?;
        let events = shim.events();
        let create = Create {
            id: record.id.clone(),
            bundle: dir,
            rootfs: Rootfs::Path(rootfs),
            terminal: false,
            console_size: None,
            stdin: StdinMode::Closed,
            log: Log::default(),
            systemd_cgroup: self.config.cgroup_driver.is_systemd(),
            runtime: None,
            restore: None,
        };
        let pid = shim.create(create, None).await.map_err(EngineError::from)?;
        sandbox.set_holder(Some(shim.clone()));
        pins.adopt(pid, &made_by_holder(&record.spec))?;
        self.watch_holder(Arc::clone(sandbox), shim, events);
        Ok(())
    }

    fn holder_spec(&self, spec: &SandboxSpec, id: &str, pins: &Pins) -> Result<oci::Spec> {
        use oci::LinuxNamespaceType as T;
        let users = spec.namespaces.users;
        let namespace = |typ, path: Option<Pin>| {
            let mut namespace = oci::LinuxNamespace::default();
            namespace.set_typ(typ).set_path(path.map(|pin| pins.path(pin)));
            namespace
        };
        let mut namespaces = vec![namespace(T::Mount, None)];
        if spec.namespaces.pid == PidScope::Pod {
            namespaces.push(namespace(T::Pid, None));
        }
        let shares = [
            (!spec.namespaces.host_network, T::Network, Pin::Network),
            (!spec.namespaces.host_ipc, T::Ipc, Pin::Ipc),
            (!spec.namespaces.host_network, T::Uts, Pin::Uts),
        ];
        namespaces.extend(
            shares
                .into_iter()
                .filter(|(own, ..)| *own)
                .map(|(_, typ, pin)| namespace(typ, users.is_none().then_some(pin))),
        );
        if users.is_some() {
            namespaces.push(namespace(T::User, None));
        }
        let mut linux = oci::Linux::default();
        linux.set_namespaces(Some(namespaces)).set_resources(None);
        linux.set_masked_paths(None).set_readonly_paths(None);
        linux.set_cgroups_path(Some(self.pod_cgroup(spec, id)?));
        if let Some(users) = users {
            super::users::of_holder(&mut linux, users)?;
            let sysctls = spec.sysctls.iter().map(|(name, value)| (name.clone(), value.clone()));
            linux.set_sysctl(Some(sysctls.collect()));
        }
        let mut root = oci::Root::default();
        root.set_path("rootfs".into()).set_readonly(Some(true));
        let mut built = oci::Spec::default();
        built.set_version("1.2.1".to_owned()).set_root(Some(root)).set_process(None);
        // The usual devices have to be somewhere; nothing is made in the directory on the host.
        let mut dev = oci::Mount::default();
        dev.set_destination("/dev".into()).set_typ(Some("tmpfs".to_owned())).set_source(Some("tmpfs".into()));
        dev.set_options(Some(["nosuid", "noexec", "mode=755", "size=64k"].map(str::to_owned).to_vec()));
        built.set_mounts(Some(vec![dev])).set_linux(Some(linux));
        built.set_hostname(users.map(|_| self.pod_hostname(spec)));
        Ok(built)
    }

    /// When the init ends, so does the pod.
    pub(super) fn watch_holder(
        self: &Arc<Self>,
        sandbox: Arc<Sandbox>,
        shim: Shim,
        mut events: berth_runtime_client::EventStream,
    ) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    () = engine.closed.cancelled() => return,
                };
                if matches!(event, None | Some(Event::Exited(_))) {
                    break;
                }
            }
            drop(shim);
            sandbox.set_holder(None);
            if sandbox.is_ready() {
                engine.note(sandbox.change(&engine.db, |record| record.phase = SandboxPhase::NotReady));
                engine.tell(&sandbox.id, &sandbox.id, PodChange::Stopped);
            }
        });
    }

    /// Ends the pod's init, if it has one.
    pub(super) async fn end_holder(&self, sandbox: &Sandbox) -> Result<()> {
        let Some(shim) = sandbox.holder() else { return Ok(()) };
        sandbox.set_holder(None);
        match shim.shutdown().await {
            // It has gone by itself.
            Ok(()) | Err(berth_runtime_client::ClientError::Gone { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the init of a pod again; false if there is none any more.
    pub(super) async fn find_holder(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<bool> {
        let dir = self.pins(&sandbox.id).dir.join(DIR);
        match self.spawner.reconnect(&dir).await? {
            Reconnected::Alive(shim) => {
                let events = shim.events();
                sandbox.set_holder(Some(shim.clone()));
                self.watch_holder(Arc::clone(sandbox), shim, events);
                Ok(true)
            }
            Reconnected::Exited(_) | Reconnected::Lost => Ok(false),
        }
    }
}
