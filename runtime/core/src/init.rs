//! The child: from clone3 to the program.

use std::os::fd::OwnedFd;

use berth_cgroup::Cgroup;
use berth_spec::{ContainerPlan, InitStep, ProcessPlan};
use berth_sys::clone::{Clone3, CloneFlags, Forked, clone3};
use berth_sys::{ns, process};

use crate::create::{CreateRequest, Gate, RootfsSource};
use crate::error::{ChildFailure, Context, Fault};
use crate::hooks::ContainerState;
use crate::idmap::Prepared;
use crate::namespaces::{Namespaces, become_root};
use crate::protocol::{ChildLink, FromChild};
use crate::stdio::Stdio;
use crate::steps::Stage;

/// What a container's init starts with.
pub(crate) struct Start<'a> {
    pub(crate) request: CreateRequest<'a>,
    pub(crate) plan: &'a ContainerPlan,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) link: &'a ChildLink,
    pub(crate) state: &'a ContainerState,
    pub(crate) idmapped: Prepared,
}

/// Everything a step may need.
pub(crate) struct Init<'a> {
    pub(crate) process: &'a ProcessPlan,
    pub(crate) link: &'a ChildLink,
    pub(crate) stage: Stage,
    pub(crate) gate: Gate<'a>,
    pub(crate) preserve_fds: u32,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// The terminal's output goes to another terminal.
    pub(crate) foreground: bool,
    /// The parent's death must not end the program.
    pub(crate) outlives_parent: bool,
    /// The container's id.
    pub(crate) id: &'a str,
    /// The parent wants to know each step.
    pub(crate) traced: bool,
    /// The container itself; an exec has none of this.
    pub(crate) container: Option<InContainer<'a>>,
}

/// What only the container's first process has.
pub(crate) struct InContainer<'a> {
    pub(crate) plan: &'a ContainerPlan,
    pub(crate) rootfs: Option<OwnedFd>,
    pub(crate) idmapped: Prepared,
    pub(crate) state: &'a ContainerState,
}

/// The first process of a container. Never returns: it becomes the program, or tells why not and ends.
pub(crate) fn run(start: Start<'_>) -> ! {
    let link = start.link;
    let Err((step, fault)) = begin(start);
    give_up(link, step, fault)
}

/// Tells why there will be no program, and ends. Nothing is dropped: descriptors may be closed already.
pub(crate) fn give_up(link: &ChildLink, step: String, fault: Fault) -> ! {
    link.fail(failure(step, fault));
    process::exit_now(1)
}

/// Nothing: the other end of [`begin`] is execve.
pub(crate) enum Never {}

fn begin(start: Start<'_>) -> Result<Never, (String, Fault)> {
    let Start { request, plan, namespaces, cgroup, link, state, idmapped } = start;
    let named = |step: &'static str| move |fault| (step.to_owned(), fault);
    // A creation that is killed half-way takes its child along; the last step before the gate lifts this, unless the
    // container is to die with its parent for good.
    bind_to_parent().map_err(named("Parent"))?;
    // What the caller left open is for nobody but, at most, the program: hooks must not inherit it.
    process::cloexec_from(3 + request.preserve_fds)
        .at(|| "close descriptors".into())
        .map_err(named("Parent"))?;
    join_cgroup(cgroup, link).map_err(named("Cgroup"))?;
    reset_affinity();
    if request.trace.is_some() {
        trace_start(link);
    }
    namespaces.enter().map_err(named("Namespaces"))?;
    if namespaces.intermediate {
        if plan.id_maps.is_empty() {
            // Others may live in the namespaces that were joined: they must not trace us before the program runs.
            hide().map_err(named("Namespaces"))?;
        }
        let born_in = namespaces.set_clocks().map_err(named("Namespaces"))?;
        fork_into(born_in, link).map_err(named("Namespaces"))?;
        bind_to_parent().map_err(named("Parent"))?;
    }
    settle(namespaces, plan, link).map_err(named("Namespaces"))?;
    let foreground = request.stdio.is_foreground();
    take_streams(request.stdio).map_err(named("Streams"))?;
    let rootfs = match request.rootfs {
        RootfsSource::Path => None,
        RootfsSource::Detached(mount) => Some(mount),
    };
    let mut init = Init {
        process: &plan.process,
        link,
        stage: Stage::default(),
        gate: request.gate,
        preserve_fds: request.preserve_fds,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        foreground,
        outlives_parent: !request.die_with_parent,
        id: request.id,
        traced: request.trace.is_some(),
        container: Some(InContainer { plan, rootfs, idmapped, state }),
    };
    if matches!(init.gate, Gate::Fifo(_)) {
        init.stage.prepare_gate().map_err(named("Gate"))?;
    }
    run_steps(&mut init, &plan.steps)
}

