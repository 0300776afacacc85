//! `berth cp`: files into and out of containers, with the rules of cp(1) for what the target is.

use std::fs;
use std::future::Future;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use berth_api::archive::PathStat;
use berth_api::options::PutArchive;
use berth_client::{Client, Upload};
use berth_dockerfile_parser::ignore::Matcher;
use clap::Args;

use crate::exit::Exit;
use crate::output::copied::{self, Count};
use crate::session::Session;
use crate::tarball::{self, Owners, Tree};

/// Copy files between a container and this machine
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not tell what was copied, which is told on a terminal alone unless it is asked for (=false)
    #[arg(
        short,
        long,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        value_name = "BOOL"
    )]
    quiet: Option<bool>,
    /// Source: container:path, a path, or - for an archive on standard input
    source: String,
    /// Target: container:path, a path, or - for an archive on standard output
    target: String,
}

impl Cp {
    /// Does a copy, and tells of it if that is wanted.
    async fn told(
        &self,
        doing: &str,
        count: &Count,
        target: &str,
        copy: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        match self.quiet.unwrap_or_else(|| !io::stdout().is_terminal()) {
            true => copy.await,
            false => copied::told(doing, count, target, copy).await,
        }
    }
}

/// Bits of Go's `os.FileMode`.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;

pub(crate) async fn run(session: &Session, args: Cp) -> Result<Exit> {
    let client = session.client().await?;
    match (split(&args.source), split(&args.target)) {
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source"),
        (Some((container, path)), None) => copy_out(&client, &args, container, path).await?,
        (None, Some((container, path))) => copy_in(&client, &args, container, path).await?,
    }
    Ok(Exit::Success)
}

/// Container and path; `None` is a path on this machine.
fn split(argument: &str) -> Option<(&str, &str)> {
    let (container, path) = argument.split_once(':')?;
    (!argument.starts_with(['/', '.']) && !container.is_empty()).then_some((container, path))
}

/// Whether a path ends with `/.`: not the directory is meant but what is in it.
fn means_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

fn means_directory(path: &str) -> bool {
    path.ends_with('/') || means_content(path) || path == ".." || path.ends_with("/..")
}

/// A path in a container, from its root, without `.` and `..`.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

