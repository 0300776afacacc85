//! What can go wrong in the lab.

use std::{io, path::PathBuf};

use berth_yaml::Problem;

/// A result of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An experiment cannot be loaded, run or reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file says something that cannot be.
    #[error("{0}")]
    Invalid(Box<Problem>),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A plot cannot be turned into pixels.
    #[error("cannot render the plot {}", path.display())]
    Render {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::plot::PngError,
    },
    /// An engine refused.
    #[error("{engine}: cannot {what}")]
    Engine {
        /// Its name.
        engine: String,
        /// What was tried.
        what: String,
        /// The engine's words.
        #[source]
        source: berth_client::Error,
    },
    /// Nothing can be sampled.
    #[error("cannot sample the control group of container {container:?} (process {pid}): {reason}")]
    Sampling {
        /// Container.
        container: String,
        /// Its first process, as the engine says.
        pid: i64,
        /// Why.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread that samples")]
    Thread(#[source] io::Error),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Invalid(Box::new(problem))
    }
}

/// Writes a file whole.
pub(crate) fn write(path: impl Into<PathBuf>, content: impl AsRef<[u8]>) -> Result<()> {
    let path = path.into();
    std::fs::write(&path, content).map_err(|source| Error::Write { path, source })
}
