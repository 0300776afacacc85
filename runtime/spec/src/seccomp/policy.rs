//! A profile, resolved for one ABI: which system call number leads to which outcome.
//!
//! The rules of combination are libseccomp's, because profiles are written against it:
//! - a rule equal to the default action is no rule;
//! - a name the ABI does not know is skipped;
//! - the first rule without arguments for a call wins over all rules with arguments;
//! - rules with arguments are alternatives, tried in the order of the profile;
//! - the conditions of one rule must all hold, except that several conditions on the same argument are alternatives
//!   (runc splits such a rule).

use std::collections::BTreeMap;

use super::tables::{Abi, IPC, SOCKETCALL, X32_BIT};
use crate::error::SpecError;
use crate::oci;

// linux/seccomp.h
pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// `ret` value for a call the profile's author cannot have known.
pub(super) const RET_ENOSYS: u32 = RET_ERRNO | libc::ENOSYS as u32;

/// One condition on a system call argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) op: oci::LinuxSeccompOperator,
    pub(super) value: u64,
    /// `MASKED_EQ`: what the masked argument must equal.
    pub(super) datum: u64,
}

/// A conjunction of conditions and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What happens to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Return(u32),
    /// Clauses in order; the default if none holds.
    Clauses(Vec<Clause>),
}

/// The outcome for each range of numbers: from `start` to the next range's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) outcome: Outcome,
}

/// The `ret` value of an action.
pub(super) fn action_value(
    field: &str,
    action: oci::LinuxSeccompAction,
    errno: Option<u32>,
) -> Result<u32, SpecError> {
    use oci::LinuxSeccompAction as A;
    let data = errno.unwrap_or(libc::EPERM as u32);
    if data > 0xffff {
        return Err(SpecError::new(format!("{field}.errnoRet"), format!("{data} does not fit into 16 bits"))
            .hint("use an errno value such as 1 (EPERM) or 38 (ENOSYS)"));
    }
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => RET_KILL_THREAD,
        A::ScmpActKillProcess => RET_KILL_PROCESS,
        A::ScmpActTrap => RET_TRAP,
        A::ScmpActErrno => RET_ERRNO | data,
        A::ScmpActNotify => RET_NOTIFY,
        A::ScmpActTrace => RET_TRACE | data,
        A::ScmpActLog => RET_LOG,
        A::ScmpActAllow => RET_ALLOW,
    })
}

/// True for a default under which unknown calls must not be answered with ENOSYS: the profile lists what it refuses.
fn lets_through(action: u32) -> bool {
    matches!(action & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE)
}

/// The rules of a profile, checked once and valid for every ABI.
pub(super) struct Rules<'a> {
    pub(super) default: u32,
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    names: &'a [String],
    action: u32,
    /// Alternatives; empty: unconditional.
    alternatives: Vec<Vec<Condition>>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(profile: &'a oci::LinuxSeccomp) -> Result<Self, SpecError> {
        let default = action_value("linux.seccomp", profile.default_action(), profile.default_errno_ret())?;
        let mut rules = Vec::new();
        for (at, call) in profile.syscalls().iter().flatten().enumerate() {
            let field = format!("linux.seccomp.syscalls[{at}]");
            if call.names().is_empty() {
                return Err(SpecError::new(format!("{field}.names"), "is empty")
                    .hint("name at least one system call"));
            }
            let action = action_value(&field, call.action(), call.errno_ret())?;
            if action == RET_NOTIFY && call.names().iter().any(|name| name == "write") {
                return Err(SpecError::new(field, "SCMP_ACT_NOTIFY cannot be used for the write syscall")
                    .hint("the runtime itself must write before the listener is served"));
            }
            let alternatives = alternatives(&field, call.args().as_deref().unwrap_or_default())?;
            if action != default {
                rules.push(Rule { names: call.names(), action, alternatives });
            }
        }
        Ok(Self { default, rules })
    }

    pub(super) fn uses_notify(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == RET_NOTIFY)
    }

    /// Outcomes by number for one ABI.
    fn outcomes(&self, abi: Abi) -> (BTreeMap<u32, Outcome>, u32) {
        let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
        let mut newest = 0;
        for rule in &self.rules {
            for name in rule.names {
                if let Some(number) = abi.number(name) {
                    newest = newest.max(number);
                    add(&mut outcomes, number, rule.action, &rule.alternatives);
                }
                if abi == Abi::X86 && rule.alternatives.is_empty() {
                    add_multiplexed(&mut outcomes, name, rule.action);
                }
            }
        }
        (outcomes, newest)
    }

    /// Outcomes of the whole number space of one `AUDIT_ARCH`, whose ABIs do not overlap.
    pub(super) fn ranges(&self, abis: &[Abi]) -> Vec<Range> {
        let mut ranges = Vec::new();
        for (base, abi) in [(0, abis.iter().find(|abi| **abi != Abi::X32)), (X32_BIT, x32(abis))] {
            match abi {
                Some(abi) => self.add_ranges(&mut ranges, base, *abi),
                None if base == X32_BIT && abis.contains(&Abi::X86_64) => {
                    push(&mut ranges, base, Outcome::Return(RET_KILL_THREAD));
                    // What a tracer leaves to skip a call is no call of a foreign ABI.
                    push(&mut ranges, u32::MAX, Outcome::Return(RET_ENOSYS));
                }
                None => {}
            }
        }
        ranges
    }

    fn add_ranges(&self, ranges: &mut Vec<Range>, base: u32, abi: Abi) {
        let (outcomes, newest) = self.outcomes(abi);
        push(ranges, base, Outcome::Return(self.default));
        for (number, outcome) in outcomes {
            push(ranges, number, outcome);
            push(ranges, number + 1, Outcome::Return(self.default));
        }
        if !lets_through(self.default) && newest > 0 {
            push(ranges, newest + 1, Outcome::Return(RET_ENOSYS));
        }
    }
}

