//! Images → a container.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_cgroup::Cgroup;
use berth_cgroup::resctrl::{Group, Resctrl};
use berth_core::{ConsoleSink, run_hooks};
use berth_spec::{ContainerPlan, oci};
use berth_sys::{Pid, pidfd};
use oci::LinuxNamespaceType as Namespace;

use super::criu::{Criu, Event, inherit};
use super::options::{Session, Shared};
use super::rpc::{CgroupRoot, InheritedFd, JoinedNamespace, Kind, Options, Request};
use super::{DESCRIPTORS, mounts};
use crate::state::{Container, Status};

/// Namespaces that CRIU can leave to us, by its names for the kind and for the one that was joined.
pub(super) const EXTERNAL: [(Namespace, &str, &str); 2] =
    [(Namespace::Network, "net", "extRootNetNS"), (Namespace::Pid, "pid", "extRootPidNS")];

/// What only a restore is told.
pub(crate) struct Restore<'a> {
    pub(crate) shared: &'a Shared,
    /// Who gets the terminal, if there is one.
    pub(crate) console: Option<&'a ConsoleSink>,
    pub(crate) lsm_profile: Option<&'a str>,
    pub(crate) lsm_mount_context: Option<&'a str>,
}

/// A restored container. Its first process is our child.
pub(crate) struct Restored {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) console: Option<OwnedFd>,
}

