//! A Compose project in a directory of its own.

use std::path::{Path, PathBuf};

use crate::cli::Cli;

/// A project in a directory of its own, on one engine.
#[derive(Debug)]
pub struct Project<'a> {
    cli: &'a Cli,
    file: PathBuf,
}

impl<'a> Project<'a> {
    /// Writes the file.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn new(cli: &'a Cli, directory: &Path, text: &str) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let file = directory.join("compose.yaml");
        std::fs::write(&file, text).expect("a Compose file");
        Self { cli, file }
    }

    /// The words of a `compose` command on the file.
    ///
    /// # Panics
    /// If the path is no text.
    #[must_use]
    pub fn args<'b>(&'b self, words: &'b [&'b str]) -> Vec<&'b str> {
        let file = self.file.to_str().expect("the path is text");
        ["compose", "-f", file].into_iter().chain(words.iter().copied()).collect()
    }

    /// Runs a command and gives what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(&self, words: &[&str]) -> String {
        self.cli.ok(&self.args(words))
    }

    /// The ids of the project's containers.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.ok(&["ps", "-aq"]).lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    /// Changes the file.
    ///
    /// # Panics
    /// If `from` is not in it.
    pub fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.file).expect("a Compose file");
        assert!(text.contains(from), "{from:?} is not in the file");
        std::fs::write(&self.file, text.replace(from, to)).expect("a Compose file");
    }
}
