//! How `berth` ends.

/// The exit code of a command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Success,
    /// The program in the container ended with this code, and so do we.
    Code(u8),
}

impl Exit {
    /// The engine's exit code as the shell sees it.
    pub(crate) fn of_program(code: i64) -> Self {
        match code {
            0 => Self::Success,
            // The API has an int where the kernel has eight bits; what does not fit is a failure all the same.
            code => Self::Code(u8::try_from(code & 0xff).unwrap_or(1).max(1)),
        }
    }

    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Code(code) => code,
        }
    }
}

/// The exit code of a container that could not be started, from the engine's words (as docker's CLI has it).
pub(crate) fn of_start_failure(message: &str) -> u8 {
    let any = |needles: &[&str]| needles.iter().any(|needle| message.contains(needle));
    if any(&["executable file not found", "no such file or directory", "system cannot find the file"]) {
        127
    } else if any(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) message: String,
    /// The exit code.
    pub(crate) code: u8,
}

/// An error as the user reads it. The engine's own words are marked as such, as docker's CLI does. What they quote (of a
/// Dockerfile, of a registry's answer) does not reach the terminal as a command to it.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let harmless = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    said(error).chars().map(harmless).collect()
}

fn said(error: &anyhow::Error) -> String {
    if error.is::<Failure>() {
        return error.to_string();
    }
    match error.downcast_ref::<berth_client::Error>() {
        Some(daemon @ berth_client::Error::Daemon { .. }) => {
            format!("Error response from daemon: {}", without_stations(&daemon.to_string()))
        }
        Some(said @ berth_client::Error::InBand { .. }) => said.to_string(),
        _ => format!("berth: {error:#}"),
    }
}

/// A failed start with its cause alone. Engines name every station the error passed (task, shim task, runc, init),
/// and clients match those words; a person wants the last one.
fn without_stations(message: &str) -> String {
    const STATIONS: [&str; 2] = ["error during container init: ", "unable to start container process: "];
    if !message.starts_with("failed to create task for container: ") {
        return message.to_owned();
    }
    match STATIONS.iter().find_map(|station| message.split_once(station)) {
        Some((_, cause)) => format!("cannot start the container: {cause}"),
        None => message.to_owned(),
    }
}

/// Whether the reader of our output has gone away (`berth logs | head`), which is no failure.
pub(crate) fn is_unread(error: &anyhow::Error) -> bool {
    let gone = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    // A pipe to the engine that breaks is one.
    error.downcast_ref::<berth_client::Error>().is_none() && error.chain().any(gone)
}

/// Tells the user of an error, on standard error.
pub(crate) fn tell(error: &anyhow::Error) {
    let text = describe(error);
    if !is_unread(error) && !text.is_empty() {
        eprintln!("{}", text.trim_end());
    }
}

/// The exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    match error.downcast_ref::<berth_client::Error>() {
        // A build ends as the step that broke it.
        Some(berth_client::Error::InBand { code: Some(code), .. }) => Exit::of_program(*code).code().max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        assert_eq!(Exit::of_program(137).code(), 137);
        assert_eq!(Exit::of_program(0), Exit::Success);
        assert_eq!(Exit::of_program(256).code(), 1, "a failure stays one");
        assert_eq!(of_start_failure("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(of_start_failure("exec: \"/etc\": is a directory"), 126);
        assert_eq!(of_start_failure("no space left"), 125);
    }

    #[test]
    fn an_output_that_nobody_reads_is_no_failure() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_unread(&anyhow::Error::new(broken()).context("cannot write to standard output")));
        assert!(!is_unread(&anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::NotFound))));
    }

    #[test]
    fn what_an_error_quotes_is_no_command_to_the_terminal() {
        let error = berth_client::Error::InBand {
            message: "unknown: \u{1b}[2JRUM\r\n\tè\u{9b}".to_owned(),
            code: None,
        };
        assert_eq!(describe(&error.into()), "unknown: \\u{1b}[2JRUM\\r\n\tè\\u{9b}");
    }

    #[test]
    fn a_failed_start_is_told_by_its_cause() {
        let chain = "failed to create task for container: failed to create shim task: OCI runtime create failed: \
                     runc create failed: unable to start container process: ";
        let cause = "exec: \"x\": executable file not found in $PATH";
        let told = format!("cannot start the container: {cause}");
        assert_eq!(without_stations(&format!("{chain}error during container init: {cause}")), told);
        assert_eq!(without_stations(&format!("{chain}{cause}")), told);
        assert_eq!(without_stations("No such container: x"), "No such container: x");
    }
}
