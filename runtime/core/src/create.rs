//! Creating a container: the parent stage.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_cgroup::{Cgroup, Layout};
use berth_spec::{CompileContext, ContainerPlan, SeccompProgram, oci};
use berth_sys::Pid;
use berth_sys::clone::{Clone3, Forked, clone3};

use crate::error::Error;
use crate::hooks::{ContainerState, run_hooks};
use crate::init::{self, Start};
use crate::namespaces::Namespaces;
use crate::parent::{self, Process, Served, Serving};
use crate::protocol::{self, ParentLink};
use crate::stdio::{ConsoleSink, Stdio};
use crate::watch::SeccompWatch;

/// Where the container's root file system comes from.
#[derive(Debug)]
pub enum RootfsSource {
    /// `root.path` of config.json.
    Path,
    /// A detached mount, attached to `root.path` (made if it is missing) in the container's own mount namespace: the
    /// host never sees it.
    Detached(OwnedFd),
}

/// How a created container is told to start.
#[derive(Debug)]
pub enum Gate {
    /// By [`CreatedContainer::start`] of the same process.
    InProcess,
    /// By whoever opens this FIFO for reading (`create` and `start` of the command line).
    Fifo(OwnedFd),
}

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Its id.
    pub id: &'a str,
    /// Directory of config.json, absolute.
    pub bundle: &'a Path,
    /// config.json.
    pub spec: &'a oci::Spec,
    /// Its root file system.
    pub rootfs: RootfsSource,
    /// Its standard streams.
    pub stdio: Stdio,
    /// How it is started.
    pub gate: Gate,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Use move and chroot instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the session keyring of the caller.
    pub no_new_keyring: bool,
    /// The container dies with its parent.
    pub die_with_parent: bool,
    /// Name the system calls that its seccomp filter denies ([`CreatedContainer::watch`]). Only for a caller that stays.
    pub observe_seccomp: bool,
}

/// A container whose init waits at the gate.
#[derive(Debug)]
pub struct CreatedContainer {
    /// Its init, as the host sees it.
    pub pid: Pid,
    /// The same, safe against reuse of the number.
    pub pidfd: OwnedFd,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Our side of its terminal, with [`ConsoleSink::Return`].
    pub console: Option<OwnedFd>,
    /// Problems that did not stop it.
    pub warnings: Vec<String>,
    /// The watch over denied system calls, with [`CreateRequest::observe_seccomp`]. To be served until it ends.
    pub watch: Option<SeccompWatch>,
    link: ParentLink,
    plan: ContainerPlan,
    state: ContainerState,
}

/// Makes a container up to the point before its program runs. What a failure leaves half made is undone.
///
/// # Errors
/// See [`Error`].
pub fn create(request: CreateRequest<'_>) -> Result<CreatedContainer, Error> {
    let layout = berth_cgroup::detect()?;
    let path = cgroup_path(request.spec, request.id);
    let mut plan = compile(&request, &layout, &path)?;
    let (observed, unobserved) = match request.observe_seccomp {
        true => parent::observe(&mut plan.process),
        false => (None, None),
    };
    if matches!(request.rootfs, RootfsSource::Detached(_)) {
        make_place(&plan.root.path)?;
    }
    let cgroup = Cgroup::create(&layout, &path, &plan.cgroup.resources)?;
    match spawn(request, plan, &cgroup, observed) {
        Ok(parts) => Ok(CreatedContainer {
            pid: parts.process.pid,
            pidfd: parts.process.pidfd,
            cgroup,
            console: parts.console,
            warnings: parts.warnings.into_iter().chain(unobserved).collect(),
            watch: parts.watch,
            link: parts.link,
            plan: parts.plan,
            state: parts.state,
        }),
        Err(error) => {
            let Err(errors) = cgroup.remove() else { return Err(error) };
            Err(Error::Many(std::iter::once(error).chain(errors.into_iter().map(Error::Cgroup)).collect()))
        }
    }
}

/// The empty directory a detached root is attached to, which belongs to the bundle and goes with it.
fn make_place(path: &Path) -> Result<(), Error> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("create directory", path, error))
        }
        _ => Ok(()),
    }
}

/// `linux.cgroupsPath` from each hierarchy's root, or `/berth/<id>`.
fn cgroup_path(spec: &oci::Spec, id: &str) -> PathBuf {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    match asked {
        Some(path) if !path.as_os_str().is_empty() => Path::new("/").join(path),
        _ => Path::new("/berth").join(id),
    }
}

fn compile(request: &CreateRequest<'_>, layout: &Layout, cgroup: &Path) -> Result<ContainerPlan, Error> {
    let context = CompileContext {
        bundle: request.bundle.to_owned(),
        rootless: !nix::unistd::geteuid().is_root(),
        cgroup: layout.mounts(),
        cgroup_path: cgroup.to_owned(),
        known_capabilities: crate::steps::capabilities::bounding(),
    };
    Ok(berth_spec::compile(request.spec, &context)?)
}

