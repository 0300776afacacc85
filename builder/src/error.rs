//! What can go wrong in a build, told with the place in the Dockerfile.

use std::fmt;
use std::path::PathBuf;

use berth_oci::Digest;

/// A few lines of the Dockerfile around a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// Name of the Dockerfile, as the user gave it.
    pub file: String,
    /// First line (from 1) of the instruction.
    pub line: usize,
    /// The rendered lines, those of the instruction marked with `>>>`.
    pub text: String,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}", self.file, self.line)?;
        f.write_str(&self.text)
    }
}

/// A build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The request itself cannot be met (no such Dockerfile, unknown target, bad context archive).
    #[error("{message}")]
    Invalid {
        /// What is wrong, and what to do about it.
        message: String,
    },
    /// The context has no such Dockerfile.
    #[error("Cannot locate specified Dockerfile: {name}")]
    NoDockerfile {
        /// Its path within the context.
        name: String,
    },
    /// The Dockerfile is wrong.
    #[error("{message}{}", at(.excerpt))]
    Dockerfile {
        /// First finding's message.
        message: String,
        /// Where.
        excerpt: Option<Excerpt>,
    },
    /// A `RUN` command ended with an error.
    #[error("The command '{command}' returned a non-zero code: {code}{}{}{}", killed(*.oom_killed), at(.excerpt), kept(.image))]
    Run {
        /// The command as it was executed.
        command: String,
        /// Its exit code.
        code: i32,
        /// Whether it was killed for using too much memory.
        oom_killed: bool,
        /// The file system as the command left it, kept until the next build or prune.
        image: Option<Digest>,
        /// Where.
        excerpt: Option<Excerpt>,
    },
    /// Any other instruction failed (a missing source file, an unknown user, a base image not found).
    #[error("{message}{}", at(.excerpt))]
    Step {
        /// What went wrong.
        message: String,
        /// Where.
        excerpt: Option<Excerpt>,
    },
    /// The builder's own machinery failed.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The store failed.
    #[error("{what}: {message}")]
    Store {
        /// What was being done.
        what: &'static str,
        /// The store's own account.
        message: String,
    },
    /// The build was cancelled; nothing of the running step remains.
    #[error("build cancelled")]
    Cancelled,
}

impl BuildError {
    /// The exit code of the failed command, where a command failed (`errorDetail.code` of the Engine API).
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Run { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The place in the Dockerfile, where there is one.
    pub fn excerpt(&self) -> Option<&Excerpt> {
        match self {
            Self::Dockerfile { excerpt, .. } | Self::Run { excerpt, .. } | Self::Step { excerpt, .. } => {
                excerpt.as_ref()
            }
            _ => None,
        }
    }

    /// Whether the request or the Dockerfile is at fault, before any step ran.
    pub fn is_invalid_request(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Dockerfile { .. })
    }
}

fn at(excerpt: &Option<Excerpt>) -> String {
    excerpt.as_ref().map(|e| format!("\n{e}")).unwrap_or_default()
}

fn kept(image: &Option<Digest>) -> String {
    const SHORT: usize = 12;
    let short = |id: &Digest| id.hex()[..SHORT].to_owned();
    let line = |id: &Digest| {
        format!("\nIts file system is kept until the next build: berth run --rm -it {} sh", short(id))
    };
    image.as_ref().map(line).unwrap_or_default()
}

fn killed(oom: bool) -> &'static str {
    if oom { " (killed: out of memory; raise --memory)" } else { "" }
}
