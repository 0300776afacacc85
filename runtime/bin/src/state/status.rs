//! In which state a container is.

/// The states of runtime.md, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// `create` is at work, or was killed.
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What a process' `stat` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
    /// It has not executed any program since it was forked.
    pub(crate) is_forked: bool,
}

/// `PF_FORKNOEXEC` of linux/sched.h.
const FORKED: u64 = 0x40;

impl Process {
    /// `None` if it has ended (a zombie has).
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&berth_sys::procfs::read_text(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields 3, 9 and 22 of proc_pid_stat(5); the name before them may hold anything, parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let rest = &text[text.rfind(')')? + 1..];
        let mut fields = rest.split_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        Some(Self { start_time: fields.nth(12)?.parse().ok()?, is_forked: flags & FORKED != 0 })
    }
}

/// When a process started, in clock ticks since boot; `None` if it has ended.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    Process::of(pid).map(|process| process.start_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_confuse() {
        let line = "7 (a) Z 9 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(Process::parse(line), Some(Process { start_time: 4242, is_forked: false }));
        let forked = line.replace("4194560", "4194624");
        assert_eq!(Process::parse(&forked), Some(Process { start_time: 4242, is_forked: true }));
        assert_eq!(Process::parse(&line.replace(" S 1", " Z 1")), None);
        assert_eq!(Process::parse("garbage"), None);
    }

    #[test]
    fn this_process_has_a_start() {
        let this = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(this.start_time > 0 && !this.is_forked);
        assert_eq!(start_time(0), None);
    }
}
