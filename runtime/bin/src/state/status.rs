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

/// When a process started, in clock ticks since boot; `None` if it has ended (a zombie has).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&berth_sys::procfs::read_text(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 and 22 of proc_pid_stat(5); the name before them may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<u64> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    match fields.next()? {
        "Z" | "X" | "x" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_confuse() {
        let line = "7 (a) Z 9 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(line), Some(4242));
        assert_eq!(parse_stat(&line.replace(" S 1", " Z 1")), None);
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn this_process_has_a_start() {
        assert!(start_time(std::process::id().cast_signed()).is_some());
        assert_eq!(start_time(0), None);
    }
}
