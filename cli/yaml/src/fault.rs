//! What is wrong with a file, and where.

use std::{
    fmt,
    path::{Path as FilePath, PathBuf},
};

use crate::{Mark, Path};

/// Something wrong at a place; becomes a [`Problem`] once the files' names are at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub mark: Mark,
    /// The field it is about; the root if none.
    pub path: Path,
    /// What is wrong.
    pub message: String,
    /// What could be done about it.
    pub hint: Option<String>,
}

impl Fault {
    /// Something wrong with the field `path`, written at `mark`.
    #[must_use]
    pub fn new(mark: Mark, path: &Path, message: impl Into<String>) -> Self {
        Self { mark, path: path.clone(), message: message.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// The files read, in the order they were; a [`Mark`] names one by its index.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<PathBuf>);

impl Sources {
    /// Gives a file its number; the one it has, if it was read before.
    pub fn add(&mut self, file: &FilePath) -> u16 {
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

    /// A fault with the name of its file.
    #[must_use]
    pub fn problem(&self, fault: Fault) -> Problem {
        Problem { file: self.file(fault.mark).map(FilePath::to_owned), fault }
    }
}

/// What is wrong with a file, and where.
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
