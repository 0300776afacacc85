//! Why a project cannot be loaded.

use std::{io, path::PathBuf};

pub(crate) use berth_yaml::Fault;
pub use berth_yaml::{Problem, Sources};

/// What is said of a file that is not on this machine.
pub(super) const NOT_FETCHED: &str =
    "is not a file of this machine, and berth compose fetches none: clone or download it, and name the copy";

/// A project cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The files say something that cannot be.
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
    /// A file would have to be fetched.
    #[error("{0} {NOT_FETCHED}")]
    Remote(String),
    /// There is no Compose file.
    #[error("no configuration file provided: not found; berth looks for compose.yaml, compose.yml, docker-compose.yml and docker-compose.yaml in {} and above it, or name one with -f", directory.display())]
    NoFile {
        /// Where the search began.
        directory: PathBuf,
    },
    /// A file of variables cannot be understood.
    #[error("failed to read {}: line {line}: {message}", path.display())]
    EnvFile {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file of variables is to be read in a way nobody knows.
    #[error("unsupported env_file format {format:?} of {}; it is raw or left out", path.display())]
    EnvFileFormat {
        /// File.
        path: PathBuf,
        /// Format.
        format: String,
    },
    /// The project's name is not one.
    #[error(
        "invalid project name {0:?}: must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number"
    )]
    ProjectName(String),
    /// The project has no name.
    #[error("project name can't be empty; use `--project-name` to set a valid name")]
    NoProjectName,
    /// A service that is not in the files was named.
    #[error("no such service: {0}")]
    NoSuchService(String),
    /// A service's platform is not among those it can be built for.
    #[error("service {service:?} build configuration does not support platform: {platform}")]
    Platform {
        /// Service.
        service: String,
        /// Platform.
        platform: String,
    },
}

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> Self {
        Self::Invalid(Box::new(problem))
    }
}
