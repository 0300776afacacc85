//! What the steps of a build were made of the last time, so that the next build can tell which input of a step
//! changed. Every finished step is remembered under the build's name, its stage and its number there; lists of
//! files lie beside it, once for each content.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::key::KeyInputs;

/// So many differences are told.
const SHOWN: usize = 10;

/// Inputs of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    inputs: Vec<(String, String)>,
}

/// The memory of one build.
#[derive(Debug)]
pub(crate) struct Memory {
    file: PathBuf,
    lists: PathBuf,
    before: BTreeMap<String, Step>,
    now: Mutex<BTreeMap<String, Step>>,
}

impl Memory {
    /// Recalls a build by its name. What cannot be read was never there.
    pub(crate) fn recall(builds: &Path, name: &str) -> Self {
        let file = builds.join("memory").join(format!("{}.json", Digest::of(name.as_bytes()).hex()));
        let before = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let lists = builds.join("lists");
        Self { file, lists, before: before.unwrap_or_default(), now: Mutex::default() }
    }

    /// Remembers what a step is made of.
    pub(crate) fn note(&self, step: &str, key: &KeyInputs) {
        if let Some((digest, list)) = &key.files
            && let Err(error) = self.save_list(digest, list)
        {
            tracing::debug!(%error, "a list of files cannot be remembered");
        }
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.insert(step.to_owned(), Step { inputs: key.inputs.clone() });
    }

    fn list_path(&self, digest: &str) -> PathBuf {
        self.lists.join(digest.rsplit(':').next().unwrap_or(digest))
    }

    fn save_list(&self, digest: &str, list: &[(String, String)]) -> std::io::Result<()> {
        let path = self.list_path(digest);
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.lists)?;
        let mut text = Vec::new();
        for (name, state) in list {
            writeln!(text, "{} {name}", short(state))?;
        }
        fs::write(path, zstd::encode_all(text.as_slice(), 1)?)
    }

    fn read_list(&self, digest: &str) -> Option<BTreeMap<String, String>> {
        let text = zstd::decode_all(fs::File::open(self.list_path(digest)).ok()?).ok()?;
        let text = String::from_utf8_lossy(&text);
        let pair = |line: &str| line.split_once(' ').map(|(state, name)| (name.to_owned(), state.to_owned()));
        Some(text.lines().filter_map(pair).collect())
    }

    /// Why the cache had nothing for this step.
    pub(crate) fn explain(&self, step: &str, key: &KeyInputs) -> Vec<String> {
        let Some(before) = self.before.get(step) else {
            return vec!["this step was not built before".to_owned()];
        };
        let old: BTreeMap<&str, &str> = before.inputs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let new: BTreeMap<&str, &str> = key.inputs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut reasons = Vec::new();
        for (name, value) in &new {
            match old.get(name) {
                Some(was) if was == value => {}
                Some(was) if *name == "files" => self.files(was, value, key, &mut reasons),
                was => reasons.push(difference(name, was.copied(), Some(value))),
            }
        }
        let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
        reasons.extend(gone.map(|(name, was)| difference(name, Some(was), None)));
        if reasons.is_empty() {
            reasons.push("nothing changed, but the result of the last time is no longer in the cache".into());
        }
        reasons
    }

    fn files(&self, was: &str, is: &str, key: &KeyInputs, reasons: &mut Vec<String>) {
        let new = match &key.files {
            Some((_, list)) => Some(list.iter().map(|(name, state)| (name.clone(), short(state))).collect()),
            None => self.read_list(is),
        };
        let (Some(old), Some(new)) = (self.read_list(was), new) else {
            reasons.push("the files to copy changed".to_owned());
            return;
        };
        let new: BTreeMap<String, String> = new;
        let mut found = Vec::new();
        for (name, state) in &new {
            match old.get(name) {
                None => found.push(format!("file {name} is new")),
                Some(was) if was != state => found.push(format!("file {name} changed")),
                Some(_) => {}
            }
        }
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        found.extend(gone.map(|name| format!("file {name} is gone")));
        let more = found.len().saturating_sub(SHOWN);
        reasons.extend(found.into_iter().take(SHOWN));
        if more > 0 {
            reasons.push(format!("and {more} more files"));
        }
    }

    /// Keeps what was noted for the next build.
    pub(crate) fn save(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.before.clone();
        all.extend(now.iter().map(|(step, inputs)| (step.clone(), inputs.clone())));
        if all == self.before {
            return;
        }
        let dir = self.file.parent().expect("the file is in a directory");
        let saved = fs::create_dir_all(dir).and_then(|()| {
            let file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(std::io::BufWriter::new(&file), &all)?;
            file.persist(&self.file)?;
            Ok(())
        });
        if let Err(error) = saved {
            tracing::warn!(%error, "what this build was made of cannot be remembered");
        }
    }
}

/// Enough of a file's state to tell it from others.
fn short(state: &str) -> String {
    const DIGITS: usize = 16;
    Digest::of(state.as_bytes()).hex()[..DIGITS].to_owned()
}

/// One changed input, in words.
fn difference(name: &str, was: Option<&str>, is: Option<&str>) -> String {
    let short = |value: &str| {
        let line: String = value.replace('\0', " ").chars().take(80).collect();
        format!("{line:?}")
    };
    match name {
        "parent" => {
            "the file system that it starts from changed (an earlier step, or the base image)".to_owned()
        }
        "version" => "another version of the builder made it".to_owned(),
        _ => match (was, is) {
            (Some(was), Some(is)) => format!("{name} was {} and is {}", short(was), short(is)),
            (None, Some(is)) => format!("{name} is new: {}", short(is)),
            (Some(was), None) => format!("{name} is gone, it was {}", short(was)),
            (None, None) => format!("{name} changed"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str, files: &[(&str, &str)]) -> KeyInputs {
        let mut key = KeyInputs::new("COPY", "p");
        key.add("env A", value);
        let list: Vec<(String, String)> =
            files.iter().map(|(n, s)| ((*n).to_owned(), (*s).to_owned())).collect();
        key.add_files(Digest::of(format!("{list:?}").as_bytes()).as_str(), Some(list));
        key
    }

    #[test]
    fn what_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let first = Memory::recall(dir.path(), "b");
        assert_eq!(first.explain("0/1", &key("1", &[("x", "1")])), ["this step was not built before"]);
        first.note("0/1", &key("1", &[("x", "1"), ("old", "1")]));
        first.save();
        let second = Memory::recall(dir.path(), "b");
        let told = second.explain("0/1", &key("2", &[("new", "1"), ("x", "2")]));
        assert_eq!(
            told,
            ["env A was \"1\" and is \"2\"", "file new is new", "file x changed", "file old is gone"]
        );
        let told = second.explain("0/1", &key("1", &[("x", "1"), ("old", "1")]));
        assert!(told[0].contains("no longer in the cache"));
    }
}
