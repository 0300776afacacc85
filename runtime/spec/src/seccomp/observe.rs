//! Denied system calls, named: the same filter, but where it would deny, a listener is asked. The listener gives the
//! filter's own answer, after it has been told which call it is for.

use super::tables::Abi;
use super::{FLAG_NEW_LISTENER, Instruction, SeccompProgram, interpreter, native_arch};

// linux/seccomp.h
const RET: u16 = 0x06;
const ACTION: u32 = 0xffff_0000;
const DATA: u32 = 0x0000_ffff;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number.
    pub number: u32,
    /// `AUDIT_ARCH_*` of its ABI.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What a filter does about a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is not made; the program gets this error number.
    Errno(i32),
    /// Whoever makes it is killed.
    Kill,
    /// A tracer or a signal handler has the word.
    Other,
}

impl SystemCall {
    /// As in profiles: `mkdir`; the number where there is no name.
    #[must_use]
    pub fn name(&self) -> String {
        let abis = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64];
        let mut abis = abis.into_iter().filter(|abi| abi.audit_arch() == self.arch);
        let name = abis.find_map(|abi| abi.name(self.number));
        name.map_or_else(|| format!("system call {} of ABI {:#x}", self.number, self.arch), str::to_owned)
    }
}

impl SeccompProgram {
    /// What the filter does about a call.
    #[must_use]
    pub fn verdict(&self, call: &SystemCall) -> Verdict {
        let (answer, _) = interpreter::run(&self.filter, call);
        match answer & ACTION {
            RET_ALLOW | RET_LOG => Verdict::Allow,
            RET_ERRNO => Verdict::Errno((answer & DATA).cast_signed()),
            RET_KILL_PROCESS | RET_KILL_THREAD => Verdict::Kill,
            _ => Verdict::Other,
        }
    }

    /// The filter that asks a listener before it denies.
    ///
    /// # Errors
    /// In words, why there cannot be one.
    pub fn observed(&self) -> Result<Self, &'static str> {
        if self.notify.is_some() {
            return Err("the profile has SCMP_ACT_NOTIFY, and a process can have one listener only");
        }
        // The listener's descriptor is handed over under the filter; nobody could answer for that.
        let call = |name| {
            Some(SystemCall { number: Abi::native().number(name)?, arch: native_arch() as u32, args: [0; 6] })
        };
        if call("sendmsg").is_none_or(|call| self.verdict(&call) != Verdict::Allow) {
            return Err("the profile does not allow sendmsg");
        }
        let ask = |i: &Instruction| match (i.code, i.k & ACTION) {
            (RET, RET_ERRNO | RET_KILL_PROCESS | RET_KILL_THREAD) => Instruction { k: RET_USER_NOTIF, ..*i },
            _ => *i,
        };
        let filter = self.filter.iter().map(ask).collect();
        Ok(Self { filter, flags: self.flags | FLAG_NEW_LISTENER, notify: None })
    }
}
