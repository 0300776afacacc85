//! `process` → [`ProcessPlan`].

use std::collections::HashSet;
use std::ffi::CString;

use crate::error::SpecError;
use crate::oci;
use crate::plan::SpecWarning;
use crate::process::{CpuAffinity, IoPriority, ProcessPlan, Rlimit, SchedulerPlan, TerminalPlan, UserPlan};
use crate::seccomp::SeccompProgram;

use super::{capabilities, paths};

/// umask of a process for which none was given.
const DEFAULT_UMASK: u32 = 0o022;

pub(super) fn plan(
    process: &oci::Process,
    seccomp: Option<SeccompProgram>,
    in_userns: bool,
    known_capabilities: Option<u64>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<ProcessPlan, SpecError> {
    let args = c_strings("process.args", process.args().as_deref().unwrap_or_default())?;
    if args.is_empty() {
        return Err(SpecError::new("process.args", "is empty").hint("give the program to run"));
    }
    let env = last_of_each(c_strings("process.env", process.env().as_deref().unwrap_or_default())?);
    if !process.cwd().is_absolute() {
        return Err(SpecError::new("process.cwd", "Cwd must be an absolute path").hint("write \"/\""));
    }
    paths::no_nul("process.cwd", process.cwd())?;
    let plan = ProcessPlan {
        needs_home: !env.iter().any(|entry| entry.to_bytes().starts_with(b"HOME=")),
        args,
        env,
        cwd: paths::clean(process.cwd()),
        user: user(process.user())?,
        terminal: terminal(process)?,
        capabilities: process
            .capabilities()
            .as_ref()
            .map(|sets| capabilities::plan(sets, known_capabilities, warnings)),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj: oom_score_adj(process.oom_score_adj())?,
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        apparmor: process.apparmor_profile().clone().filter(|name| !name.is_empty()),
        selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
        cpu_affinity: affinity(process)?,
        in_user_namespace: in_userns,
        steps: Vec::new(),
        parent: Vec::new(),
    };
    Ok(plan)
}

/// The plan of a container that has no program: it can be created, but not started (config.md, "Process").
pub(super) fn none(in_userns: bool) -> ProcessPlan {
    ProcessPlan {
        args: Vec::new(),
        env: Vec::new(),
        needs_home: false,
        cwd: "/".into(),
        user: UserPlan { umask: DEFAULT_UMASK, ..UserPlan::default() },
        terminal: None,
        capabilities: None,
        no_new_privileges: false,
        seccomp: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        scheduler: None,
        io_priority: None,
        apparmor: None,
        selinux: None,
        cpu_affinity: CpuAffinity::default(),
        in_user_namespace: in_userns,
        steps: Vec::new(),
        parent: Vec::new(),
    }
}

/// Each variable once, with the value that was given last; an empty HOME is none, as for runc.
fn last_of_each(env: Vec<CString>) -> Vec<CString> {
    let mut seen = HashSet::with_capacity(env.len());
    let name =
        |entry: &CString| entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
    let mut kept: Vec<CString> = env.into_iter().rev().filter(|entry| seen.insert(name(entry))).collect();
    kept.retain(|entry| entry.to_bytes() != b"HOME=");
    kept.reverse();
    kept
}

/// Strings for execve(2).
pub(super) fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>, SpecError> {
    strings
        .iter()
        .enumerate()
        .map(|(at, text)| {
            CString::new(text.as_str())
                .map_err(|_| SpecError::new(format!("{field}[{at}]"), "contains a NUL byte"))
        })
        .collect()
}

fn user(user: &oci::User) -> Result<UserPlan, SpecError> {
    let umask = user.umask().unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        return Err(SpecError::new("process.user.umask", format!("{umask:#o} is not within 0777")));
    }
    for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
        // -1 means "unchanged" to setresuid(2).
        if id == u32::MAX {
            return Err(SpecError::new(format!("process.user.{name}"), format!("{id} is no id")));
        }
    }
    Ok(UserPlan {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask,
    })
}

fn terminal(process: &oci::Process) -> Result<Option<TerminalPlan>, SpecError> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let Some(size) = process.console_size() else { return Ok(Some(TerminalPlan::default())) };
    let fit = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            SpecError::new(format!("process.consoleSize.{name}"), format!("{value} is no terminal size"))
        })
    };
    let (rows, columns) = (fit("height", size.height())?, fit("width", size.width())?);
    Ok(Some(TerminalPlan { size: (rows != 0 || columns != 0).then_some((rows, columns)) }))
}

