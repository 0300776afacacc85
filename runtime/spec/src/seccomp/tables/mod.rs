//! System call numbers by name.

use crate::oci;

mod aarch64;
mod x86;
mod x86_64;

/// The bit that marks a system call of the x32 ABI (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An ABI whose system calls are known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
}

impl Abi {
    /// The number of a system call as it stands in `seccomp_data.nr`.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => find(x86_64::X86_64, name),
            Self::X32 => {
                find(x86_64::X32_OWN, name).or_else(|| find(x86_64::X86_64, name)).map(|nr| nr | X32_BIT)
            }
            Self::X86 => find(x86::X86, name),
            Self::Aarch64 => find(aarch64::AARCH64, name),
        }
    }

    /// The name of a system call by its number in `seccomp_data.nr`.
    pub(super) fn name(self, number: u32) -> Option<&'static str> {
        let by_number = |table: &'static [(&'static str, u32)], number: u32| {
            table.iter().find(|(_, own)| *own == number).map(|(name, _)| *name)
        };
        match self {
            Self::X86_64 => by_number(x86_64::X86_64, number),
            Self::X32 => {
                let number = number.checked_sub(X32_BIT)?;
                by_number(x86_64::X32_OWN, number).or_else(|| by_number(x86_64::X86_64, number))
            }
            Self::X86 => by_number(x86::X86, number),
            Self::Aarch64 => by_number(aarch64::AARCH64, number),
        }
    }

    /// The value in `seccomp_data.arch`.
    pub(super) const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => oci::Arch::ScmpArchX86_64 as u32,
            Self::X86 => oci::Arch::ScmpArchX86 as u32,
            Self::Aarch64 => oci::Arch::ScmpArchAarch64 as u32,
        }
    }

    /// The one this program uses.
    pub(super) const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Arguments are 32 bits wide.
    pub(super) const fn is_32bit(self) -> bool {
        matches!(self, Self::X86)
    }
}

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    table.binary_search_by(|(entry, _)| (*entry).cmp(name)).ok().map(|at| table[at].1)
}

/// What `socketcall(2)` and `ipc(2)` of 32-bit x86 multiplex: the name and the value of the first argument.
pub(super) const SOCKETCALL: &[(&str, u32)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// See [`SOCKETCALL`].
pub(super) const IPC: &[(&str, u32)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_the_search_finds_every_name() {
        for table in [x86_64::X86_64, x86_64::X32_OWN, x86::X86, aarch64::AARCH64] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert!(table.iter().all(|(name, nr)| find(table, name) == Some(*nr)));
        }
        assert_eq!(Abi::X32.name(X32_BIT | 520), Some("execve"));
        assert_eq!(Abi::native().name(u32::MAX), None);
    }

    #[test]
    fn numbers_agree_with_libc() {
        assert_eq!(Abi::X86_64.number("clone3"), Some(435));
        assert_eq!(Abi::X86.number("socketcall"), Some(102));
        assert_eq!(Abi::Aarch64.number("openat"), Some(56));
        assert_eq!(Abi::X32.number("execve"), Some(X32_BIT | 520));
        assert_eq!(Abi::X32.number("read"), Some(X32_BIT));
        assert_eq!(Abi::X86_64.number("no_such_call"), None);
    }
}
