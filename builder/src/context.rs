//! The build context: its files, its Dockerfile, its `.dockerignore`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use berth_dockerfile_parser::giturl::GitRef;
use berth_dockerfile_parser::ignore;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::fault::{At, Fault};
use crate::fetch::{self, Remote};
use crate::request::{Context, DockerfileSource};
use crate::rootdir::{RootDir, clamp};
use crate::source::Source;
use crate::start::Surroundings;
use crate::stats::Stats;
use crate::untar::{self, Unpacker};

/// A larger Dockerfile is refused.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// A context that is ready to be read.
pub(crate) struct Opened {
    pub(crate) source: Arc<Source>,
    /// Patterns of its `.dockerignore`.
    pub(crate) ignore: Vec<String>,
    pub(crate) dockerfile: String,
    /// For messages.
    pub(crate) dockerfile_name: String,
    /// Holds the files of an unpacked context.
    _unpacked: Option<TempDir>,
}

/// Opens a context. Whatever is unpacked lies in a new directory of the builder and goes with the result.
pub(crate) fn open(
    context: Context,
    dockerfile: &DockerfileSource,
    around: &Surroundings<'_>,
) -> Result<Opened, BuildError> {
    let invalid = |message: String| BuildError::Invalid { message };
    let tree = tree(context, around)?;
    let root = tree.root;
    let mut own_ignore = None;
    let (text, name) = match (dockerfile, tree.dockerfile) {
        (DockerfileSource::Given { name, text, ignore }, _) => {
            own_ignore = ignore.clone();
            (String::from_utf8_lossy(text).into_owned(), name.clone())
        }
        (DockerfileSource::Inline(bytes), _) => {
            (String::from_utf8_lossy(bytes).into_owned(), "Dockerfile".to_owned())
        }
        (_, Some(text)) => (text, "Dockerfile".to_owned()),
        (DockerfileSource::Path(path), None) => read_dockerfile(&root, path)?,
    };
    if text.is_empty() {
        return Err(invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    let read = |path: &str| root.read_small(path, MAX_DOCKERFILE).at("read", path);
    let ignore_text = match (own_ignore, dockerfile) {
        (Some(text), _) => text,
        (None, DockerfileSource::Given { .. }) => read(".dockerignore")?.unwrap_or_default(),
        (None, _) => match read(&format!("{name}.dockerignore"))? {
            Some(text) => text,
            None => read(".dockerignore")?.unwrap_or_default(),
        },
    };
    let patterns = ignore::read(&ignore_text);
    let matcher =
        ignore::Matcher::new(&patterns).map_err(|e| invalid(format!("error reading .dockerignore: {e}")))?;
    let source = source(root, matcher, "the build context".into(), tree.in_place, around)?;
    Ok(Opened {
        source: Arc::new(source),
        ignore: patterns,
        dockerfile: text,
        dockerfile_name: name,
        _unpacked: tree.unpacked,
    })
}

/// Opens what `--build-context` gives; it has a `.dockerignore` of its own.
pub(crate) fn open_named(
    name: &str,
    context: Context,
    around: &Surroundings<'_>,
) -> Result<Source, BuildError> {
    let invalid = |message: String| BuildError::Invalid { message };
    let tree = tree(context, around)?;
    let text = tree.root.read_small(".dockerignore", MAX_DOCKERFILE).at("read", ".dockerignore")?;
    let matcher = ignore::Matcher::new(ignore::read(&text.unwrap_or_default()))
        .map_err(|e| invalid(format!("error reading .dockerignore of build context {name}: {e}")))?;
    if let Some(unpacked) = tree.unpacked {
        // Its files are needed as long as the build runs; the next start of the daemon removes it otherwise.
        around.keep(unpacked);
    }
    source(tree.root, matcher, format!("build context \"{name}\""), tree.in_place, around)
}

fn source(
    root: RootDir,
    matcher: ignore::Matcher,
    name: String,
    in_place: bool,
    around: &Surroundings<'_>,
) -> Result<Source, BuildError> {
    let top = root.meta(Path::new("")).at("look at", &name)?;
    let source = Source::new(root, matcher, false, name);
    Ok(match top {
        // What was unpacked for this build alone was never seen before.
        Some(top) if in_place => source.with_stats(Stats::open(&around.shared.dirs.builds, &top)),
        _ => source,
    })
}

/// The files of a context.
struct Tree {
    root: RootDir,
    /// The directory is the user's own, or one that outlives the build.
    in_place: bool,
    unpacked: Option<TempDir>,
    /// The context is nothing but this.
    dockerfile: Option<String>,
}

fn tree(context: Context, around: &Surroundings<'_>) -> Result<Tree, BuildError> {
    let in_place = |root| Tree { root, in_place: true, unpacked: None, dockerfile: None };
    let fresh = || -> Result<Tree, BuildError> {
        let dir = scratch_dir(&around.shared.dirs.builds.join("tmp"))?;
        let root = RootDir::open_host(dir.path()).at("open", dir.path())?;
        Ok(Tree { root, in_place: false, unpacked: Some(dir), dockerfile: None })
    };
    match context {
        Context::Directory(path) => Ok(in_place(RootDir::open_host(&path).at("open build context", &path)?)),
        Context::Open(fd) => Ok(in_place(RootDir::new(fd))),
        Context::Tar(file) => {
            let tree = fresh()?;
            unpack(file, &tree.root, &around.io.cancel)?;
            Ok(tree)
        }
        Context::Empty => fresh(),
        Context::Image(image) => Err(BuildError::Invalid {
            message: format!("the image {image} cannot be the build context; name it with --build-context"),
        }),
        Context::Url(url) => match fetch::remote(&url).map_err(|message| BuildError::Invalid { message })? {
            Some(Remote::Http(url)) => {
                let (dir, name) = around.fetcher().http(&url, None).map_err(said)?;
                let path = dir.join(name);
                let mut file = File::open(&path).at("open", &path)?;
                let mut tree = fresh()?;
                if untar::detect(&mut file).at("read", &path)? == untar::Format::Other {
                    let mut bytes = Vec::new();
                    file.take(MAX_DOCKERFILE).read_to_end(&mut bytes).at("read", &path)?;
                    tree.dockerfile = Some(String::from_utf8_lossy(&bytes).into_owned());
                } else {
                    unpack(file, &tree.root, &around.io.cancel)?;
                }
                Ok(tree)
            }
            found => {
                let git = match found {
                    Some(Remote::Git(git)) => Some(git),
                    // Only a context can be written like a path.
                    _ => GitRef::parse(&url).ok().flatten(),
                };
                let Some(git) = git else {
                    let message = format!("{url} names neither a repository nor an archive");
                    return Err(BuildError::Invalid { message });
                };
                let dir = around.fetcher().git(&git).map_err(said)?;
                Ok(in_place(RootDir::open_host(&dir).at("open", &dir)?))
            }
        },
    }
}

fn said(fault: Fault) -> BuildError {
    match fault {
        Fault::Build(error) => error,
        Fault::Said(message) => BuildError::Invalid { message },
    }
}

/// A directory of our own, not even readable for others.
pub(crate) fn scratch_dir(scratch: &Path) -> Result<TempDir, BuildError> {
    std::fs::create_dir_all(scratch).at("create directory", scratch)?;
    tempfile::Builder::new().prefix("build-").tempdir_in(scratch).at("create directory in", scratch)
}

fn unpack(file: File, root: &RootDir, cancel: &CancellationToken) -> Result<(), BuildError> {
    match untar::open(file).map_err(said)? {
        // Everything belongs to root, whoever it belonged to at the client.
        Some(reader) => {
            let unpacker = Unpacker { root, owner: Some((0, 0)), cancel };
            unpacker.unpack(reader).map_err(said)
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
    Err(BuildError::NoDockerfile { name })
}
