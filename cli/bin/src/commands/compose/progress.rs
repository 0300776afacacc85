//! How it goes, and what containers print, on the terminal.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use berth_compose::apply::{Listener, Progress, Status};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::project::ProjectArgs;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Bars,
    Json,
    Quiet,
}

/// What comes before everything that is only told, as docker compose has it.
pub(super) const DRY_RUN: &str = "DRY-RUN MODE -  ";

/// Progress on standard error.
pub(super) struct Screen {
    kind: Kind,
    /// Before everything that is told.
    prefix: &'static str,
    bars: MultiProgress,
    shown: Mutex<BTreeMap<String, ProgressBar>>,
}

/// The screen that the flags ask for.
pub(super) fn screen(args: &ProjectArgs, quiet: bool) -> Result<Arc<Screen>> {
    let terminal = std::io::stderr().is_terminal() && args.ansi.as_deref() != Some("never");
    let kind = match args.progress.as_deref() {
        _ if quiet => Kind::Quiet,
        None | Some("" | "auto") => {
            if terminal {
                Kind::Bars
            } else {
                Kind::Lines
            }
        }
        Some("tty") => Kind::Bars,
        Some("plain" | "rawjson") => Kind::Lines,
        Some("json") => Kind::Json,
        Some("quiet" | "none") => Kind::Quiet,
        Some(other) => bail!("unsupported --progress value {other:?}; it is auto, tty, plain, json or quiet"),
    };
    let prefix = if args.dry_run { DRY_RUN } else { "" };
    Ok(Arc::new(Screen { kind, prefix, bars: MultiProgress::new(), shown: Mutex::default() }))
}

impl Screen {
    fn bar(&self, what: &str, status: Status, text: &str) {
        // A panic elsewhere does not make a bar wrong.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.entry(what.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template(" {spinner} {prefix}  {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{}{what}", self.prefix));
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
            bar
        });
        match status {
            Status::Working => bar.set_message(text.to_owned()),
            Status::Done => bar.finish_with_message(format!("\u{1b}[32m{text}\u{1b}[0m")),
            Status::Warning => bar.finish_with_message(format!("\u{1b}[33m{text}\u{1b}[0m")),
            Status::Error => bar.finish_with_message(format!("\u{1b}[31m{text}\u{1b}[0m")),
        }
    }
}

impl Progress for Screen {
    fn tell(&self, what: &str, status: Status, text: &str) {
        match self.kind {
            Kind::Quiet => {}
            Kind::Lines => eprintln!(" {}{what}  {text}", self.prefix),
            Kind::Bars => self.bar(what, status, text),
            Kind::Json => {
                let line = serde_json::json!({"id": what, "status": format!("{status:?}"), "text": text, "dry-run": !self.prefix.is_empty()});
                eprintln!("{line}");
            }
        }
    }

    fn warn(&self, text: &str) {
        match self.kind {
            Kind::Json => eprintln!("{}", serde_json::json!({"level": "warning", "msg": text})),
            Kind::Bars => drop(self.bars.println(format!("warning: {text}"))),
            _ => eprintln!("warning: {text}"),
        }
    }
}

/// Colours of sources, in docker compose's order.
const COLOURS: &[&str] = &["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

/// How lines of containers are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineStyle {
    pub(super) colour: bool,
    pub(super) prefix: bool,
    pub(super) timestamps: bool,
}

impl LineStyle {
    /// The style that flags ask for.
    pub(super) fn new(args: &ProjectArgs, no_colour: bool, no_prefix: bool, timestamps: bool) -> Self {
        let plain = no_colour || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = match args.ansi.as_deref() {
            Some("always") => !no_colour,
            Some("never") => false,
            _ => !plain && std::io::stdout().is_terminal(),
        };
        Self { colour, prefix: !no_prefix, timestamps }
    }
}

/// Lines of containers on standard output, each with its source.
#[derive(Debug)]
pub(super) struct Printer {
    style: LineStyle,
    sources: Mutex<Vec<String>>,
}

impl Printer {
    pub(super) fn new(style: LineStyle) -> Arc<Self> {
        Arc::new(Self { style, sources: Mutex::default() })
    }

    /// Makes room for these sources before the first line comes.
    pub(super) fn expect<'a>(&self, sources: impl IntoIterator<Item = &'a str>) {
        for source in sources {
            self.place(source);
        }
    }

    /// The index of a source, and the width of the longest.
    fn place(&self, source: &str) -> (usize, usize) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        // A hook's lines have the colour of its container.
        let root = source.split(' ').next().unwrap_or_default();
        let index = sources.iter().position(|known| known == root).unwrap_or_else(|| {
            sources.push(root.to_owned());
            sources.len() - 1
        });
        let width = sources.iter().map(String::len).chain([source.len()]).max().unwrap_or(0);
        (index, width)
    }
}

impl Listener for Printer {
    fn line(&self, source: &str, line: &str) {
        let mut text = String::new();
        if self.style.prefix {
            let (index, width) = self.place(source);
            let prefix = format!("{source:width$}  | ");
            if self.style.colour {
                text.push_str(&format!("\u{1b}[{}m{prefix}\u{1b}[0m", COLOURS[index % COLOURS.len()]));
            } else {
                text.push_str(&prefix);
            }
        }
        if self.style.timestamps {
            text.push_str(&format!("{:.9} ", Timestamp::now()));
        }
        text.push_str(line);
        text.push('\n');
        let mut out = std::io::stdout().lock();
        // Whoever read us has gone away; the containers go on all the same.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }
}