struct Parts {
    watch: Option<SeccompWatch>,
    process: Process,
    console: Option<OwnedFd>,
    warnings: Vec<String>,
    link: ParentLink,
    plan: ContainerPlan,
    state: ContainerState,
}

fn spawn(
    request: CreateRequest<'_>,
    plan: ContainerPlan,
    cgroup: &Cgroup,
    observed: Option<SeccompProgram>,
) -> Result<Parts, Error> {
    let state = ContainerState {
        oci_version: request.spec.version().clone(),
        id: request.id.to_owned(),
        status: "creating",
        pid: 0,
        bundle: request.bundle.to_owned(),
        annotations: plan.annotations.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    let sink = match &request.stdio {
        Stdio::Terminal(sink) => Some(sink.clone()),
        Stdio::Inherit | Stdio::Fds { .. } => None,
    };
    if sink.is_some() != plan.process.terminal.is_some() {
        let message = "process.terminal of config.json and the given standard streams contradict each other";
        return Err(Error::Invalid(message.into()));
    }
    let namespaces = Namespaces::open(&plan.namespaces, cgroup.dir_fd().is_some())?;
    let (link, child_link) = protocol::link()?;
    let first_flags =
        if namespaces.intermediate { berth_sys::clone::CloneFlags::empty() } else { namespaces.born_in };
    let forked = clone3(&Clone3 { flags: first_flags, cgroup: cgroup.dir_fd() });
    let first = match forked.map_err(|e| Error::os("clone3", e))? {
        Forked::Parent { pid, pidfd } => Process { pid, pidfd },
        Forked::Child => {
            drop(link);
            init::run(Start {
                request,
                plan: &plan,
                namespaces: &namespaces,
                cgroup,
                link: &child_link,
                state: &state,
            })
        }
    };
    drop(child_link);
    // The child has them; for us an open write end would hide the end of the program's output.
    drop(request);
    let process = if namespaces.intermediate {
        parent::await_handover(&link, &first).inspect_err(|_| parent::discard(&first))?
    } else {
        first
    };
    let mut serving = Serving {
        link: &link,
        steps: &plan.parent,
        id_maps: &plan.id_maps,
        hooks: Some(&plan.hooks),
        console: sink.as_ref(),
        notify: plan.process.seccomp.as_ref().and_then(|seccomp| seccomp.notify.as_ref()),
        observed,
        state: state.clone(),
    };
    match serving.run(&process, false) {
        Ok(mut served) => {
            let mut warnings: Vec<String> =
                plan.warnings.iter().map(|w| format!("{}: {}", w.field, w.message)).collect();
            warnings.append(&mut served.warnings);
            let state = ContainerState { pid: process.pid.as_raw(), status: "created", ..state };
            let Served { console, watch, .. } = served;
            Ok(Parts { watch, process, console, warnings, link, plan, state })
        }
        Err(error) => {
            parent::discard(&process);
            Err(error)
        }
    }
}

impl CreatedContainer {
    /// Lets the program run. Returns when it does, or with why it does not.
    ///
    /// # Errors
    /// [`Error::Child`] if the program cannot be executed; [`Error::Hook`] if a poststart hook fails.
    pub fn start(&mut self) -> Result<(), Error> {
        self.link.go()?;
        loop {
            match self.link.receive_watching(self.watch.as_mut())? {
                None => break,
                Some((crate::protocol::FromChild::Failure(failure), _)) => return Err(Error::Child(failure)),
                Some((crate::protocol::FromChild::Warning(text), _)) => self.warnings.push(text),
                Some((other, _)) => {
                    return Err(Error::Protocol {
                        got: format!("{other:?}"),
                        expected: "the end of the set-up",
                    });
                }
            }
        }
        self.state.status = "running";
        run_hooks("poststart", &self.plan.hooks.poststart, &self.state)
    }

    /// Only its first process, for whoever waits for its end, and the watch: all other descriptors are closed.
    #[must_use]
    pub fn into_process(self) -> (OwnedFd, Option<SeccompWatch>) {
        (self.pidfd, self.watch)
    }

    /// The container's state, as hooks get it.
    #[must_use]
    pub fn state(&self) -> ContainerState {
        self.state.clone()
    }

    /// Runs the poststop hooks: the container is gone.
    ///
    /// # Errors
    /// [`Error::Hook`] for the first that fails.
    pub fn run_poststop_hooks(&self) -> Result<(), Error> {
        let state = ContainerState { status: "stopped", pid: 0, ..self.state.clone() };
        run_hooks("poststop", &self.plan.hooks.poststop, &state)
    }
}

/// A terminal that the caller keeps.
impl From<ConsoleSink> for Stdio {
    fn from(sink: ConsoleSink) -> Self {
        Self::Terminal(sink)
    }
}
