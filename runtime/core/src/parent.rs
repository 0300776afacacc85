//! The parent's side of the protocol: what the child cannot do for itself.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_cgroup::Cgroup;
use berth_cgroup::resctrl::Group;
use berth_spec::seccomp::Notify;
use berth_spec::{HookPlans, IdMaps, InitStep, ParentStep, ProcessPlan, Rlimit, SeccompProgram};
use berth_sys::pidfd::{self, ExitStatus};
use berth_sys::{Errno, Pid, process, socket};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect};
use std::os::fd::AsRawFd;

use crate::error::Error;
use crate::hooks::{ContainerState, run_hooks};
use crate::protocol::{FromChild, ParentLink};
use crate::stdio::ConsoleSink;
use crate::trace::Trace;
use crate::watch::SeccompWatch;
use crate::{id_maps, idmap};

/// What the parent needs to serve a child until it is ready (or, for an exec, until it has become its program).
pub(crate) struct Serving<'a> {
    pub(crate) link: &'a ParentLink,
    pub(crate) steps: &'a [ParentStep],
    pub(crate) id_maps: &'a IdMaps,
    /// The child's own steps; it may ask for help with its mounts.
    pub(crate) init: &'a [InitStep],
    pub(crate) hooks: Option<&'a HookPlans>,
    pub(crate) console: Option<&'a ConsoleSink>,
    pub(crate) notify: Option<&'a Notify>,
    /// The process' own filter, if it was given one that asks us first.
    pub(crate) observed: Option<SeccompProgram>,
    pub(crate) state: ContainerState,
    pub(crate) trace: Option<Trace<'a>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Our side of the terminal.
    pub(crate) console: Option<OwnedFd>,
    /// Problems that did not stop the child.
    pub(crate) warnings: Vec<String>,
    /// The watch over its denied system calls.
    pub(crate) watch: Option<SeccompWatch>,
}

/// Has the process' filter ask us before it denies a call; the filter itself, or why not as a warning.
pub(crate) fn observe(process: &mut ProcessPlan) -> (Option<SeccompProgram>, Option<String>) {
    let Some(program) = process.seccomp.take() else { return (None, None) };
    match program.observed() {
        Ok(observed) => {
            process.seccomp = Some(observed);
            (Some(program), None)
        }
        Err(why) => {
            process.seccomp = Some(program);
            (None, Some(format!("denied system calls cannot be named: {why}")))
        }
    }
}

/// The process that serving is about.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Has systemd put a child that has just been forked into its cgroup, where it cannot be born there.
pub(crate) fn put_into(cgroup: &Cgroup, link: &ParentLink, child: &Process) -> Result<(), Error> {
    if cgroup.is_joined_by_request() {
        cgroup.add(child.pid)?;
        link.go()?;
    }
    Ok(())
}

/// Takes a process into the container's share of caches and memory bandwidth.
pub(crate) fn share(rdt: Option<&Group>, process: &Process) -> Result<(), Error> {
    Ok(rdt.map_or(Ok(()), |group| group.add(process.pid))?)
}

/// A child that has only been forked may be replaced by its own child (an intermediate process hands over).
pub(crate) fn await_handover(
    link: &ParentLink,
    first: &Process,
    rdt: Option<&Group>,
    trace: Option<Trace<'_>>,
) -> Result<Process, Error> {
    loop {
        return match link.receive()? {
            Some((FromChild::Trace(line), _)) => {
                trace.iter().for_each(|trace| trace.tell(&line));
                continue;
            }
            Some((FromChild::Forked(pid), Some(pidfd))) => {
                let process = Process { pid: Pid::from_raw(pid), pidfd };
                share(rdt, &process).inspect_err(|_| discard(&process))?;
                link.go()?;
                // It has only its end before it, and need not be awaited for the other to go on.
                let reaped = pidfd::wait(&first.pidfd, true)
                    .map_err(|e| Error::os("wait for the process in between", e));
                reaped.inspect_err(|_| discard(&process))?;
                Ok(process)
            }
            Some((FromChild::Failure(failure), _)) => Err(Error::Child(failure)),
            Some((other, _)) => Err(Error::Protocol { got: format!("{other:?}"), expected: "Forked" }),
            None => Err(died(first)),
        };
    }
}

