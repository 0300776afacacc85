//! One more process in a running container.

use std::os::fd::{BorrowedFd, OwnedFd};

use berth_cgroup::Cgroup;
use berth_spec::{IdMaps, ProcessPlan, oci};
use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::{Pid, ns, process};

use crate::create::Gate;
use crate::error::{Context, Error, Fault};
use crate::hooks::ContainerState;
use crate::init::{self, Init, Never};
use crate::namespaces;
use crate::parent::{self, Process, Serving};
use crate::protocol::{self, ChildLink, FromChild};
use crate::stdio::Stdio;
use crate::steps::Stage;
use crate::watch::SeccompWatch;

/// What to run, and where.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// The container's config.json.
    pub spec: &'a oci::Spec,
    /// The container's state, for a seccomp agent.
    pub state: ContainerState,
    /// The process.
    pub process: &'a oci::Process,
    /// Its standard streams.
    pub stdio: Stdio,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// The process dies with its parent.
    pub die_with_parent: bool,
    /// Name the system calls that its seccomp filter denies ([`ExecChild::watch`]). Only for a caller that stays.
    pub observe_seccomp: bool,
}

/// A process that runs its program.
#[derive(Debug)]
pub struct ExecChild {
    /// Its pid, as the host sees it. It is a child of the caller.
    pub pid: Pid,
    /// The same, safe against reuse of the number.
    pub pidfd: OwnedFd,
    /// Our side of its terminal.
    pub console: Option<OwnedFd>,
    /// Problems that did not stop it.
    pub warnings: Vec<String>,
    /// The watch over denied system calls, with [`ExecRequest::observe_seccomp`]. To be served until it ends.
    pub watch: Option<SeccompWatch>,
}

/// Runs a process in a container; returns once its program runs.
///
/// # Errors
/// See [`Error`]; [`Error::Child`] with runc's words if the program cannot be executed.
pub fn exec(request: ExecRequest<'_>) -> Result<ExecChild, Error> {
    let mut plan = berth_spec::compile_process(request.process, request.spec)?;
    let (observed, unobserved) = match request.observe_seccomp {
        true => parent::observe(&mut plan),
        false => (None, None),
    };
    let sink = match &request.stdio {
        Stdio::Terminal(sink) => Some(sink.clone()),
        Stdio::Inherit | Stdio::Fds { .. } => None,
    };
    if sink.is_some() != plan.terminal.is_some() {
        return Err(Error::Invalid(
            "process.terminal and the given standard streams contradict each other".into(),
        ));
    }
    let kinds = namespaces::of_container(request.spec);
    let state = request.state.clone();
    let (link, child_link) = protocol::link()?;
    let forked = clone3(&Clone3 { flags: CloneFlags::empty(), cgroup: request.cgroup.dir_fd() });
    let first = match forked.map_err(|e| Error::os("clone3", e))? {
        Forked::Parent { pid, pidfd } => Process { pid, pidfd },
        Forked::Child => {
            drop(link);
            run(request, &plan, kinds, &child_link)
        }
    };
    drop(child_link);
    drop(request);
    let process = parent::await_handover(&link, &first).inspect_err(|_| parent::discard(&first))?;
    let mut serving = Serving {
        link: &link,
        steps: &plan.parent,
        id_maps: &IdMaps::default(),
        hooks: None,
        console: sink.as_ref(),
        notify: plan.seccomp.as_ref().and_then(|seccomp| seccomp.notify.as_ref()),
        observed,
        state,
    };
    match serving.run(&process, true) {
        Ok(served) => Ok(ExecChild {
            pid: process.pid,
            pidfd: process.pidfd,
            console: served.console,
            warnings: served.warnings.into_iter().chain(unobserved).collect(),
            watch: served.watch,
        }),
        Err(error) => {
            parent::discard(&process);
            Err(error)
        }
    }
}

fn run(request: ExecRequest<'_>, plan: &ProcessPlan, kinds: CloneFlags, link: &ChildLink) -> ! {
    let failure = match begin(request, plan, kinds, link) {
        Ok(never) => match never {},
        Err((step, fault)) => init::failure(step, fault),
    };
    link.fail(failure);
    process::exit_now(1)
}

fn begin(
    request: ExecRequest<'_>,
    plan: &ProcessPlan,
    kinds: CloneFlags,
    link: &ChildLink,
) -> Result<Never, (String, Fault)> {
    let named = |step: &'static str| move |fault| (step.to_owned(), fault);
    affinity(plan.cpu_affinity.initial.as_deref()).map_err(named("CpuAffinity"))?;
    process::cloexec_from(3 + request.preserve_fds)
        .at(|| "close descriptors".into())
        .map_err(named("Parent"))?;
    init::hide().map_err(named("Namespaces"))?;
    init::join_cgroup(request.cgroup).map_err(named("Cgroup"))?;
    ns::setns(request.init, kinds)
        .at(|| "join the container's namespaces (has it ended?)".into())
        .map_err(named("Namespaces"))?;
    init::fork_into(CloneFlags::empty(), link).map_err(named("Namespaces"))?;
    settle(&request, plan, kinds, link).map_err(named("Namespaces"))?;
    affinity(plan.cpu_affinity.last.as_deref()).map_err(named("CpuAffinity"))?;
    init::take_streams(request.stdio).map_err(named("Streams"))?;
    let mut init = Init {
        process: plan,
        link,
        stage: Stage::default(),
        gate: Gate::InProcess,
        preserve_fds: request.preserve_fds,
        no_pivot: false,
        no_new_keyring: false,
        outlives_parent: !request.die_with_parent,
        id: &request.state.id,
        container: None,
    };
    init::run_steps(&mut init, &plan.steps)
}

fn settle(
    request: &ExecRequest<'_>,
    plan: &ProcessPlan,
    kinds: CloneFlags,
    link: &ChildLink,
) -> Result<(), Fault> {
    if request.die_with_parent {
        init::bind_to_parent()?;
    }
    process::reset_signals().at(|| "reset signals".into())?;
    nix::unistd::setsid().map(drop).at(|| "setsid".into())?;
    if kinds.contains(CloneFlags::NEWUSER) {
        namespaces::become_root().at(|| "become root of the user namespace".into())?;
    }
    if plan.parent.is_empty() {
        return Ok(());
    }
    link.send(&FromChild::NamespacesReady, None).at(|| "report to the parent".into())?;
    link.wait_for_go().at(|| "wait for the parent".into())
}

/// The processors this process may use (config.md, "execCPUAffinity").
fn affinity(processors: Option<&[usize]>) -> Result<(), Fault> {
    let Some(processors) = processors else { return Ok(()) };
    let mut set = nix::sched::CpuSet::new();
    for processor in processors {
        set.set(*processor).at(|| format!("processor {processor}"))?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).at(|| "set the CPU affinity".into())
}
