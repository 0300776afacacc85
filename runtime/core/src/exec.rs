//! One more process in a running container.

use std::os::fd::{BorrowedFd, OwnedFd};

use berth_cgroup::Cgroup;
use berth_cgroup::resctrl::Group;
use berth_spec::{ExecFilter, IdMaps, InitStep, ProcessPlan, oci};
use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::{Errno, Pid, ns, process, procfs};

use crate::create::Gate;
use crate::error::{Context, Error, Fault};
use crate::hooks::ContainerState;
use crate::init::{self, Init, Never};
use crate::namespaces;
use crate::parent::{self, Process, Serving};
use crate::protocol::{self, ChildLink, FromChild};
use crate::stdio::Stdio;
use crate::steps::Stage;
use crate::trace::Trace;
use crate::watch::SeccompWatch;

/// What to run, and where.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// Its share of caches and memory bandwidth.
    pub rdt: Option<&'a Group>,
    /// If that takes no process, the new one goes where init is.
    pub beside_init: bool,
    /// The container's config.json.
    pub spec: &'a oci::Spec,
    /// Its seccomp filter. Compiling that takes a quarter as long as all the rest.
    pub filter: ExecFilter,
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
    /// Who is told what is done.
    pub trace: Option<Trace<'a>>,
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
pub fn exec(mut request: ExecRequest<'_>) -> Result<ExecChild, Error> {
    let known = Some(crate::steps::capabilities::bounding());
    let filter = std::mem::replace(&mut request.filter, ExecFilter::Compiled(None));
    let (mut plan, warnings) = berth_spec::compile_process(request.process, request.spec, filter, known)?;
    plan.steps.retain(|step| !is_so_already(step));
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
    let first = match fork_in_cgroup(&request)? {
        Forked::Parent { pid, pidfd } => Process { pid, pidfd },
        Forked::Child => {
            drop(link);
            run(request, &plan, kinds, &child_link)
        }
    };
    drop(child_link);
    parent::put_into(request.cgroup, &link, &first).inspect_err(|_| parent::discard(&first))?;
    let trace = request.trace;
    if let Some(trace) = trace {
        trace.tell(&format!("child process in init(): pid {}", first.pid));
    }
    let rdt = request.rdt;
    drop(request);
    let process =
        parent::await_handover(&link, &first, rdt, trace).inspect_err(|_| parent::discard(&first))?;
    let mut serving = Serving {
        link: &link,
        steps: &plan.parent,
        id_maps: &IdMaps::default(),
        init: &[],
        hooks: None,
        console: sink.as_ref(),
        notify: plan.seccomp.as_ref().and_then(|seccomp| seccomp.notify.as_ref()),
        observed,
        state,
        trace,
    };
    match serving.run(&process, true) {
        Ok(served) => Ok(ExecChild {
            pid: process.pid,
            pidfd: process.pidfd,
            console: served.console,
            warnings: warnings
                .iter()
                .map(ToString::to_string)
                .chain(served.warnings)
                .chain(unobserved)
                .collect(),
            watch: served.watch,
        }),
        Err(error) => {
            parent::discard(&process);
            Err(error)
        }
    }
}

/// The score is inherited, and almost always the one that is asked for. Setting it would need a procfs of the
/// container's processes, which costs more than all other steps together.
fn is_so_already(step: &InitStep) -> bool {
    let InitStep::OomScoreAdj(score) = step else { return false };
    let own = procfs::read_text("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    own == Some(*score)
}

/// A container of cgroup version 2 may have moved its processes into groups below its own and given those controllers.
/// No process fits beside them then, so a new one is born where init is.
fn fork_in_cgroup(request: &ExecRequest<'_>) -> Result<Forked, Error> {
    let fork = |cgroup| clone3(&Clone3 { flags: CloneFlags::empty(), cgroup });
    let forked = match fork(request.cgroup.dir_fd()) {
        Err(Errno::EBUSY) if request.beside_init => {
            let init = Pid::from_raw(request.state.pid);
            fork(Cgroup::of_process(&berth_cgroup::detect()?, init)?.dir_fd())
        }
        other => other,
    };
    forked.map_err(|errno| match errno {
        Errno::EBUSY => Error::os("error adding pid of the new process to cgroups: clone3", errno),
        _ => Error::os("clone3", errno),
    })
}

fn run(request: ExecRequest<'_>, plan: &ProcessPlan, kinds: CloneFlags, link: &ChildLink) -> ! {
    let Err((step, fault)) = begin(request, plan, kinds, link);
    init::give_up(link, step, fault)
}

fn begin(
    request: ExecRequest<'_>,
    plan: &ProcessPlan,
    kinds: CloneFlags,
    link: &ChildLink,
) -> Result<Never, (String, Fault)> {
    let named = |step: &'static str| move |fault| (step.to_owned(), fault);
    process::cloexec_from(3 + request.preserve_fds)
        .at(|| "close descriptors".into())
        .map_err(named("Parent"))?;
    init::hide().map_err(named("Namespaces"))?;
    init::join_cgroup(request.cgroup, link).map_err(named("Cgroup"))?;
    match plan.cpu_affinity.initial.as_deref() {
        // Only now: joining a cpuset widens the mask to all of it.
        Some(initial) => affinity(initial).map_err(named("CpuAffinity"))?,
        None => init::reset_affinity(),
    }
    if request.trace.is_some() {
        init::trace_start(link);
    }
    ns::setns(request.init, kinds)
        .at(|| "join the container's namespaces (has it ended?)".into())
        .map_err(named("Namespaces"))?;
    init::fork_into(CloneFlags::empty(), link).map_err(named("Namespaces"))?;
    settle(&request, plan, kinds, link).map_err(named("Namespaces"))?;
    if let Some(last) = plan.cpu_affinity.last.as_deref() {
        affinity(last).map_err(named("CpuAffinity"))?;
    }
    let foreground = request.stdio.is_foreground();
    init::take_streams(request.stdio).map_err(named("Streams"))?;
    let mut init = Init {
        process: plan,
        link,
        stage: Stage::default(),
        gate: Gate::InProcess,
        preserve_fds: request.preserve_fds,
        no_pivot: false,
        no_new_keyring: false,
        foreground,
        outlives_parent: !request.die_with_parent,
        id: &request.state.id,
        traced: request.trace.is_some(),
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
fn affinity(processors: &[usize]) -> Result<(), Fault> {
    let mut set = nix::sched::CpuSet::new();
    for processor in processors {
        set.set(*processor).at(|| format!("processor {processor}"))?;
    }
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).at(|| "set the CPU affinity".into())
}