impl Serving<'_> {
    /// Serves until the child is ready to start; `Ready` ends it for a container, the end of file for an exec.
    pub(crate) fn run(&mut self, child: &Process, until_exec: bool) -> Result<Served, Error> {
        let mut served = Served::default();
        self.state.pid = child.pid.as_raw();
        loop {
            let Some((message, fd)) = self.link.receive_watching(served.watch.as_mut())? else {
                return if until_exec && alive_or_ended_well(child) { Ok(served) } else { Err(died(child)) };
            };
            match (message, fd) {
                (FromChild::NamespacesReady, _) => {
                    self.perform(child, |step| until_exec || !is_limit(step), &mut served)?;
                    self.link.go()?;
                }
                (FromChild::MapIds(index), Some(mount)) => {
                    idmap::map(self.init, index, &mount)?;
                    self.link.go()?;
                }
                (FromChild::RunHooks, _) => {
                    if let Some(hooks) = self.hooks {
                        // The environment is there: step 2 of runtime.md, "Lifecycle", is behind us.
                        let state = ContainerState { status: "created", ..self.state.clone() };
                        let bundle = Some(state.bundle.as_path());
                        run_hooks("prestart", &hooks.prestart, &state, bundle)?;
                        run_hooks("createRuntime", &hooks.create_runtime, &state, bundle)?;
                    }
                    self.link.go()?;
                }
                (FromChild::Console, Some(master)) => {
                    let sink = self
                        .console
                        .ok_or(Error::Protocol { got: "Console".into(), expected: "no terminal" })?;
                    served.console = sink.deliver(master)?;
                }
                (FromChild::Listener, Some(listener)) => match self.observed.take() {
                    Some(program) => served.watch = Some(SeccompWatch::new(listener, program)),
                    None => self.hand_over_listener(&listener)?,
                },
                (FromChild::Warning(text), _) => served.warnings.push(text),
                (FromChild::Trace(line), _) => {
                    if let Some(trace) = &self.trace {
                        trace.tell(&line);
                    }
                }
                (FromChild::Ready, _) if !until_exec => {
                    self.perform(child, is_limit, &mut served)?;
                    return Ok(served);
                }
                (FromChild::Failure(failure), _) => return Err(Error::Child(failure)),
                (other, _) => {
                    return Err(Error::Protocol { got: format!("{other:?}"), expected: "another message" });
                }
            }
        }
    }

    fn perform(
        &self,
        child: &Process,
        which: impl Fn(&ParentStep) -> bool,
        served: &mut Served,
    ) -> Result<(), Error> {
        let mut steps = self.steps.iter().filter(|step| which(step));
        steps.try_for_each(|step| perform(step, self.id_maps, child.pid, &mut served.warnings))
    }

    /// Gives the seccomp listener to the agent (config-linux.md, "Seccomp listener").
    fn hand_over_listener(&self, listener: &OwnedFd) -> Result<(), Error> {
        let Some(notify) = self.notify else {
            return Err(Error::Protocol { got: "Listener".into(), expected: "no seccomp notification" });
        };
        let context = |errno: Errno| {
            Error::os(
                format!(
                    "failed to connect with seccomp agent specified in the seccomp profile: send the listener to {}",
                    notify.listener_path.display()
                ),
                errno,
            )
        };
        let message = serde_json::json!({
            "ociVersion": self.state.oci_version,
            "fds": ["seccompFd"],
            "pid": self.state.pid,
            "metadata": notify.metadata,
            "state": self.state,
        });
        let address = UnixAddr::new(&notify.listener_path).map_err(context)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let stream =
            nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(context)?;
        connect(stream.as_raw_fd(), &address).map_err(context)?;
        let bytes = message.to_string();
        socket::send_with_fds(&stream, bytes.as_bytes(), &[listener.as_fd()], MsgFlags::empty())
            .map_err(context)?;
        Ok(())
    }
}

/// Limits for the program, which are no limits for its set-up.
pub(crate) fn is_limit(step: &ParentStep) -> bool {
    matches!(step, ParentStep::Rlimits(_) | ParentStep::OomScoreAdj(_))
}

fn perform(step: &ParentStep, maps: &IdMaps, pid: Pid, warnings: &mut Vec<String>) -> Result<(), Error> {
    let proc = |name: &str| Path::new("/proc").join(pid.to_string()).join(name);
    let write = |name: &str, text: String| {
        fs::write(proc(name), text).map_err(|e| Error::io("write", &proc(name), e))
    };
    match step {
        ParentStep::IdMaps => id_maps::write(maps, pid),
        ParentStep::OomScoreAdj(score) => {
            if let Err(error) = write("oom_score_adj", score.to_string()) {
                warnings.push(format!("oomScoreAdj {score} has no effect: {error}"));
            }
            Ok(())
        }
        ParentStep::Rlimits(limits) => {
            for limit in limits {
                set_rlimit(Some(pid), limit, warnings)
                    .map_err(|errno| Error::os(format!("set limit {}", limit.kind), errno))?;
            }
            Ok(())
        }
        ParentStep::NetDevices(devices) => crate::netdev::take(devices, pid),
    }
}

/// Sets a limit. One that the machine does not let us raise is as high as it gets, and a warning.
pub(crate) fn set_rlimit(pid: Option<Pid>, limit: &Rlimit, warnings: &mut Vec<String>) -> Result<(), Errno> {
    match process::set_rlimit(pid, limit.resource, limit.soft, limit.hard) {
        Err(Errno::EPERM) => {
            let most = process::rlimit(pid, limit.resource)?.1;
            warnings.push(format!(
                "{} {} may not be raised above {most} here (CAP_SYS_RESOURCE)",
                limit.kind, limit.hard
            ));
            process::set_rlimit(pid, limit.resource, limit.soft.min(most), limit.hard.min(most))
        }
        other => other,
    }
}

/// The end of file on the link means that the program runs, or that the child died before: its status tells.
fn alive_or_ended_well(child: &Process) -> bool {
    // A status other than "killed during set-up" belongs to the program and is the caller's to collect.
    pidfd::send_signal(&child.pidfd, 0).is_ok()
}

/// The error for a child that ended without a word; reaps it.
pub(crate) fn died(child: &Process) -> Error {
    let how = match pidfd::wait(&child.pidfd, true) {
        Ok(Some(ExitStatus::Signal(signal))) => format!("by signal {signal}"),
        Ok(Some(ExitStatus::Code(code))) => format!("with exit code {code}"),
        _ => "by somebody else".to_owned(),
    };
    Error::ChildDied { how }
}

/// Ends a child that is of no use any more.
pub(crate) fn discard(child: &Process) {
    // Both fail only if it has ended and been reaped already.
    pidfd::send_signal(&child.pidfd, nix::libc::SIGKILL).ok();
    pidfd::wait(&child.pidfd, true).ok();
}