impl Restore<'_> {
    /// Restores into a container that has been reserved. On failure its cgroup is gone again.
    pub(crate) fn run(&self, container: &mut Container) -> anyhow::Result<Restored> {
        Criu::check_version()?;
        let spec = container.spec()?;
        let plan = container.plan(&spec)?;
        let mut session = self.shared.open("restore.log", false, &container.record)?;
        let inherited = self.fill(&mut session, container, &spec, &plan)?;
        let layout = berth_cgroup::detect()?;
        let limits = &plan.cgroup.resources;
        let mut cgroup = match &container.record.unit {
            Some(unit) => Cgroup::create_in_unit(&layout, unit, limits)?,
            None => Cgroup::create(&layout, &container.record.cgroup, limits)?,
        };
        let id = container.record.id.clone();
        let mut rdt = None;
        let restored = plan.rdt.as_ref().map(|plan| Resctrl::find()?.join(&id, plan)).transpose();
        let restored = restored.map_err(anyhow::Error::from).and_then(|group| {
            rdt = group;
            let restored = self.restore(&mut session, container, &plan, (&cgroup, rdt.as_ref()))?;
            cgroup.populated()?;
            Ok(restored)
        });
        drop(inherited);
        restored.map_err(|error| {
            let error = session.explain(error);
            // CRIU takes along what it has begun. What is left of the groups is told with the failure.
            let mut left = cgroup.remove().err().unwrap_or_default();
            left.extend(rdt.and_then(|group| group.undo().err()));
            left.into_iter().fold(error, |error, left| error.context(left.to_string()))
        })
    }

    /// All that CRIU is told beside the cgroup. The descriptors are to stay open until it has them.
    fn fill(
        &self,
        session: &mut Session,
        container: &Container,
        spec: &oci::Spec,
        plan: &ContainerPlan,
    ) -> anyhow::Result<Vec<OwnedFd>> {
        let mut open = Vec::new();
        let streams = descriptors(&session.images)?;
        let options = &mut session.options;
        options.evasive_devices = Some(true);
        options.restore_as_sibling = Some(true);
        options.root = Some(place(container).display().to_string());
        options.lsm_profile = self.lsm_profile.map(str::to_owned);
        options.lsm_mount_context = self.lsm_mount_context.map(str::to_owned);
        options.external_mounts = mounts::of_restore(plan, &container.record.rootfs)?;
        options.inherited_fds = streams;
        join_namespaces(options, spec, &mut open)?;
        Ok(open)
    }

    fn restore(
        &self,
        session: &mut Session,
        container: &mut Container,
        plan: &ContainerPlan,
        (cgroup, rdt): (&Cgroup, Option<&Group>),
    ) -> anyhow::Result<Restored> {
        let place = place(container);
        fs::create_dir(&place).with_context(|| format!("mkdir {}", place.display()))?;
        let rootfs = container.record.rootfs.clone();
        let criu = mounts::with_root(plan, &rootfs, &place, || {
            session.open_directories()?;
            Criu::start(true)
        })?;
        // What it forks is where it is itself.
        cgroup.add(criu.pid())?;
        rdt.map_or(Ok(()), |group| group.add(criu.pid()))?;
        session.options.cgroup_roots = cgroup_roots(criu.pid())?;
        let request = Request {
            kind: Kind::Restore.into(),
            options: Some(session.options.clone()),
            ..Request::default()
        };
        let mut console = None;
        let mut found = None;
        criu.perform(&request, |event: Event<'_>| {
            match event.script {
                "setup-namespaces" => {
                    let mut state = container.oci_state(Status::Created);
                    state.pid = event.pid;
                    let bundle = Some(state.bundle.as_path());
                    run_hooks("prestart", &plan.hooks.prestart, &state, bundle)?;
                    run_hooks("createRuntime", &plan.hooks.create_runtime, &state, bundle)?;
                }
                "post-restore" => {
                    let pid = Pid::from_raw(event.pid);
                    found = Some((pid, pidfd::open(pid).with_context(|| format!("pidfd_open {pid}"))?));
                    container.created(pid, cgroup.path(), rdt)?;
                }
                "orphan-pts-master" => {
                    if let (Some(sink), Some(master)) = (self.console, event.fds.into_iter().next()) {
                        console = sink.deliver(master)?;
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        fs::remove_dir(&place).with_context(|| format!("rmdir {}", place.display()))?;
        let (pid, pidfd) = found.context("criu did not tell which process it has restored")?;
        Ok(Restored { pid, pidfd, console })
    }
}

/// Where the root file system is mounted for CRIU.
fn place(container: &Container) -> PathBuf {
    container.beside("criu-root")
}

/// Pipes that were standard streams: ours take their place.
fn descriptors(images: &Path) -> anyhow::Result<Vec<InheritedFd>> {
    let path = images.join(DESCRIPTORS);
    let text = fs::read(&path).with_context(|| format!("read {} (is it a checkpoint?)", path.display()))?;
    let names: Vec<String> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let pipes = (0..).zip(names).filter(|(_, name)| name.contains("pipe:"));
    Ok(pipes.map(|(fd, key)| InheritedFd { key, fd }).collect())
}

/// The path by which the container joins a namespace of this kind.
pub(super) fn joined(spec: &oci::Spec, kind: Namespace) -> Option<&Path> {
    let listed = spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten();
    let mut of_kind = listed.filter(|namespace| namespace.typ() == kind);
    of_kind.find_map(|namespace| namespace.path().as_deref())
}

/// Those that CRIU knows nothing of get a descriptor, the others a path.
fn join_namespaces(options: &mut Options, spec: &oci::Spec, open: &mut Vec<OwnedFd>) -> anyhow::Result<()> {
    for (kind, _, key) in EXTERNAL {
        if let Some(path) = joined(spec, kind) {
            let file = File::open(path)
                .with_context(|| format!("requested namespace {} does not exist", path.display()))?;
            let fd = OwnedFd::from(file);
            inherit(&fd)?;
            options.inherited_fds.push(InheritedFd { key: key.to_owned(), fd: fd.as_raw_fd() });
            open.push(fd);
        }
    }
    for (kind, name) in [
        (Namespace::Mount, "mnt"),
        (Namespace::Uts, "uts"),
        (Namespace::Ipc, "ipc"),
        (Namespace::User, "user"),
        (Namespace::Time, "time"),
    ] {
        if let Some(path) = joined(spec, kind) {
            let file = path.display().to_string();
            options.joined_namespaces.push(JoinedNamespace { kind: name.to_owned(), file });
        }
    }
    if let Some(path) = joined(spec, Namespace::Cgroup) {
        bail!("CRIU cannot restore into the cgroup namespace {}", path.display());
    }
    Ok(())
}

/// The groups CRIU is in now, which the container's own are below of (proc_pid_cgroup(5)).
fn cgroup_roots(pid: Pid) -> anyhow::Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let roots = lines.flat_map(|(controllers, path)| {
        let root = |name: &str| CgroupRoot { controller: Some(name.to_owned()), path: path.to_owned() };
        controllers.split(',').map(root).collect::<Vec<_>>()
    });
    Ok(roots.collect())
}