/// The order of set-up is the plan's, and only the plan's.
pub(crate) fn run_steps(init: &mut Init<'_>, steps: &[InitStep]) -> ! {
    for step in steps {
        if init.traced {
            init.trace(format!("init: {}", name_of(step)));
        }
        if let Err(fault) = init.run(step) {
            give_up(init.link, name_of(step), fault);
        }
    }
    give_up(init.link, "Exec".to_owned(), Fault::new("the plan has no program"))
}

/// The first lines of a traced child, in the words that are looked for in runc's log. If nobody listens there is nobody
/// to tell.
pub(crate) fn trace_start(link: &ChildLink) {
    let own = nix::unistd::Pid::from_raw(0);
    let processors = nix::sched::sched_getaffinity(own).unwrap_or_default();
    let low = (0..64).filter(|number| processors.is_set(*number).unwrap_or(false));
    let mask = low.fold(0u64, |mask, number| mask | 1 << number);
    for line in ["nsexec container setup".to_owned(), format!("nsexec: affinity: {mask:#x}")] {
        link.send(&FromChild::Trace(line), None).ok();
    }
}

/// `Mount` of `Mount(…)`.
fn name_of(step: &InitStep) -> String {
    let text = format!("{step:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

pub(crate) fn failure(step: String, fault: Fault) -> ChildFailure {
    let Fault { message, errno, kind, hint } = fault;
    ChildFailure { step, message, errno: errno.map(|e| e as i32), kind, hint }
}

/// From here on this process dies with its parent.
pub(crate) fn bind_to_parent() -> Result<(), Fault> {
    let signal = nix::sys::signal::Signal::SIGKILL;
    nix::sys::prctl::set_pdeathsig(signal).at(|| "prctl(PR_SET_PDEATHSIG)".into())
}

/// Processes of the container may not trace this one, nor follow `/proc/<pid>/{root,cwd,exe,fd}`, until execve
/// (CVE-2016-9962).
pub(crate) fn hide() -> Result<(), Fault> {
    nix::sys::prctl::set_dumpable(false).at(|| "prctl(PR_SET_DUMPABLE)".into())
}

/// On version 1 a single-threaded process moves itself: that takes no global lock. In cgroup2 it was born. Where only
/// systemd may move it, the parent asks for that.
pub(crate) fn join_cgroup(cgroup: &Cgroup, link: &ChildLink) -> Result<(), Fault> {
    if cgroup.is_joined_by_request() {
        return link.wait_for_go().at(|| "wait to be put into the cgroup".into());
    }
    if cgroup.is_joined_by_birth() {
        return Ok(());
    }
    cgroup.join_self().map_err(|error| Fault::new(error.to_string()))
}

/// Whatever processors the caller was bound to, the container may use all that its cgroup allows.
pub(crate) fn reset_affinity() {
    let mut all = nix::sched::CpuSet::new();
    for processor in 0..nix::sched::CpuSet::count() {
        // Within the set's own size.
        all.set(processor).ok();
    }
    // A host that forbids it leaves us with the caller's, which is what we had.
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &all).ok();
}

/// Forks the process that goes on, tells the parent about it, and ends.
pub(crate) fn fork_into(namespaces: CloneFlags, link: &ChildLink) -> Result<(), Fault> {
    let flags = namespaces | CloneFlags::PARENT;
    match clone3(&Clone3 { flags, cgroup: None }).at(|| "clone3 in the namespaces".into())? {
        // Not a word before the parent knows whose it is.
        Forked::Child => link.wait_for_go().at(|| "wait to be handed over".into()),
        Forked::Parent { pid, pidfd } => {
            link.send(&FromChild::Forked(pid.as_raw()), Some(&pidfd))
                .at(|| "tell the parent of the child".into())?;
            process::exit_now(0)
        }
    }
}

/// A session of its own, the late cgroup namespace, and the ids of a new user namespace.
fn settle(namespaces: &Namespaces, plan: &ContainerPlan, link: &ChildLink) -> Result<(), Fault> {
    process::reset_signals().at(|| "reset signals".into())?;
    nix::unistd::setsid().map(drop).at(|| "setsid".into())?;
    if !plan.parent.is_empty() {
        link.send(&FromChild::NamespacesReady, None).at(|| "report to the parent".into())?;
        link.wait_for_go().at(|| "wait for the parent".into())?;
    }
    if plan.process.in_user_namespace {
        become_root().at(|| "become root of the user namespace".into())?;
    }
    if namespaces.late_cgroup {
        ns::unshare(CloneFlags::NEWCGROUP).at(|| "unshare the cgroup namespace".into())?;
    }
    // Not before: the maps of a process that hides cannot be written by an unprivileged parent. Until now the
    // processes of a shared pid namespace have less capabilities than we, and so cannot trace us either.
    hide()
}

pub(crate) fn take_streams(stdio: Stdio) -> Result<(), Fault> {
    match stdio {
        Stdio::Fds { stdin, stdout, stderr } => {
            process::set_stdio(&stdin, &stdout, &stderr).at(|| "set standard streams".into())
        }
        Stdio::Inherit | Stdio::Terminal(_) => Ok(()),
    }
}
