//! Attributes the kernel keeps for a process: limits, priorities, labels, filters, parameters.

use berth_spec::{IoPriority, MemoryPolicyStep, Rlimit, SchedulerPlan, SysctlStep};
use berth_sys::seccomp::SockFilter;
use berth_sys::{Errno, process};
use nix::fcntl::OFlag;
use nix::sys::personality::Persona;

use crate::error::{Context, Fault};
use crate::init::Init;
use crate::parent::set_rlimit;
use crate::protocol::FromChild;

pub(super) fn personality(value: u32) -> Result<(), Fault> {
    let persona = Persona::from_bits_retain(value.cast_signed());
    nix::sys::personality::set(persona).map(drop).at(|| format!("set personality {value:#x}"))
}

pub(super) fn memory_policy(policy: &MemoryPolicyStep) -> Result<(), Fault> {
    process::set_memory_policy(policy.mode, &policy.nodes)
        .at(|| format!("set memory policy {:#x} for nodes {:?}", policy.mode, policy.nodes))
}

/// `SCHED_DEADLINE` of `<linux/sched.h>`.
const DEADLINE: u32 = 6;

pub(super) fn scheduler(plan: &SchedulerPlan) -> Result<(), Fault> {
    let mut attr = process::SchedAttr::default();
    attr.policy = plan.policy;
    attr.flags = plan.flags;
    attr.nice = plan.nice;
    attr.priority = plan.priority;
    attr.runtime = plan.runtime;
    attr.deadline = plan.deadline;
    attr.period = plan.period;
    process::set_scheduler(&attr).at(|| {
        // sched(7): a deadline task must be allowed on all processors of its root domain.
        let why = if plan.policy == DEADLINE {
            " (process scheduler can't be used together with AllowedCPUs)"
        } else {
            ""
        };
        format!("set scheduler policy {}{why}", plan.policy)
    })
}

pub(super) fn io_priority(priority: IoPriority) -> Result<(), Fault> {
    process::set_io_priority(priority.class.into(), priority.level.into())
        .at(|| format!("set I/O priority class {} level {}", priority.class, priority.level))
}

impl Init<'_> {
    /// A score that the machine does not let us lower is a warning.
    pub(super) fn oom_score_adj(&mut self, score: i32) -> Result<(), Fault> {
        match self.stage.procfs()?.write("self/oom_score_adj", score.to_string().as_bytes()) {
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                self.warn(format!("oomScoreAdj {score} has no effect here: {}", errno.desc()));
                Ok(())
            }
            other => other.at(|| format!("set oom_score_adj to {score}")),
        }
    }

    /// A session keyring of the container's name: an exec gets the same as the first process, not its caller's.
    ///
    /// A kernel without keys, or a user whose quota of them is used up, is none the worse for it.
    pub(super) fn new_keyring(&self) -> Result<(), Fault> {
        if self.no_new_keyring {
            return Ok(());
        }
        match berth_sys::keyring::join_session(&format!("_ses.{}", self.id)) {
            Err(Errno::ENOSYS | Errno::EDQUOT) => Ok(()),
            other => other.at(|| "join the container's session keyring".into()),
        }
    }

    pub(super) fn sysctls(&mut self, sysctls: &[SysctlStep]) -> Result<(), Fault> {
        for sysctl in sysctls {
            let path = std::path::Path::new("sys").join(&sysctl.path);
            let written = self.stage.procfs()?.write(path, sysctl.value.as_bytes());
            written.at(|| format!("set sysctl {} to {:?}", sysctl.key, sysctl.value))?;
        }
        Ok(())
    }

    pub(super) fn rlimits(&self, limits: &[Rlimit]) -> Result<(), Fault> {
        let mut warnings = Vec::new();
        for limit in limits {
            set_rlimit(None, limit, &mut warnings).at(|| format!("set limit {}", limit.kind))?;
        }
        for warning in warnings {
            self.warn(warning);
        }
        Ok(())
    }

    pub(super) fn apparmor(&mut self, profile: &str) -> Result<(), Fault> {
        let text = format!("exec {profile}");
        self.label("thread-self/attr/apparmor/exec", &text, "AppArmor", "leave out process.apparmorProfile")
    }

    pub(super) fn selinux(&mut self, label: &str) -> Result<(), Fault> {
        self.label("thread-self/attr/exec", label, "SELinux", "leave out process.selinuxLabel")
    }

    fn label(&mut self, file: &str, text: &str, module: &str, hint: &str) -> Result<(), Fault> {
        let procfs = self.stage.procfs()?;
        let what = |why: String| format!("apply {module} label {text:?} ({why})");
        let absent = || what(format!("does this kernel have {module}? if not, {hint}"));
        let attribute = procfs.open_file(file, OFlag::O_WRONLY).at(absent)?;
        match nix::unistd::write(&attribute, text.as_bytes()) {
            Ok(_) => Ok(()),
            Err(errno @ Errno::ENOENT) => {
                Err(errno).at(|| what("it is not loaded: load it, or choose another".into()))
            }
            Err(errno) => Err(errno).at(absent),
        }
    }

    /// Installs the filter; a notification descriptor goes to the parent.
    pub(super) fn seccomp(&self) -> Result<(), Fault> {
        let Some(program) = &self.process.seccomp else { return Ok(()) };
        let filter: Vec<SockFilter> =
            program.filter.iter().map(|i| SockFilter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
        if self.traced {
            self.trace(format!("seccomp filter flags: {}", program.flags_of_profile()));
        }
        let listener = berth_sys::seccomp::load(&filter, program.flags)
            .at(|| format!("load the seccomp filter of {} instructions", filter.len()))?;
        if let Some(listener) = listener {
            self.link
                .send(&FromChild::Listener, Some(&listener))
                .at(|| "hand over the seccomp listener".into())?;
        }
        Ok(())
    }
}
