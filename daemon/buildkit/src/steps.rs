//! The builder's events as vertexes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_builder::{BuildEvent, Event, OutputStream};

use crate::failure;
use crate::progress::{Board, Task};
use crate::protocol::control::Vertex;
use crate::protocol::pb;

/// What the first stage is called that has no name.
const UNNAMED: &str = "stage-0";

/// The steps of one build.
pub(crate) struct Steps {
    board: Arc<Board>,
    /// Whom warnings belong to.
    dockerfile: Vertex,
    source: pb::SourceInfo,
    /// A Dockerfile with one stage has no names of stages in its steps.
    several_stages: bool,
    open: Mutex<HashMap<usize, Vertex>>,
}

impl Steps {
    pub(crate) fn new(
        board: &Arc<Board>,
        loaded: &Task,
        source: pb::SourceInfo,
        several_stages: bool,
    ) -> Self {
        let dockerfile = loaded.vertex().clone();
        Self { board: Arc::clone(board), dockerfile, source, several_stages, open: Mutex::default() }
    }

    fn name(&self, n: usize, total: usize, stage: &str, text: &str) -> String {
        match stage {
            "" => format!("[{n}/{total}] {text}"),
            UNNAMED if !self.several_stages => format!("[{n}/{total}] {text}"),
            stage => format!("[{stage} {n}/{total}] {text}"),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        let step = event.place.map_or(0, |place| place.step);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match event.what {
            BuildEvent::StepStart { n, total, stage, text } => {
                let name = self.name(n, total, &stage, &text);
                let vertex = self.board.vertex(&format!("step {step}"), name);
                self.board.tell(&vertex);
                open.insert(step, vertex);
            }
            BuildEvent::Cached => {
                if let Some(vertex) = open.get_mut(&step) {
                    vertex.cached = true;
                }
            }
            BuildEvent::Output { stream, bytes } => {
                if let Some(vertex) = open.get(&step) {
                    self.board.print(vertex, if stream == OutputStream::Stderr { 2 } else { 1 }, bytes);
                }
            }
            BuildEvent::StepDone { .. } => {
                if let Some(vertex) = open.remove(&step) {
                    self.board.complete(vertex, None);
                }
            }
            BuildEvent::StepFailed { message } => {
                if let Some(vertex) = open.remove(&step) {
                    // The client shows the place in the Dockerfile by itself; what is said behind it is for the user.
                    let (error, hint) = failure::parts(&message);
                    if let Some(hint) = hint {
                        self.board.print(&vertex, 2, format!("{hint}\n").into());
                    }
                    self.board.complete(vertex, Some(error.to_owned()));
                }
            }
            BuildEvent::Warning { text } => {
                let (text, line) = split_line(&text);
                self.board.warn(&self.dockerfile, text, line, &self.source);
            }
            _ => {}
        }
    }

    /// Ends what was running when the build ended.
    pub(crate) fn end(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for vertex in open.into_values() {
            self.board.complete(vertex, Some("context canceled".to_owned()));
        }
    }
}

/// A warning ends with ` (line 3)`; clients want the number.
fn split_line(text: &str) -> (&str, Option<i32>) {
    let parts = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (line "));
    match parts.and_then(|(text, line)| Some((text, line.parse().ok()?))) {
        Some((text, line)) => (text, Some(line)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_know_their_line() {
        assert_eq!(split_line("FromAsCasing: x (line 3)"), ("FromAsCasing: x", Some(3)));
        assert_eq!(split_line("something (odd)"), ("something (odd)", None));
    }

    #[test]
    fn names_of_steps_are_buildkits() {
        let board = Board::new("x");
        let task = Task::begin(&board, "load");
        let steps = |several| Steps::new(&board, &task, pb::SourceInfo::default(), several);
        assert_eq!(steps(false).name(2, 5, "stage-0", "RUN x"), "[2/5] RUN x");
        assert_eq!(steps(true).name(2, 5, "stage-1", "RUN x"), "[stage-1 2/5] RUN x");
        assert_eq!(steps(true).name(2, 5, "app", "RUN x"), "[app 2/5] RUN x");
    }
}
