//! Creating a container: the parent stage.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_cgroup::resctrl::{Group, Resctrl};
use berth_cgroup::{Cgroup, Layout, Unit};
use berth_spec::{CgroupMounts, CompileContext, ContainerPlan, SeccompProgram, oci};
use berth_sys::clone::{Clone3, Forked, clone3};
use berth_sys::{Pid, pidfd};

use crate::error::Error;
use crate::hooks::{ContainerState, run_all_hooks, run_hooks};
use crate::idmap;
use crate::init::{self, Start};
use crate::namespaces::Namespaces;
use crate::parent::{self, Process, Served, Serving};
use crate::protocol::{self, ParentLink};
use crate::stdio::{ConsoleSink, Stdio};
use crate::trace::Trace;
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
pub enum Gate<'a> {
    /// As soon as it is ready, and its first process is on record. (If a limit can be set only when it is ready, it waits for
    /// [`CreatedContainer::start`] all the same.)
    Recorded(Recorder<'a>),
    /// By [`CreatedContainer::start`] of the same process.
    InProcess,
    /// By whoever opens this FIFO for reading (`create` and `start` of the command line).
    Fifo(OwnedFd),
}

/// Records a container that is being made; why it cannot ends the creation.
#[derive(Clone, Copy)]
pub struct Recorder<'a>(pub &'a dyn Fn(&Newborn<'_>) -> Result<(), String>);

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// A container whose first process exists, and is not yet ready.
#[derive(Debug)]
pub struct Newborn<'a> {
    /// Its first process, as the host sees it.
    pub pid: Pid,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// Its share of caches and memory bandwidth.
    pub rdt: Option<&'a Group>,
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
    /// The systemd unit to put it into; none leaves systemd out.
    pub unit: Option<Unit>,
    /// Its root file system.
    pub rootfs: RootfsSource,
    /// Its standard streams.
    pub stdio: Stdio,
    /// How it is started.
    pub gate: Gate<'a>,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Use move and chroot instead of pivot_root(2).
    pub no_pivot: bool,
    /// Keep the session keyring of the caller.
    pub no_new_keyring: bool,
    /// The container dies with its parent.
    pub die_with_parent: bool,
    /// The caller is a user who may lack cgroups.
    pub unprivileged: bool,
    /// Who is told what is done.
    pub trace: Option<Trace<'a>>,
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
    /// Its share of caches and memory bandwidth.
    pub rdt: Option<Group>,
    /// Our side of its terminal, with [`ConsoleSink::Return`].
    pub console: Option<OwnedFd>,
    /// Problems with the machine that did not stop it.
    pub warnings: Vec<String>,
    /// The watch over denied system calls, with [`CreateRequest::observe_seccomp`]. To be served until it ends.
    pub watch: Option<SeccompWatch>,
    link: ParentLink,
    /// It was told to start already.
    started: bool,
    plan: ContainerPlan,
    state: ContainerState,
}

