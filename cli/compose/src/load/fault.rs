//! What is wrong with a Compose file, and where.

use std::{
    fmt, io,
    path::{Path as FilePath, PathBuf},
};

use crate::yaml::{Mark, Path};

/// Something wrong at a place; becomes a [`Problem`] once the files' names are at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) mark: Mark,
    pub(crate) path: Path,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(mark: Mark, path: &Path, message: impl Into<String>) -> Self {
        Self { mark, path: path.clone(), message: message.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// The files read, in the order they were; a [`Mark`] names one by its index.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<PathBuf>);

impl Sources {
    pub(crate) fn add(&mut self, file: &FilePath) -> u16 {
        if let Some(known) = self.0.iter().position(|known| known == file) {
            return u16::try_from(known).unwrap_or(u16::MAX);
        }
        self.0.push(file.to_owned());
        u16::try_from(self.0.len() - 1).unwrap_or(u16::MAX)
    }

    /// The file of a mark.
    #[must_use]
    pub fn file(&self, mark: Mark) -> Option<&FilePath> {
        (mark.line > 0).then(|| self.0.get(usize::from(mark.file)).map(PathBuf::as_path)).flatten()
    }

    pub(crate) fn problem(&self, fault: Fault) -> LoadError {
        let file = self.file(fault.mark).map(FilePath::to_owned);
        LoadError::Invalid(Box::new(Problem { file, fault }))
    }
}

/// What is wrong with a Compose file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    file: Option<PathBuf>,
    fault: Fault,
}

impl Problem {
    /// What could be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.fault.hint.as_deref()
    }

    /// File, line and column, if it has a place.
    #[must_use]
    pub fn place(&self) -> Option<(&FilePath, u32, u32)> {
        Some((self.file.as_deref()?, self.fault.mark.line, self.fault.mark.column))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line, column)) = self.place() {
            write!(f, "{}:{line}:{column}: ", file.display())?;
        }
        if self.fault.path != Path::root() {
            write!(f, "{}: ", self.fault.path)?;
        }
        f.write_str(&self.fault.message)?;
        match &self.fault.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

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
