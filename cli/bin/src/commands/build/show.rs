//! What a local build looks like: plain lines, a live screen, or JSON.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use berth_api::build::BuildMessage;
use berth_client::{Error, LocalMessages};
use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// Live on a terminal, plain elsewhere
    Auto,
    /// One line after the other
    Plain,
    /// Live
    Tty,
    /// JSON, one message a line
    Rawjson,
    /// Nothing
    Quiet,
}

/// What a build came to.
#[derive(Debug)]
pub(crate) struct Built {
    pub(super) id: String,
    pub(super) digest: Option<String>,
}

struct Step {
    title: String,
    began: Instant,
    bar: Option<ProgressBar>,
    cached: bool,
    /// What it printed, for the case that it fails while only its last line is shown.
    printed: String,
}

struct Screen {
    how: Progress,
    explain: bool,
    bars: MultiProgress,
    steps: BTreeMap<usize, Step>,
}

/// Shows a build to its end.
///
/// # Errors
/// With the engine's words if it fails.
pub(crate) async fn show(mut messages: LocalMessages, how: Progress, explain: bool) -> Result<Built> {
    let how = match how {
        Progress::Auto | Progress::Tty if std::io::stderr().is_terminal() => Progress::Tty,
        // A live screen in a file would show nothing.
        Progress::Auto | Progress::Tty => Progress::Plain,
        how => how,
    };
    let mut screen = Screen { how, explain, bars: MultiProgress::new(), steps: BTreeMap::new() };
    while let Some(message) = messages.next().await? {
        if how == Progress::Rawjson {
            eprintln!("{}", serde_json::to_string(&message)?);
        }
        match message {
            BuildMessage::Finished { id, digest } => {
                screen.close();
                return Ok(Built { id, digest });
            }
            BuildMessage::Error { message, code } => {
                screen.close();
                return Err(Error::InBand { message, code }.into());
            }
            message if matches!(how, Progress::Plain | Progress::Tty) => screen.take(message),
            _ => {}
        }
    }
    bail!("the engine ended before the build did")
}

impl Screen {
    /// A line that stays.
    fn line(&self, text: &str) {
        match self.how {
            // That nobody can read it must not end the build.
            Progress::Tty => drop(self.bars.println(text)),
            _ => drop(writeln!(std::io::stderr().lock(), "{text}")),
        }
    }

    fn take(&mut self, message: BuildMessage) {
        match message {
            BuildMessage::Step { step, total, stage, text } => self.begin(step, total, &stage, &text),
            BuildMessage::Cached { step } => {
                if let Some(found) = self.steps.get_mut(&step) {
                    found.cached = true;
                }
            }
            BuildMessage::Missed { step, reasons } if self.explain => {
                for reason in reasons {
                    self.line(&format!("#{step} not cached: {reason}"));
                }
            }
            BuildMessage::Waiting { step } => {
                self.output(step, "an equal step is running; waiting for its result\n");
            }
            BuildMessage::Output { step, text, .. } => self.output(step, &text),
            BuildMessage::Done { step } => self.end(step, false),
            BuildMessage::Failed { step } => self.end(step, true),
            BuildMessage::Warning { text } => self.line(&format!("warning: {text}")),
            BuildMessage::Cache { text } => self.line(&format!("cache: {text}")),
            BuildMessage::Tagged { reference } => self.line(&format!("named {reference}")),
            BuildMessage::Transfer { message } => self.transfer(&message),
            BuildMessage::Missed { .. } | BuildMessage::Finished { .. } | BuildMessage::Error { .. } => {}
        }
    }

    fn begin(&mut self, step: usize, total: usize, stage: &str, text: &str) {
        let stage = if stage.is_empty() { String::new() } else { format!("{stage} ") };
        let title = format!("#{step} [{stage}{step}/{total}] {text}");
        let bar = (self.how == Progress::Tty).then(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{prefix} {elapsed} {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            self.line(&title);
        }
        let began = Instant::now();
        self.steps.insert(step, Step { title, began, bar, cached: false, printed: String::new() });
    }

    fn output(&mut self, step: usize, text: &str) {
        let Some(found) = self.steps.get_mut(&step) else { return };
        match &found.bar {
            Some(bar) => {
                found.printed.push_str(text);
                if let Some(line) = text.trim_end().rsplit(['\n', '\r']).next() {
                    bar.set_message(line.to_owned());
                }
            }
            None => {
                let lines: Vec<String> = text.lines().map(|line| format!("#{step} {line}")).collect();
                self.line(&lines.join("\n"));
            }
        }
    }

    fn end(&mut self, step: usize, failed: bool) {
        let Some(found) = self.steps.remove(&step) else { return };
        let how = match (failed, found.cached) {
            (true, _) => "ERROR".to_owned(),
            (false, true) => "CACHED".to_owned(),
            (false, false) => format!("DONE {:.1}s", found.began.elapsed().as_secs_f64()),
        };
        match found.bar {
            Some(bar) => {
                bar.finish_and_clear();
                self.line(&format!("{} {how}", found.title));
                if failed {
                    self.line(found.printed.trim_end());
                }
            }
            None => self.line(&format!("#{step} {how}")),
        }
    }

    fn transfer(&self, message: &berth_api::progress::ProgressMessage) {
        let counts = message.progress_detail.as_ref().is_some_and(|detail| detail.total.is_some());
        if let (Some(status), false) = (&message.status, counts) {
            match &message.id {
                Some(id) => self.line(&format!("{id}: {status}")),
                None => self.line(status),
            }
        }
    }

    fn close(&mut self) {
        for step in self.steps.values() {
            if let Some(bar) = &step.bar {
                bar.finish_and_clear();
            }
        }
    }
}
