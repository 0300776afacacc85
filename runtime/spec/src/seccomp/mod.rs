//! `linux.seccomp` → a classic BPF program.
//!
//! ```text
//!  LinuxSeccomp ─▶ policy (rules per ABI) ─▶ ranges of numbers ─▶ codegen (binary search) ─▶ asm (backwards)
//! ```
//!
//! Of a program's instructions a system call runs about eight: the architecture, its number, the search. Why this
//! compiler exists beside the seccompiler crate is told in `docs/decisions/0010-seccomp-compiler.md`; that crate is
//! the oracle of the tests.

mod asm;
mod codegen;
mod interpreter;
mod observe;
mod policy;
mod tables;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use asm::{Backwards, Test};
use policy::{RET_KILL_THREAD, Rules};
use tables::Abi;

pub use observe::{SystemCall, Verdict};

use crate::error::SpecError;
use crate::oci;

/// The longest program the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

// linux/seccomp.h
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A compiled filter with what seccomp(2) must be told beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompProgram {
    /// The filter.
    pub filter: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2); `NEW_LISTENER` is among them when `notify` is set.
    pub flags: u32,
    /// Where the listener goes, if the profile has `SCMP_ACT_NOTIFY`.
    pub notify: Option<Notify>,
}

/// The receiver of seccomp notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// A unix socket.
    pub listener_path: PathBuf,
    /// Opaque data handed along.
    pub metadata: String,
}

/// The architecture this binary was built for.
#[must_use]
pub const fn native_arch() -> oci::Arch {
    if cfg!(target_arch = "aarch64") { oci::Arch::ScmpArchAarch64 } else { oci::Arch::ScmpArchX86_64 }
}

/// Compiles a profile for processes of the given (native) architecture.
///
/// Of the profile's other architectures those are honoured that this machine can execute and whose system calls are
/// known here (x86 and x32 beside x86_64); a call by any other one kills the thread, as under libseccomp.
///
/// # Errors
/// An argument index above five, an action that does not exist for its place, a program that would be too long.
pub fn compile(profile: &oci::LinuxSeccomp, arch: oci::Arch) -> Result<SeccompProgram, SpecError> {
    if profile.default_action() == oci::LinuxSeccompAction::ScmpActNotify {
        return Err(SpecError::new(
            "linux.seccomp.defaultAction",
            "SCMP_ACT_NOTIFY cannot be used as the default action",
        )
        .hint("notify for single system calls"));
    }
    let rules = Rules::new(profile)?;
    let notify = notify(profile, &rules)?;
    let mut flags = flags(profile.flags().as_deref());
    if notify.is_some() {
        flags |= FLAG_NEW_LISTENER;
    }
    Ok(SeccompProgram { filter: program(profile, &rules, arch)?, flags, notify })
}

impl SeccompProgram {
    /// The flags as the profile has them: without those of a listener that it has not asked for
    /// ([`SeccompProgram::observed`]).
    #[must_use]
    pub const fn flags_of_profile(&self) -> u32 {
        match self.notify {
            Some(_) => self.flags,
            None => self.flags & !FLAG_NEW_LISTENER,
        }
    }
}

fn notify(profile: &oci::LinuxSeccomp, rules: &Rules<'_>) -> Result<Option<Notify>, SpecError> {
    if !rules.uses_notify() {
        return Ok(None);
    }
    let Some(path) = profile.listener_path() else {
        return Err(SpecError::new(
            "linux.seccomp.listenerPath",
            "is missing although a rule has SCMP_ACT_NOTIFY",
        )
        .hint("give the path of the agent's unix socket"));
    };
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    Ok(Some(Notify { listener_path: path.clone(), metadata }))
}

/// A profile that says nothing about flags gets SPEC_ALLOW, as from runc: the mitigation would slow every thread. TSYNC
/// has no effect: who loads a filter here has one thread.
fn flags(flags: Option<&[oci::LinuxSeccompFilterFlag]>) -> u32 {
    use oci::LinuxSeccompFilterFlag as F;
    flags.map_or(FLAG_SPEC_ALLOW, |flags| {
        flags.iter().fold(0, |all, flag| {
            all | match flag {
                F::SeccompFilterFlagLog => FLAG_LOG,
                F::SeccompFilterFlagTsync => 0,
                F::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                F::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
            }
        })
    })
}

fn program(
    profile: &oci::LinuxSeccomp,
    rules: &Rules<'_>,
    arch: oci::Arch,
) -> Result<Vec<Instruction>, SpecError> {
    let asked = |arch| profile.architectures().iter().flatten().any(|asked| *asked == arch);
    // (AUDIT_ARCH value, ABIs that share it), the most frequent one first.
    let sections: Vec<(u32, Vec<Abi>)> = match arch {
        oci::Arch::ScmpArchX86_64 => {
            let mut abis = vec![Abi::X86_64];
            if asked(oci::Arch::ScmpArchX32) {
                abis.push(Abi::X32);
            }
            let mut sections = vec![(oci::Arch::ScmpArchX86_64 as u32, abis)];
            if asked(oci::Arch::ScmpArchX86) {
                sections.push((oci::Arch::ScmpArchX86 as u32, vec![Abi::X86]));
            }
            sections
        }
        oci::Arch::ScmpArchX86 => vec![(arch as u32, vec![Abi::X86])],
        oci::Arch::ScmpArchAarch64 => vec![(arch as u32, vec![Abi::Aarch64])],
        other => {
            return Err(SpecError::new("linux.seccomp", format!("no system call table for {other}"))
                .hint("seccomp profiles work on x86_64, x86 and aarch64"));
        }
    };
    let mut asm = Backwards::default();
    let mut next = asm.ret(RET_KILL_THREAD);
    for (audit_arch, abis) in sections.iter().rev() {
        let narrow = abis.iter().all(|abi| abi.is_32bit());
        let body = codegen::section(&mut asm, &rules.ranges(abis), rules.default, narrow);
        next = asm.branch(Test::Equal, *audit_arch, body, next);
    }
    asm.load(codegen::ARCH, next);
    let filter = asm.finish();
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(SpecError::new(
            "linux.seccomp.syscalls",
            format!("the filter needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}", filter.len()),
        )
        .hint("use fewer rules with arguments"));
    }
    Ok(filter)
}
