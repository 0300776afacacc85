//! The bundle: a directory with config.json.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use berth_spec::{SpecWarning, oci};
use serde_json::{Value, json};

use crate::activation;
use crate::json;

/// A bundle that has been read.
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) directory: PathBuf,
    pub(crate) spec: oci::Spec,
    /// config.json as it was found; kept with the container's state.
    pub(crate) text: Vec<u8>,
    /// What in it is left out.
    pub(crate) warnings: Vec<SpecWarning>,
}

impl Bundle {
    /// Reads the bundle in `directory`, or in the current one.
    pub(crate) fn read(directory: Option<&Path>) -> anyhow::Result<Self> {
        let directory = directory.unwrap_or(Path::new("."));
        let directory =
            directory.canonicalize().with_context(|| format!("bundle {}", directory.display()))?;
        let path = directory.join("config.json");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "JSON specification file {} not found (`berth-runtime spec` writes an example)",
                path.display()
            ),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let parsed = match berth_spec::parse(&text) {
            // Again, for the place of the mistake.
            Err(_) => json::parse(&text).map(|spec| (spec, Vec::new())),
            Ok(parsed) => Ok(parsed),
        };
        let (mut spec, warnings): (oci::Spec, _) =
            parsed.map_err(in_runcs_words).with_context(|| format!("invalid {}", path.display()))?;
        if let Some(process) = spec.process_mut() {
            activation::announce(process);
        }
        Ok(Self { directory, spec, text, warnings })
    }

    /// CRIU restores into a time namespace, which later processes of the container are to join.
    pub(crate) fn add_time_namespace(&mut self) -> anyhow::Result<()> {
        let mut value: Value = json::parse(&self.text)?;
        let listed = value.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        if let Some(listed) = listed.filter(|listed| listed.iter().all(|one| one["type"] != "time")) {
            listed.push(json!({ "type": "time" }));
            self.text = serde_json::to_vec(&value).context("config.json")?;
        }
        Ok(())
    }

    /// True if the container's process wants a terminal.
    pub(crate) fn wants_terminal(&self) -> bool {
        self.spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false))
    }

    /// `root.path`, absolute.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let path = self.spec.root().as_ref().map_or(Path::new(""), |root| root.path().as_path());
        self.directory.join(path)
    }
}

/// The words that callers of runc know a mistake by, before our own.
fn in_runcs_words(error: anyhow::Error) -> anyhow::Error {
    let text = error.to_string();
    let words = match text.split_once(':').map(|(path, problem)| (path, problem.contains("`mode`"))) {
        Some((path, _)) if path.starts_with("linux.memoryPolicy.flags") => "invalid memory policy flag",
        Some(("linux.memoryPolicy.mode", _) | ("linux.memoryPolicy", true)) => "invalid memory policy mode",
        _ => return error,
    };
    error.context(words)
}