/// What is at a path in a container, a link followed; the path is the one it leads to.
async fn look(client: &Client, container: &str, path: PathBuf) -> Result<(PathBuf, Option<PathStat>)> {
    let stat = |path: PathBuf| async move {
        match client.container_path_stat(container, &path.to_string_lossy()).await {
            Ok(stat) => Ok(Some(stat)),
            // HEAD has no message; a container that is not there is told by what follows.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    match stat(path.clone()).await? {
        Some(link) if link.mode & GO_LINK != 0 => {
            let target = path.parent().unwrap_or(Path::new("/")).join(&link.link_target);
            let target = clean(&target.to_string_lossy());
            let found = stat(target.clone()).await?;
            Ok((target, found))
        }
        found => Ok((path, found)),
    }
}

async fn copy_in(client: &Client, args: &Cp, container: &str, path: &str) -> Result<()> {
    // A container that is not there shall be named, which HEAD cannot do.
    client.container_inspect(container, false).await?;
    let (target, found) = look(client, container, clean(path)).await?;
    let is_dir = found.as_ref().map(|stat| stat.mode & GO_DIRECTORY != 0);
    let put = |dir: &Path| PutArchive {
        path: dir.to_string_lossy().into_owned(),
        no_overwrite_dir_non_dir: true,
        copy_uid_gid: args.archive,
    };
    if args.source == "-" {
        if is_dir != Some(true) {
            bail!("destination \"{container}:{path}\" must be a directory");
        }
        let upload = Upload::from_reader(tokio::io::stdin());
        return Ok(client.container_archive_put(container, &put(&target), upload).await?);
    }
    let source = Source::find(&args.source, args.follow_link)?;
    if means_directory(path) && is_dir == Some(false) {
        bail!("{container}:{path}: not a directory");
    }
    let base = || target.file_name().map(PathBuf::from).context("the root of a container cannot be replaced");
    let (dir, name) = match (is_dir, source.is_dir) {
        (Some(true), _) => (target.clone(), source.name.clone()),
        (Some(false), true) => bail!("cannot copy directory"),
        (None, false) if means_directory(path) => bail!("no such directory"),
        _ => (target.parent().unwrap_or(Path::new("/")).to_owned(), base()?),
    };
    let (upload, making) = tarball::make(move |archive| {
        if !name.as_os_str().is_empty() {
            tarball::append(archive, &source.path, &name, Owners::Kept)?;
        }
        if source.is_dir {
            let ignore = Matcher::default();
            Tree { root: &source.path, prefix: &name, ignore: &ignore, owners: Owners::Kept }
                .append(archive)?;
        }
        Ok(())
    });
    let count = making.sent();
    let copy =
        async { making.judge(client.container_archive_put(container, &put(&dir), upload).await).await };
    args.told("Copying to container", &count, &format!("{container}:{}", target.display()), copy).await
}

/// What is copied from this machine.
struct Source {
    path: PathBuf,
    /// Its name in an existing directory; empty for the content of a directory.
    name: PathBuf,
    is_dir: bool,
}

impl Source {
    fn find(text: &str, follow: bool) -> Result<Self> {
        let failed = || format!("cannot copy {text}");
        let given = Path::new(text);
        let metadata = given.symlink_metadata().with_context(failed)?;
        let followed = follow || means_directory(text);
        let path = if metadata.is_symlink() && followed {
            given.canonicalize().with_context(failed)?
        } else {
            given.to_owned()
        };
        let is_dir = path.symlink_metadata().with_context(failed)?.is_dir();
        if means_directory(text) && !is_dir {
            bail!("{text}: not a directory");
        }
        let name = match given.file_name() {
            _ if means_content(text) => PathBuf::new(),
            Some(name) => name.into(),
            // `..` and the like have a name all the same.
            None => {
                path.canonicalize().with_context(failed)?.file_name().map(PathBuf::from).unwrap_or_default()
            }
        };
        Ok(Self { path, name, is_dir })
    }
}

async fn copy_out(client: &Client, args: &Cp, container: &str, path: &str) -> Result<()> {
    let content = means_content(path);
    let mut source = clean(path);
    if args.follow_link {
        source = look(client, container, source).await?.0;
    }
    let asked = if content { source.join(".") } else { source.clone() };
    let (stat, stream) = client.container_archive_get(container, &asked.to_string_lossy()).await?;
    if args.target == "-" {
        return tarball::save(stream, None).await;
    }
    let is_dir = stat.mode & GO_DIRECTORY != 0;
    let target = PathBuf::from(&args.target);
    let found = match target.metadata() {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot copy to {}", args.target)),
    };
    match &found {
        Some(to) if !to.is_dir() && is_dir => bail!("cannot copy directory"),
        Some(to) if !to.is_dir() && (!to.is_file() || means_directory(&args.target)) => {
            bail!("destination \"{}\" must be a directory or a regular file", args.target)
        }
        None if !is_dir && means_directory(&args.target) => bail!("no such directory: {}", args.target),
        _ => {}
    }
    // Where a link leads is where the file goes, as with cp(1).
    let target = if found.is_some() { target.canonicalize().context("cannot copy")? } else { target };
    let into = found.is_some_and(|to| to.is_dir());
    let count = Count::default();
    let reader = Counting { reader: tarball::reader(stream), count: Count::clone(&count) };
    let copy = async {
        tokio::task::spawn_blocking(move || unpack(reader, &target, into, content))
            .await
            .context("the archive's thread broke down")?
    };
    let shown = std::path::absolute(&args.target)?;
    args.told("Copying from container", &count, &shown.to_string_lossy(), copy).await
}

/// A reader that counts.
struct Counting<R> {
    reader: R,
    count: Count,
}

impl<R: io::Read> io::Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Unpacks beside the target and then moves in place, so that nothing in the archive can lead anywhere else.
fn unpack(reader: impl io::Read, target: &Path, into: bool, content: bool) -> Result<()> {
    let failed = || format!("cannot copy to {}", target.display());
    let beside = if into {
        target
    } else {
        target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
    };
    let scratch = tempfile::Builder::new().prefix(".berth-cp").tempdir_in(beside).with_context(failed)?;
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.unpack(scratch.path()).with_context(failed)?;
    // To its end, so that a connection that breaks off is noticed.
    io::copy(&mut archive.into_inner(), &mut io::sink()).with_context(failed)?;
    if content {
        return place_all(scratch.path(), target).with_context(failed);
    }
    for entry in fs::read_dir(scratch.path()).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let to = if into { target.join(entry.file_name()) } else { target.to_owned() };
        place(&entry.path(), &to).with_context(failed)?;
    }
    Ok(())
}

