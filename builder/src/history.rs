//! Builds of the past: what they did, how long each step took, what they printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::fault::At;
use crate::io::{EventSink, Listener};
use crate::start::fresh_id;
use crate::{BuildError, BuildEvent, BuildRequest, BuiltImage, Event};

/// So many builds are remembered.
const KEPT: usize = 100;
/// More of what a build printed is not kept.
const MAX_LOG: usize = 8 << 20;
/// Digits of an id.
const DIGITS: usize = 12;

/// A build of the past.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its name in the history.
    pub id: String,
    /// What was built: the tags, or what else the build was called.
    pub name: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The image.
    pub image: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Its steps, in the order of the file.
    pub steps: Vec<StepRecord>,
}

/// A step of a build of the past.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number, from 1.
    pub number: usize,
    /// The stage.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended, if it did.
    pub finished: Option<Timestamp>,
    /// Whether the result came from the cache.
    pub cached: bool,
    /// Why it did not.
    pub missed: Vec<String>,
    /// Why the step failed.
    pub error: Option<String>,
}

/// Passes events on and writes them down.
pub(crate) struct Recorder {
    to: EventSink,
    name: String,
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<usize, StepRecord>,
    log: String,
}

impl Listener for Recorder {
    fn tell(&self, event: Event) {
        self.note(&event);
        self.to.tell(event);
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        self.to.room()
    }
}

impl Recorder {
    pub(crate) fn new(request: &BuildRequest, to: EventSink) -> Arc<Self> {
        let tags: Vec<String> = request.tags.iter().map(berth_oci::Reference::familiar).collect();
        let name = match tags.is_empty() {
            true => request.name.clone().unwrap_or_default(),
            false => tags.join(" "),
        };
        Arc::new(Self { to, name, started: Timestamp::now(), state: Mutex::default() })
    }

    fn note(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { steps, log } = &mut *state;
        let number = event.place.map_or(0, |place| place.step);
        let now = Timestamp::now();
        let line = match &event.what {
            BuildEvent::Warning { text } => Some(format!("warning: {text}")),
            BuildEvent::Output { bytes, .. } if log.len() < MAX_LOG => {
                let text = String::from_utf8_lossy(bytes);
                Some(text.trim_end_matches('\n').replace('\n', &format!("\n#{number} ")))
            }
            BuildEvent::StepStart { stage, text, total, .. } => {
                let (stage, text) = (stage.clone(), text.clone());
                let line = format!("[{stage} {number}/{total}] {text}");
                steps.insert(
                    number,
                    StepRecord { number, stage, text, started: Some(now), ..StepRecord::default() },
                );
                Some(line)
            }
            what => {
                let step = steps.entry(number).or_default();
                match what {
                    BuildEvent::Cached => {
                        step.cached = true;
                        Some("CACHED".to_owned())
                    }
                    BuildEvent::Missed { reasons } => {
                        step.missed.clone_from(reasons);
                        None
                    }
                    BuildEvent::StepDone { .. } => {
                        step.finished = Some(now);
                        let began = step.started.unwrap_or(now);
                        (!step.cached)
                            .then(|| format!("DONE {:.1}s", now.duration_since(began).as_secs_f64()))
                    }
                    BuildEvent::StepFailed { message } => {
                        step.finished = Some(now);
                        step.error = Some(message.clone());
                        Some(format!("ERROR: {message}"))
                    }
                    _ => None,
                }
            }
        };
        if let Some(line) = line {
            writeln!(log, "#{number} {line}").expect("a string takes everything");
        }
    }

    /// Writes the build down.
    pub(crate) fn finish(&self, builds: &Path, result: &Result<BuiltImage, BuildError>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps: Vec<StepRecord> = state.steps.values().cloned().collect();
        steps.retain(|step| !step.text.is_empty());
        let record = BuildRecord {
            id: fresh_id()[..DIGITS].to_owned(),
            name: self.name.clone(),
            started: self.started,
            finished: Timestamp::now(),
            image: result.as_ref().ok().map(|image| image.id.to_string()),
            error: result.as_ref().err().map(ToString::to_string),
            steps,
        };
        if let Err(error) = save(builds, &record, &state.log) {
            tracing::warn!(%error, "the build cannot be written into the history");
        }
    }
}

fn save(builds: &Path, record: &BuildRecord, log: &str) -> std::io::Result<()> {
    let dir = builds.join("history");
    fs::create_dir_all(&dir)?;
    // The name sorts by time.
    let stem = format!("{:020}-{}", record.started.as_microsecond(), record.id);
    fs::write(dir.join(format!("{stem}.log.zst")), zstd::encode_all(log.as_bytes(), 1)?)?;
    fs::write(dir.join(format!("{stem}.json")), serde_json::to_vec(record)?)?;
    let mut names: Vec<_> = fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    let files = 2 * KEPT;
    for path in &names[..names.len().saturating_sub(files)] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The newest first.
pub(crate) fn list(builds: &Path) -> Result<Vec<BuildRecord>, BuildError> {
    let dir = builds.join("history");
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", &dir)?,
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &std::path::PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    Ok(paths.iter().rev().filter_map(read).collect())
}

pub(crate) fn log(builds: &Path, id: &str) -> Result<Option<String>, BuildError> {
    let dir = builds.join("history");
    let Ok(entries) = fs::read_dir(&dir) else { return Ok(None) };
    let wanted = |name: &str| {
        name.strip_suffix(".log.zst")
            .and_then(|stem| stem.split_once('-'))
            .is_some_and(|(_, found)| !id.is_empty() && found.starts_with(id))
    };
    let found = entries.flatten().find(|entry| wanted(&entry.file_name().to_string_lossy()));
    let Some(found) = found else { return Ok(None) };
    let file = fs::File::open(found.path()).at("open", found.path())?;
    let text = zstd::decode_all(file).at("read", found.path())?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}
