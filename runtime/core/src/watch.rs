//! Denied system calls, named: the listener of a process whose filter asks before it denies.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_spec::{SeccompProgram, SystemCall, Verdict};
use berth_sys::seccomp::{Notification, answer, receive};
use berth_sys::{Errno, pidfd};

use crate::error::errno_text;

/// Answers as the filter would have, and keeps what it has denied. Whoever holds one must answer whenever it is
/// readable: the process waits.
#[derive(Debug)]
pub struct SeccompWatch {
    listener: OwnedFd,
    program: SeccompProgram,
    told: BTreeSet<String>,
    news: Vec<String>,
}

impl SeccompWatch {
    pub(crate) fn new(listener: OwnedFd, program: SeccompProgram) -> Self {
        Self { listener, program, told: BTreeSet::new(), news: Vec::new() }
    }

    /// Answers one call. One whose process has died meanwhile needs none.
    pub fn answer(&mut self) {
        let Ok(notification) = receive(&self.listener) else { return };
        let Notification { id, pid, number, arch, args } = notification;
        let call = SystemCall { number, arch, args };
        let error = match self.program.verdict(&call) {
            Verdict::Allow => None,
            Verdict::Errno(code) => {
                let errno = Errno::from_raw(code);
                self.tell(pid.as_raw(), &call, &errno_text(errno));
                Some(errno)
            }
            Verdict::Kill | Verdict::Other => {
                self.tell(pid.as_raw(), &call, "the process is killed");
                // The filter kills even an init, which only this signal does. It is gone if that fails.
                pidfd::open(pid).and_then(|pidfd| pidfd::send_signal(pidfd, nix::libc::SIGKILL)).ok();
                Some(Errno::ENOSYS)
            }
        };
        answer(&self.listener, id, error).ok();
    }

    /// Each call of each program is told once.
    fn tell(&mut self, pid: i32, call: &SystemCall, outcome: &str) {
        // A name is a convenience: the process may be gone.
        let program = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let text = format!("seccomp denied {} to {}: {outcome}", call.name(), program.trim_end());
        if self.told.insert(text.clone()) {
            self.news.push(text);
        }
    }

    /// What has been denied since this was asked last, a sentence each.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }
}

impl AsFd for SeccompWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
