//! How a build goes, in the words and the order of docker's classic builder.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use berth_api::progress::ProgressMessage;
use berth_builder::{BoxFuture, BuildEvent, Event, Listener, OutputStream};

use crate::ids;
use crate::queue::{Filler, Weigh};

/// So much is kept of what stages print while another one is shown.
const MAX_HELD: usize = 16 << 20;
/// Told instead of what is left out.
const CLIPPED: &str = "[output clipped: it was more than 16 MB before its stage was shown]\n";

/// Tells a client.
pub(crate) struct Classic {
    /// Nothing but the result is told.
    quiet: bool,
    /// What messages for programs are about.
    about: Option<String>,
    lines: Mutex<Lines>,
    client: Filler<ProgressMessage>,
}

impl Classic {
    pub(crate) fn new(quiet: bool, about: Option<String>, client: Filler<ProgressMessage>) -> Self {
        Self { quiet, about, lines: Mutex::default(), client }
    }
}

impl Listener for Classic {
    fn tell(&self, event: Event) {
        if self.quiet {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for mut message in lines.take(event) {
            if message.aux.is_some() {
                message.id.clone_from(&self.about);
            }
            self.client.put(message);
        }
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.room())
    }
}

/// Brings the events of stages that run side by side into an order that reads well: one stage after the other.
#[derive(Default)]
struct Lines {
    /// The stage that is shown.
    live: usize,
    /// What others said meanwhile; true for one that is done.
    waiting: BTreeMap<usize, (Vec<ProgressMessage>, bool)>,
    /// How much all of that is.
    held: usize,
    clipped: bool,
}

impl Lines {
    fn take(&mut self, event: Event) -> Vec<ProgressMessage> {
        let done = matches!(event.what, BuildEvent::StageDone);
        let printed = matches!(event.what, BuildEvent::Output { .. });
        // A failure ends the build: what it says must not wait.
        let failed = matches!(event.what, BuildEvent::StepFailed { .. });
        let said = messages(event.what);
        let Some(place) = event.place else { return said };
        if place.stage != self.live {
            let waiting = self.waiting.entry(place.stage).or_default();
            let weight: usize = said.iter().map(Weigh::weight).sum();
            if !printed || self.held + weight <= MAX_HELD {
                self.held += weight;
                waiting.0.extend(said);
            } else if !std::mem::replace(&mut self.clipped, true) {
                waiting.0.push(ProgressMessage::stream(CLIPPED.to_owned()));
            }
            waiting.1 |= done;
            return if failed { std::mem::take(&mut waiting.0) } else { Vec::new() };
        }
        let mut said = said;
        let mut next = done;
        while next {
            self.live += 1;
            next = match self.waiting.remove(&self.live) {
                Some((waited, done)) => {
                    self.held -= waited.iter().map(Weigh::weight).sum::<usize>().min(self.held);
                    said.extend(waited);
                    done
                }
                None => false,
            };
        }
        said
    }
}

/// The classic builder's words.
fn messages(event: BuildEvent) -> Vec<ProgressMessage> {
    let stream = |text: String| vec![ProgressMessage::stream(text)];
    match event {
        BuildEvent::StepStart { n, total, text, .. } => stream(format!("Step {n}/{total} : {text}\n")),
        BuildEvent::Triggers { count: 1 } => stream("# Executing 1 build trigger\n".to_owned()),
        BuildEvent::Triggers { count } => stream(format!("# Executing {count} build triggers\n")),
        BuildEvent::Cached => stream(" ---> Using cache\n".to_owned()),
        BuildEvent::Running { container } => stream(format!(" ---> Running in {}\n", ids::short(&container))),
        BuildEvent::Output { stream: OutputStream::Stderr, bytes } => {
            // Red, as docker has it.
            stream(format!("\x1b[91m{}\x1b[0m", String::from_utf8_lossy(&bytes)))
        }
        BuildEvent::Output { bytes, .. } => stream(String::from_utf8_lossy(&bytes).into_owned()),
        BuildEvent::Removed { container } => {
            stream(format!(" ---> Removed intermediate container {}\n", ids::short(&container)))
        }
        BuildEvent::StepDone { id } => stream(format!(" ---> {}\n", ids::short(id.hex()))),
        BuildEvent::Warning { text } => stream(format!("[Warning] {text}\n")),
        BuildEvent::Built { id } => vec![
            ProgressMessage::aux(serde_json::json!({"ID": id.to_string()})),
            ProgressMessage::stream(format!("Successfully built {}\n", ids::short(id.hex()))),
        ],
        BuildEvent::Tagged { reference } => stream(format!("Successfully tagged {reference}\n")),
        // What it says is the error that ends the stream.
        BuildEvent::StepFailed { .. } | BuildEvent::StageDone => Vec::new(),
        other => {
            tracing::debug!(?other, "progress of a build that is not shown");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_classic_builders() {
        let text = |event| messages(event)[0].stream.clone().unwrap();
        let step = BuildEvent::StepStart { n: 1, total: 2, stage: String::new(), text: "RUN x".into() };
        assert_eq!(text(step), "Step 1/2 : RUN x\n");
        assert_eq!(text(BuildEvent::Cached), " ---> Using cache\n");
    }

    #[test]
    fn stages_are_told_one_after_the_other() {
        let mut lines = Lines::default();
        let mut tell = |stage, text: &str| -> Vec<String> {
            let what = match text {
                "done" => BuildEvent::StageDone,
                text => BuildEvent::Warning { text: text.to_owned() },
            };
            let event = Event { place: Some(berth_builder::Place { step: 1, stage }), what };
            lines.take(event).into_iter().filter_map(|message| message.stream).collect()
        };
        assert_eq!(tell(1, "b"), [] as [&str; 0]);
        assert_eq!(tell(0, "a"), ["[Warning] a\n"]);
        assert_eq!(tell(2, "c"), [] as [&str; 0]);
        assert_eq!(tell(2, "done"), [] as [&str; 0]);
        assert_eq!(tell(0, "done"), ["[Warning] b\n"]);
        assert_eq!(tell(1, "done"), ["[Warning] c\n"]);
    }

    #[test]
    fn a_stage_that_is_not_shown_is_clipped() {
        let mut lines = Lines::default();
        let print = || BuildEvent::Output { stream: OutputStream::Stdout, bytes: vec![b'y'; 1 << 20].into() };
        let mut tell =
            |stage, what| lines.take(Event { place: Some(berth_builder::Place { step: 1, stage }), what });
        for _ in 0..100 {
            assert!(tell(1, print()).is_empty());
        }
        assert!(tell(1, BuildEvent::StageDone).is_empty());
        let told = tell(0, BuildEvent::StageDone);
        assert!(told.iter().map(Weigh::weight).sum::<usize>() < MAX_HELD + (1 << 20));
        assert_eq!(told.last().unwrap().stream.as_deref(), Some(CLIPPED));
    }
}