fn x32(abis: &[Abi]) -> Option<&Abi> {
    abis.iter().find(|abi| **abi == Abi::X32)
}

/// Appends a range, replacing one of the same start and merging with an equal neighbour.
fn push(ranges: &mut Vec<Range>, start: u32, outcome: Outcome) {
    if ranges.last().is_some_and(|last| last.start == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.outcome != outcome) {
        ranges.push(Range { start, outcome });
    }
}

fn add(outcomes: &mut BTreeMap<u32, Outcome>, number: u32, action: u32, alternatives: &[Vec<Condition>]) {
    if alternatives.is_empty() {
        let settled = matches!(outcomes.get(&number), Some(Outcome::Return(_)));
        if !settled {
            outcomes.insert(number, Outcome::Return(action));
        }
        return;
    }
    if let Outcome::Clauses(clauses) = outcomes.entry(number).or_insert_with(|| Outcome::Clauses(Vec::new()))
    {
        clauses
            .extend(alternatives.iter().map(|conditions| Clause { conditions: conditions.clone(), action }));
    }
}

/// A rule for `socket` also holds for `socketcall(SYS_SOCKET, …)`, else 32-bit programs walk around it.
fn add_multiplexed(outcomes: &mut BTreeMap<u32, Outcome>, name: &str, action: u32) {
    for (through, table) in [("socketcall", SOCKETCALL), ("ipc", IPC)] {
        let (Some(number), Some((_, sub))) =
            (Abi::X86.number(through), table.iter().find(|(entry, _)| *entry == name))
        else {
            continue;
        };
        let condition = Condition {
            index: 0,
            op: oci::LinuxSeccompOperator::ScmpCmpEq,
            value: u64::from(*sub),
            datum: 0,
        };
        add(outcomes, number, action, &[vec![condition]]);
    }
}

fn alternatives(field: &str, args: &[oci::LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, SpecError> {
    let mut conditions = Vec::with_capacity(args.len());
    let mut seen = [false; 6];
    let mut repeated = false;
    for (at, arg) in args.iter().enumerate() {
        let Some(slot) = seen.get_mut(arg.index()) else {
            return Err(SpecError::new(
                format!("{field}.args[{at}].index"),
                format!("{} is not the number of an argument", arg.index()),
            )
            .hint("a system call has the arguments 0 to 5"));
        };
        repeated |= std::mem::replace(slot, true);
        let index = u32::try_from(arg.index()).expect("checked against the six arguments above");
        conditions.push(Condition {
            index,
            op: arg.op(),
            value: arg.value(),
            datum: arg.value_two().unwrap_or(0),
        });
    }
    Ok(match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, false) => vec![conditions],
        (false, true) => conditions.into_iter().map(|condition| vec![condition]).collect(),
    })
}