/// Makes a container up to the point before its program runs. What a failure leaves half made is undone.
///
/// # Errors
/// See [`Error`].
pub fn create(request: CreateRequest<'_>) -> Result<CreatedContainer, Error> {
    let layout = berth_cgroup::detect()?;
    let path = match &request.unit {
        Some(unit) => unit.path().to_owned(),
        None => cgroup_path(request.spec, request.id),
    };
    let mut plan = compile(&request, layout.mounts(), &path)?;
    if request.unprivileged {
        // Programs for devices take a privilege that no user namespace gives; its members cannot make nodes anyhow.
        plan.cgroup.resources.set_devices(None);
    }
    if matches!(request.rootfs, RootfsSource::Detached(_)) {
        make_place(&plan.root.path)?;
    }
    let mut cgroup = match &request.unit {
        Some(unit) => Cgroup::create_in_unit(&layout, unit, &plan.cgroup.resources)?,
        None => match Cgroup::create(&layout, &path, &plan.cgroup.resources) {
            Err(error) if request.unprivileged && error.is_refusal() => {
                let none = without_cgroup(&request, &layout, error)?;
                plan = compile(&request, layout.mounts_of_caller()?, Path::new("/"))?;
                none
            }
            other => other?,
        },
    };
    let (observed, unobserved) = match request.observe_seccomp {
        true => parent::observe(&mut plan.process),
        false => (None, None),
    };
    let state = ContainerState {
        oci_version: request.spec.version().clone(),
        id: request.id.to_owned(),
        status: "creating",
        pid: 0,
        bundle: request.bundle.to_owned(),
        annotations: plan.annotations.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    let rdt = match plan.rdt.as_ref().map(|plan| Resctrl::find()?.join(request.id, plan)).transpose() {
        Ok(rdt) => rdt,
        Err(error) => return Err(undone(error.into(), cgroup, None)),
    };
    let delegated = plan.cgroup.owner.map_or(Ok(()), |uid| cgroup.delegate(uid));
    let spawned = delegated
        .map_err(Error::from)
        .and_then(|()| spawn(request, &plan, &cgroup, rdt.as_ref(), &state, observed));
    let spawned = spawned.and_then(|parts| match cgroup.populated() {
        Ok(()) => Ok(parts),
        Err(error) => {
            parent::discard(&parts.process);
            Err(error.into())
        }
    });
    match spawned {
        Ok(parts) => Ok(CreatedContainer {
            state: ContainerState { pid: parts.process.pid.as_raw(), status: "created", ..state },
            pid: parts.process.pid,
            pidfd: parts.process.pidfd,
            cgroup,
            rdt,
            console: parts.console,
            warnings: parts.warnings.into_iter().chain(unobserved).collect(),
            watch: parts.watch,
            link: parts.link,
            started: parts.started,
            plan,
        }),
        Err(error) => {
            let error = undone(error, cgroup, rdt);
            // What a hook has begun, a poststop hook ends (runtime.md, "Lifecycle", steps 3 to 5 and 13).
            let state = ContainerState { status: "stopped", ..state };
            let left = run_all_hooks("poststop", &plan.hooks.poststop, &state);
            Err(if left.is_empty() {
                error
            } else {
                Error::Many(std::iter::once(error).chain(left).collect())
            })
        }
    }
}

/// A user who may make no cgroup runs without one, unless one was asked for.
fn without_cgroup(
    request: &CreateRequest<'_>,
    layout: &Layout,
    refusal: berth_cgroup::CgroupError,
) -> Result<Cgroup, Error> {
    let linux = request.spec.linux().as_ref();
    let limits = linux.and_then(|linux| linux.resources().clone()).map(|mut limits| {
        limits.set_devices(None);
        limits
    });
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    let asked = path.is_some_and(|path| !path.as_os_str().is_empty())
        || limits.is_some_and(|limits| limits != oci::LinuxResources::default());
    if !asked {
        return Ok(Cgroup::none(layout));
    }
    Err(Error::Invalid(format!(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {refusal} \
         (leave linux.resources and linux.cgroupsPath out, or have the cgroup delegated to you)"
    )))
}

/// Takes the groups of a failed creation away; what fails at that is told as well.
fn undone(error: Error, cgroup: Cgroup, rdt: Option<Group>) -> Error {
    let mut left = cgroup.remove().err().unwrap_or_default();
    left.extend(rdt.and_then(|group| group.undo().err()));
    if left.is_empty() {
        return error;
    }
    Error::Many(std::iter::once(error).chain(left.into_iter().map(Error::Cgroup)).collect())
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

fn compile(request: &CreateRequest<'_>, mounts: CgroupMounts, cgroup: &Path) -> Result<ContainerPlan, Error> {
    let context = CompileContext {
        bundle: request.bundle.to_owned(),
        rootless: !nix::unistd::geteuid().is_root(),
        cgroup: mounts,
        cgroup_path: cgroup.to_owned(),
        known_capabilities: Some(crate::steps::capabilities::bounding()),
        selinux: has_selinux(),
    };
    Ok(berth_spec::compile(request.spec, &context)?)
}

/// Its file system is mounted where libselinux looks for it.
fn has_selinux() -> bool {
    use nix::sys::statfs::{SELINUX_MAGIC, statfs};
    statfs("/sys/fs/selinux").is_ok_and(|found| found.filesystem_type() == SELINUX_MAGIC)
}

struct Parts {
    watch: Option<SeccompWatch>,
    process: Process,
    console: Option<OwnedFd>,
    warnings: Vec<String>,
    link: ParentLink,
    started: bool,
}

fn spawn(
    request: CreateRequest<'_>,
    plan: &ContainerPlan,
    cgroup: &Cgroup,
    rdt: Option<&Group>,
    state: &ContainerState,
    observed: Option<SeccompProgram>,
) -> Result<Parts, Error> {
    let sink = sink(&request.stdio, plan)?;
    let namespaces = Namespaces::open(&plan.namespaces, cgroup.is_joined_by_birth())?;
    let idmapped = idmap::prepare(&plan.steps, !plan.id_maps.is_empty() && nix::unistd::geteuid().is_root())?;
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
                plan,
                namespaces: &namespaces,
                cgroup,
                link: &child_link,
                state,
                idmapped,
            })
        }
    };
    drop(child_link);
    let trace = request.trace;
    if let Some(trace) = trace {
        trace.tell(&format!("child process in init(): pid {}", first.pid));
    }
    // The child has the rest; for us an open write end would hide the end of the program's output.
    let CreateRequest { gate, .. } = request;
    parent::put_into(cgroup, &link, &first).inspect_err(|_| parent::discard(&first))?;
    let process = if namespaces.intermediate {
        parent::await_handover(&link, &first, rdt, trace).inspect_err(|_| parent::discard(&first))?
    } else {
        parent::share(rdt, &first).inspect_err(|_| parent::discard(&first))?;
        first
    };
    let started = record(gate, &process, cgroup, rdt).and_then(|recorded| {
        let starts = recorded && !cgroup.is_provisional() && !plan.parent.iter().any(parent::is_limit);
        if starts { link.start().map(|()| true) } else { Ok(false) }
    });
    let started = started.inspect_err(|_| parent::discard(&process))?;
    let mut serving = Serving {
        link: &link,
        steps: &plan.parent,
        id_maps: &plan.id_maps,
        init: &plan.steps,
        hooks: Some(&plan.hooks),
        console: sink.as_ref(),
        notify: plan.process.seccomp.as_ref().and_then(|seccomp| seccomp.notify.as_ref()),
        observed,
        state: state.clone(),
        trace,
    };
    match serving.run(&process, false) {
        Ok(served) => {
            let Served { console, watch, warnings } = served;
            Ok(Parts { watch, process, console, warnings, link, started })
        }
        Err(error) => {
            parent::discard(&process);
            if !plan.has_own_mounts() {
                unmount_root(&plan.root.path);
            }
            Err(error)
        }
    }
}