fn rlimits(limits: &[oci::PosixRlimit]) -> Result<Vec<Rlimit>, SpecError> {
    let mut plan: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for (at, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{at}]");
        let resource = resource(limit.typ());
        if plan.iter().any(|known| known.resource == resource) {
            return Err(SpecError::new(format!("{field}.type"), format!("a second {}", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(SpecError::new(
                format!("{field}.soft"),
                format!("{} is above the hard limit {}", limit.soft(), limit.hard()),
            ));
        }
        plan.push(Rlimit { resource, kind: limit.typ(), soft: limit.soft(), hard: limit.hard() });
    }
    Ok(plan)
}

/// The numbers of `asm-generic/resource.h`; C libraries do not agree on their type.
fn resource(kind: oci::PosixRlimitType) -> u32 {
    use oci::PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

fn oom_score_adj(score: Option<i32>) -> Result<Option<i32>, SpecError> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(SpecError::new("process.oomScoreAdj", format!("{score} is not within -1000..1000")))
        }
        other => Ok(other),
    }
}

fn scheduler(scheduler: &oci::Scheduler) -> Result<SchedulerPlan, SpecError> {
    use oci::{LinuxSchedulerFlag as F, LinuxSchedulerPolicy as P};
    let policy = match scheduler.policy() {
        P::SchedOther => 0,
        P::SchedFifo => 1,
        P::SchedRr => 2,
        P::SchedBatch => 3,
        P::SchedIso => {
            return Err(SpecError::new("process.scheduler.policy", "SCHED_ISO does not exist in Linux"));
        }
        P::SchedIdle => 5,
        P::SchedDeadline => 6,
    };
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(SpecError::new("process.scheduler.nice", format!("{nice} is not within -20..19")));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let real_time = matches!(policy, 1 | 2);
    if priority != 0 && !real_time {
        return Err(SpecError::new(
            "process.scheduler.priority",
            "can only be specified for SchedFIFO or SchedRR policy",
        ));
    }
    let (runtime, deadline, period) = (
        scheduler.runtime().unwrap_or(0),
        scheduler.deadline().unwrap_or(0),
        scheduler.period().unwrap_or(0),
    );
    if (runtime, deadline, period) != (0, 0, 0) && policy != 6 {
        return Err(SpecError::new(
            "process.scheduler",
            "runtime/deadline/period can only be specified for SchedDeadline policy",
        ));
    }
    // linux/sched.h, SCHED_FLAG_*
    let flags = scheduler.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            F::SchedResetOnFork => 0x01,
            F::SchedFlagReclaim => 0x02,
            F::SchedFlagDLOverrun => 0x04,
            F::SchedFlagKeepPolicy => 0x08,
            F::SchedFlagKeepParams => 0x10,
            F::SchedFlagUtilClampMin => 0x20,
            F::SchedFlagUtilClampMax => 0x40,
        }
    });
    let priority = u32::try_from(priority)
        .map_err(|_| SpecError::new("process.scheduler.priority", format!("{priority} is negative")))?;
    Ok(SchedulerPlan { policy, flags, nice, priority, runtime, deadline, period })
}

fn io_priority(priority: &oci::LinuxIOPriority) -> Result<IoPriority, SpecError> {
    let class = match priority.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(priority.priority()) {
        Ok(level @ 0..=7) => Ok(IoPriority { class, level }),
        _ => Err(SpecError::new(
            "process.ioPriority.priority",
            format!("{} is not within 0..7", priority.priority()),
        )),
    }
}

fn affinity(process: &oci::Process) -> Result<CpuAffinity, SpecError> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(CpuAffinity::default()) };
    let list = |name: &str, text: &Option<String>| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| number_list(&format!("process.execCPUAffinity.{name}"), text))
            .transpose()
    };
    Ok(CpuAffinity {
        initial: list("initial", affinity.initial())?,
        last: list("final", affinity.cpu_affinity_final())?,
    })
}

/// `0-3,7` as cpuset(7) writes lists.
pub(super) fn number_list(field: &str, text: &str) -> Result<Vec<usize>, SpecError> {
    // More than any kernel has processors or nodes; a bound for what is expanded here.
    const MOST: usize = 8192;
    let bad = || SpecError::new(field, format!("{text:?} is no list of numbers")).hint("write 0-3,7");
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (from, to): (usize, usize) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
        if from > to || to >= MOST {
            return Err(bad());
        }
        numbers.extend(from..=to);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