/// Moves to where it belongs; directories are merged, a directory never replaces a file nor a file a directory.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let there = match to.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return fs::rename(from, to),
        Err(error) => return Err(error),
    };
    match (from.symlink_metadata()?.is_dir(), there.is_dir()) {
        (true, true) => place_all(from, to),
        (true, false) => Err(io::Error::other(format!("cannot overwrite {} with a directory", to.display()))),
        (false, true) => Err(io::Error::other(format!("cannot overwrite the directory {}", to.display()))),
        (false, false) => fs::rename(from, to),
    }
}

fn place_all(from: &Path, to: &Path) -> io::Result<()> {
    match fs::create_dir(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        place(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(split("c:/etc"), Some(("c", "/etc")));
        assert_eq!(split("./a:b"), None);
        assert_eq!(split("/a:b"), None);
        assert_eq!(split("-"), None);
        assert_eq!(clean("a/../../b/./c"), Path::new("/b/c"));
        assert!(means_content("a/.") && !means_content("a/") && means_directory("a/"));
    }

    fn archive(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(if content.is_some() {
                tar::EntryType::Regular
            } else {
                tar::EntryType::Directory
            });
            header.set_mode(0o755);
            header.set_size(content.map_or(0, str::len) as u64);
            builder.append_data(&mut header, name, content.unwrap_or_default().as_bytes()).expect("append");
        }
        builder.into_inner().expect("an archive")
    }

    #[test]
    fn targets() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dir, read) = (dir.path(), |path: &Path| fs::read_to_string(path).expect("a file"));
        let file = archive(&[("f", Some("1"))]);
        unpack(file.as_slice(), &dir.join("new"), false, false).expect("to a new name");
        assert_eq!(read(&dir.join("new")), "1");
        unpack(file.as_slice(), dir, true, false).expect("into a directory");
        assert_eq!(read(&dir.join("f")), "1");
        let tree = archive(&[("d/", None), ("d/f", Some("2"))]);
        unpack(tree.as_slice(), &dir.join("e"), false, false).expect("a directory to a new name");
        assert_eq!(read(&dir.join("e/f")), "2");
        unpack(tree.as_slice(), dir, true, false).expect("into a directory");
        unpack(tree.as_slice(), dir, true, false).expect("a second time");
        assert_eq!(read(&dir.join("d/f")), "2");
        assert!(unpack(archive(&[("d", Some("file"))]).as_slice(), dir, true, false).is_err());
        unpack(archive(&[("./", None), ("./f", Some("3"))]).as_slice(), &dir.join("c"), false, true)
            .expect("content");
        assert_eq!(read(&dir.join("c/f")), "3");
        assert!(
            fs::read_dir(dir).expect("list").all(|e| !e
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .starts_with(".berth"))
        );
    }
}
