//! The build context: its files, its Dockerfile, its `.dockerignore`.

use std::fs::File;
use std::path::Path;

use berth_dockerfile_parser::ignore;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::fault::{At, Fault};
use crate::request::{Context, DockerfileSource};
use crate::rootdir::{RootDir, clamp};
use crate::source::Source;
use crate::untar::{self, Unpacker};

/// A larger Dockerfile is refused.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// A context that is ready to be read.
pub(crate) struct Opened {
    pub(crate) source: Source,
    pub(crate) dockerfile: String,
    /// For messages.
    pub(crate) dockerfile_name: String,
    /// Holds the files of an unpacked context.
    _unpacked: Option<TempDir>,
}

/// Opens a context. Whatever is unpacked lies in a new directory below `scratch` and goes with the result.
pub(crate) fn open(
    context: Context,
    dockerfile: &DockerfileSource,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<Opened, BuildError> {
    let invalid = |message: String| BuildError::Invalid { message };
    let (root, unpacked) = match context {
        Context::Directory(path) => (RootDir::open_host(&path).at("open build context", &path)?, None),
        Context::Tar(file) => {
            let dir = scratch_dir(scratch)?;
            let root = RootDir::open_host(dir.path()).at("open", dir.path())?;
            unpack(file, &root, cancel)?;
            (root, Some(dir))
        }
        Context::Empty => {
            let dir = scratch_dir(scratch)?;
            (RootDir::open_host(dir.path()).at("open", dir.path())?, Some(dir))
        }
    };
    let (text, name) = match dockerfile {
        DockerfileSource::Inline(bytes) => {
            (String::from_utf8_lossy(bytes).into_owned(), "Dockerfile".to_owned())
        }
        DockerfileSource::Path(path) => read_dockerfile(&root, path)?,
    };
    if text.is_empty() {
        return Err(invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    let read = |path: &str| root.read_small(path, MAX_DOCKERFILE).at("read", path);
    let ignore_text = match read(&format!("{name}.dockerignore"))? {
        Some(text) => text,
        None => read(".dockerignore")?.unwrap_or_default(),
    };
    let matcher = ignore::Matcher::new(ignore::read(&ignore_text))
        .map_err(|e| invalid(format!("error reading .dockerignore: {e}")))?;
    let source = Source::new(root, matcher, false, "the build context".into());
    Ok(Opened { source, dockerfile: text, dockerfile_name: name, _unpacked: unpacked })
}

/// A directory of our own, not even readable for others.
pub(crate) fn scratch_dir(scratch: &Path) -> Result<TempDir, BuildError> {
    std::fs::create_dir_all(scratch).at("create directory", scratch)?;
    tempfile::Builder::new().prefix("build-").tempdir_in(scratch).at("create directory in", scratch)
}

fn unpack(file: File, root: &RootDir, cancel: &CancellationToken) -> Result<(), BuildError> {
    let fault = |fault| match fault {
        Fault::Build(error) => error,
        Fault::Said(message) => BuildError::Invalid { message },
    };
    match untar::open(file).map_err(fault)? {
        // Everything belongs to root, whoever it belonged to at the client.
        Some(reader) => {
            let unpacker = Unpacker { root, dest: Path::new(""), owner: Some((0, 0)), cancel };
            unpacker.unpack(reader).map_err(fault)
        }
        // An archive without entries has no header to be told by.
        None => Ok(()),
    }
}

fn read_dockerfile(root: &RootDir, path: &str) -> Result<(String, String), BuildError> {
    let path = clamp(Path::new(if path.is_empty() { "Dockerfile" } else { path }));
    let name = path.to_string_lossy().into_owned();
    if let Some(text) = root.read_small(&name, MAX_DOCKERFILE).at("read", &path)? {
        return Ok((text, name));
    }
    if name == "Dockerfile"
        && let Some(text) = root.read_small("dockerfile", MAX_DOCKERFILE).at("read", "dockerfile")?
    {
        return Ok((text, "dockerfile".into()));
    }
    Err(BuildError::Invalid { message: format!("Cannot locate specified Dockerfile: {name}") })
}