/// Where the terminal goes that config.json wants.
fn sink(stdio: &Stdio, plan: &ContainerPlan) -> Result<Option<ConsoleSink>, Error> {
    let sink = match stdio {
        Stdio::Terminal(sink) => Some(sink.clone()),
        Stdio::Inherit | Stdio::Fds { .. } => None,
    };
    if sink.is_some() != plan.process.terminal.is_some() {
        let message = "process.terminal of config.json and the given standard streams contradict each other";
        return Err(Error::Invalid(message.into()));
    }
    Ok(sink)
}

/// Has the container recorded, if that is to be done before it is ready; whether it was.
fn record(gate: Gate<'_>, process: &Process, cgroup: &Cgroup, rdt: Option<&Group>) -> Result<bool, Error> {
    let Gate::Recorded(Recorder(record)) = gate else { return Ok(false) };
    record(&Newborn { pid: process.pid, cgroup, rdt }).map_err(Error::Invalid)?;
    Ok(true)
}

/// Undoes the mounts of a container that has the host's mount namespace. One that was never made is none.
pub fn unmount_root(root: &Path) {
    use nix::mount::{MntFlags, umount2};
    umount2(root, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
}

impl CreatedContainer {
    /// Lets the program run, if it waits for that. Returns when it does, or with why it does not.
    ///
    /// # Errors
    /// [`Error::Child`] if the program cannot be executed; [`Error::Hook`] if a poststart hook fails.
    pub fn start(&mut self) -> Result<(), Error> {
        if !self.started {
            self.link.start()?;
        }
        loop {
            match self.link.receive_watching(self.watch.as_mut())? {
                None => break,
                Some((crate::protocol::FromChild::Failure(failure), _)) => return Err(Error::Child(failure)),
                Some((crate::protocol::FromChild::Warning(text), _)) => self.warnings.push(text),
                Some((crate::protocol::FromChild::Trace(_), _)) => {}
                Some((other, _)) => {
                    return Err(Error::Protocol {
                        got: format!("{other:?}"),
                        expected: "the end of the set-up",
                    });
                }
            }
        }
        self.state.status = "running";
        let hooks = &self.plan.hooks.poststart;
        run_hooks("poststart", hooks, &self.state, Some(&self.state.bundle)).inspect_err(|_| {
            // runtime.md, "Lifecycle", step 9. It has ended by itself if this fails.
            pidfd::send_signal(&self.pidfd, nix::libc::SIGKILL).ok();
        })
    }

    /// Only its first process, for whoever waits for its end, and the watch: all other descriptors are closed.
    #[must_use]
    pub fn into_process(self) -> (OwnedFd, Option<SeccompWatch>) {
        (self.pidfd, self.watch)
    }

    /// Problems with config.json that did not stop it.
    pub fn config_warnings(&self) -> impl Iterator<Item = String> {
        self.plan.warnings.iter().map(ToString::to_string)
    }

    /// The compiled seccomp filter of its first process, for [`ExecRequest::filter`](crate::ExecRequest::filter).
    #[must_use]
    pub fn filter(&self) -> Option<&SeccompProgram> {
        self.plan.process.seccomp.as_ref()
    }

    /// The container's state, as hooks get it.
    #[must_use]
    pub fn state(&self) -> ContainerState {
        self.state.clone()
    }

    /// Removes the cgroup of a container whose processes are gone and runs the poststop hooks, past all problems,
    /// which are returned.
    #[must_use]
    pub fn remove(self) -> Vec<Error> {
        let mut errors: Vec<_> =
            self.cgroup.remove().err().into_iter().flatten().map(Error::Cgroup).collect();
        errors.extend(self.rdt.and_then(|group| group.remove().err()).map(Error::Cgroup));
        let state = ContainerState { status: "stopped", pid: 0, ..self.state };
        errors.extend(run_all_hooks("poststop", &self.plan.hooks.poststop, &state));
        errors
    }
}

/// A terminal that the caller keeps.
impl From<ConsoleSink> for Stdio {
    fn from(sink: ConsoleSink) -> Self {
        Self::Terminal(sink)
    }
}
