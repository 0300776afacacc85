//! Messages, in the two shapes that callers of runc parse.

use std::fs::File;
use std::io::{IsTerminal, Write};

use anyhow::Context;

use crate::cli::{Global, LogFormat};

/// Where messages go.
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(global: &Global) -> anyhow::Result<Self> {
        let file = match &global.log {
            Some(path) => {
                let opened = File::options().append(true).create(true).open(path);
                Some(opened.with_context(|| format!("cannot open the log file {}", path.display()))?)
            }
            None => None,
        };
        Ok(Self { file, format: global.log_format, debug: global.debug })
    }

    /// The failure of the command. It goes to standard error too, for whoever sits there.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    /// Something that does not stop the command. Without a log file our standard error is the container's own as well:
    /// a user who looks at it is told, a program that collects the container's output is not.
    pub(crate) fn warn(&self, message: &str) {
        if !self.is_bare() {
            self.write("warning", message);
        }
    }

    /// What the user can mend: a mistake in config.json, or why the program failed. Always told, as runc does.
    pub(crate) fn explain(&self, message: &str) {
        self.write("warning", message);
    }

    /// Nobody reads for themselves what goes wrong: no log file, no `--debug`, and standard error is no terminal.
    pub(crate) fn is_bare(&self) -> bool {
        self.file.is_none() && !self.debug && !std::io::stderr().is_terminal()
    }

    /// Whether [`Self::debug`] says anything.
    pub(crate) fn wants_debug(&self) -> bool {
        self.debug
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = match self.format {
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            LogFormat::Json => {
                format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time }))
            }
        };
        let written = match &self.file {
            Some(file) => (&mut &*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
        // A log that cannot be written has nowhere to say so.
        written.ok();
    }
}
