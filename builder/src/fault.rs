//! Errors inside the builder, before their place in the Dockerfile is known.

use std::io;
use std::path::Path;

use berth_store::StoreError;

use crate::BuildError;

/// What a step failed of.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Something to tell the user, with the instruction's place.
    Said(String),
    /// Complete already.
    Build(BuildError),
}

impl Fault {
    pub(crate) fn said(message: impl Into<String>) -> Self {
        Self::Said(message.into())
    }
}

impl From<BuildError> for Fault {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Build(store(error))
    }
}

/// The store failed at something that the user did not name.
pub(crate) fn store(error: StoreError) -> BuildError {
    BuildError::Store { what: "image store", message: error.to_string() }
}

/// Adds what was done, and on which path, to a failed system call.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, BuildError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io { what, path: path.as_ref().to_owned(), source })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, BuildError> {
        self.map_err(io::Error::from).at(what, path)
    }
}
