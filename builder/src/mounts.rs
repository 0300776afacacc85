//! `RUN --mount`: what a step sees beside its own file system.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use berth_dockerfile_parser::ignore;
use berth_dockerfile_parser::instruction::Run;
use berth_dockerfile_parser::mount::{self, Mount, MountType, Sharing};
use berth_oci::Digest;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime as oci;

use crate::context;
use crate::copy::{Changes, Copier};
use crate::fault::{At, Fault};
use crate::key::KeyInputs;
use crate::rootdir::{RootDir, clamp};
use crate::solve::Solver;
use crate::source::{Selection, Source};
use crate::stage::StageState;

/// A mount of a step, resolved as far as it can be before the step runs.
pub(crate) struct StepMount {
    pub(crate) target: PathBuf,
    mount: Mount,
    /// Where a bind's or a new cache's files come from.
    source: Option<Files>,
    /// Identity of a cache.
    cache_name: String,
}

enum Files {
    /// Selected from the build context.
    Context(Vec<Selection>),
    /// Selected from a stage or image.
    Tree(Rc<Source>, Vec<Selection>),
}

/// What the container gets.
pub(crate) struct Prepared {
    pub(crate) mounts: Vec<oci::Mount>,
    /// Secrets as variables.
    pub(crate) env: Vec<String>,
    /// Held while the step runs.
    pub(crate) locks: Vec<Flock<fs::File>>,
}

impl StepMount {
    /// Secrets and the contents of caches are no inputs.
    pub(crate) fn add_to_key(&self, key: &mut KeyInputs) -> Result<(), Fault> {
        let m = &self.mount;
        key.add(
            format!("mount {}", self.target.display()),
            format!("{} {} {} {} {}", m.kind.name(), m.readonly, m.source, self.cache_name, m.size),
        );
        Ok(())
    }
}

impl Solver<'_> {
    pub(crate) fn step_mounts(
        &self,
        index: usize,
        state: &StageState,
        run: &Run,
    ) -> Result<Vec<StepMount>, Fault> {
        let one = |raw: &str| {
            let expand = |word: &str| self.lexer.word(word, &state.env[..]).map_err(|e| e.to_string());
            let parsed = mount::parse(raw, expand).map_err(|fault| {
                let help = fault.help.map(|help| format!(" ({help})")).unwrap_or_default();
                Fault::said(format!("--mount={raw}: {}{help}", fault.message))
            })?;
            self.step_mount(index, state, raw, parsed)
        };
        run.mounts.iter().map(|word| one(&word.text)).collect()
    }

    fn step_mount(
        &self,
        index: usize,
        state: &StageState,
        raw: &str,
        mount: Mount,
    ) -> Result<StepMount, Fault> {
        let unsupported =
            |what: &str| Err(Fault::said(format!("RUN --mount={raw}: {what} is not supported yet")));
        if mount.kind == MountType::Ssh {
            return unsupported("type=ssh");
        }
        let id = if mount.id.is_empty() { mount.source.clone() } else { mount.id.clone() };
        let target = match (mount.kind, mount.target.as_str()) {
            (MountType::Secret, "") => {
                let id = if id.is_empty() { "secret".to_owned() } else { id };
                format!("/run/secrets/{}", Path::new(&id).file_name().unwrap_or_default().to_string_lossy())
            }
            (_, "") => {
                return Err(Fault::said(format!("RUN --mount={raw}: a target is needed (target=/path)")));
            }
            (_, target) => state.absolute(target),
        };
        let target = clamp(Path::new(&target));
        if target.as_os_str().is_empty() {
            return Err(Fault::said("invalid mount target \"/\""));
        }
        let wanted = if mount.source.is_empty() { "/" } else { &mount.source };
        let none = ignore::Matcher::default();
        let source = match (mount.kind, mount.from.as_str()) {
            (MountType::Bind, "") => Some(Files::Context(self.context.source.select(wanted, &none)?)),
            (MountType::Bind | MountType::Cache, from) if !from.is_empty() => {
                let tree = self.source_named(index, from, false)?;
                let selected = tree.select(wanted, &none)?;
                Some(Files::Tree(tree, selected))
            }
            _ => None,
        };
        let cache_name = match mount.kind {
            MountType::Cache => {
                let id = if mount.id.is_empty() {
                    format!("/{}", clamp(Path::new(&mount.target)).display())
                } else {
                    mount.id.clone()
                };
                let owner = format!("{:?} {:?} {:?}", mount.uid, mount.gid, mount.mode);
                Digest::of(format!("{id}\0{}\0{}\0{owner}", mount.from, mount.source).as_bytes())
                    .hex()
                    .to_owned()
            }
            MountType::Bind => self.bind_key(source.as_ref())?,
            _ => String::new(),
        };
        Ok(StepMount { target: Path::new("/").join(target), mount, source, cache_name })
    }

    /// Digest of a bind's files.
    fn bind_key(&self, files: Option<&Files>) -> Result<String, Fault> {
        let mut key = KeyInputs::new("bind", "");
        match files {
            Some(Files::Context(selected)) => self.context.source.add_to_key(&mut key, selected)?,
            Some(Files::Tree(tree, selected)) => tree.add_to_key(&mut key, selected)?,
            None => {}
        }
        Ok(key.digest().hex().to_owned())
    }

    /// Copies a mount's files into a directory of their own, so that the container's writes go nowhere.
    fn materialise(&self, files: &Files, dir: &Path) -> Result<PathBuf, Fault> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).at("create directory", dir)?;
        let root = RootDir::open_host(dir).at("open", dir)?;
        let changes = Changes::default();
        let copier = Copier::new(&root, &changes, &self.io.cancel);
        let (source, selections) = match files {
            Files::Context(selections) => (&self.context.source, selections),
            Files::Tree(tree, selections) => (tree.as_ref(), selections),
        };
        let mut path = dir.to_owned();
        for selection in selections {
            copier.copy(source, selection, "/")?;
            if !selection.is_dir() {
                path = dir.join(&selection.name);
            }
        }
        Ok(path)
    }
}

/// Makes everything ready below `dir`.
pub(crate) fn prepare(solver: &Solver<'_>, dir: &Path, mounts: &[StepMount]) -> Result<Prepared, Fault> {
    let mut prepared = Prepared { mounts: Vec::new(), env: Vec::new(), locks: Vec::new() };
    for (i, step) in mounts.iter().enumerate() {
        let mount = &step.mount;
        let own = dir.join(format!("mount-{i}"));
        let target = step.target.display().to_string();
        match mount.kind {
            MountType::Bind => {
                let files = step.source.as_ref().expect("a bind has its source resolved");
                let path = solver.materialise(files, &own)?;
                prepared.mounts.push(bind(&path, &target, mount.readonly)?);
            }
            MountType::Cache => {
                let (path, lock) = cache_dir(solver, step)?;
                prepared.locks.extend(lock);
                prepared.mounts.push(bind(&path, &target, mount.readonly)?);
            }
            MountType::Tmpfs => prepared.mounts.push(tmpfs(&target, mount.size)?),
            MountType::Secret => secret(solver, step, &own, &target, &mut prepared)?,
            // Refused when the mounts were resolved.
            MountType::Ssh => {}
        }
    }
    Ok(prepared)
}

/// A bind mount of a path of this machine.
pub(crate) fn bind(path: &Path, target: &str, readonly: bool) -> Result<oci::Mount, Fault> {
    let mut options = vec!["rbind".to_owned(), "nosuid".into(), "nodev".into(), "rprivate".into()];
    if readonly {
        options.push("ro".into());
    }
    oci_mount("bind", path, target, options)
}

fn tmpfs(target: &str, size: i64) -> Result<oci::Mount, Fault> {
    let mut options = vec!["nosuid".to_owned(), "nodev".into()];
    if size > 0 {
        options.push(format!("size={size}"));
    }
    oci_mount("tmpfs", Path::new("tmpfs"), target, options)
}

fn oci_mount(kind: &str, source: &Path, target: &str, options: Vec<String>) -> Result<oci::Mount, Fault> {
    oci::MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(|e| Fault::said(format!("mount at {target}: {e}")))
}

/// A heredoc script as an executable file.
pub(crate) fn script(dir: &Path, name: &str, body: &str, target: &str) -> Result<oci::Mount, Fault> {
    let own = dir.join("scripts");
    let file = clamp(Path::new(name));
    fs::create_dir_all(&own).at("create directory", &own)?;
    let path = own.join(file.file_name().unwrap_or_default());
    fs::write(&path, body).at("write", &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("set mode of", &path)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).at("set mode of", &own)?;
    bind(&own, target, true)
}

fn secret(
    solver: &Solver<'_>,
    step: &StepMount,
    own: &Path,
    target: &str,
    prepared: &mut Prepared,
) -> Result<(), Fault> {
    let mount = &step.mount;
    let from_target = || Path::new(target).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id =
        [&mount.id, &mount.source].into_iter().find(|id| !id.is_empty()).cloned().unwrap_or_else(from_target);
    let Some(value) = solver.request.secrets.get(&id) else {
        if mount.required {
            return Err(Fault::said(format!(
                "secret {id}: not found; give it with --secret id={id},src=FILE"
            )));
        }
        return Ok(());
    };
    if let Some(name) = &mount.env {
        prepared.env.push(format!("{name}={}", String::from_utf8_lossy(&value.0)));
        if mount.target.is_empty() {
            return Ok(());
        }
    }
    let mode = mount.mode.unwrap_or(0o400);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o400).open(own).at("create", own)?;
    std::io::Write::write_all(&mut file, &value.0).at("write", own)?;
    chown(own, Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0))).at("set owner of", own)?;
    fs::set_permissions(own, fs::Permissions::from_mode(mode)).at("set mode of", own)?;
    prepared.mounts.push(bind(own, target, true)?);
    Ok(())
}

/// The directory of a cache, locked as its sharing mode says. `private` takes the first that nobody uses.
fn cache_dir(solver: &Solver<'_>, step: &StepMount) -> Result<(PathBuf, Option<Flock<fs::File>>), Fault> {
    let caches = solver.shared.dirs.builds.join("mounts");
    fs::create_dir_all(&caches).at("create directory", &caches)?;
    let sharing = step.mount.sharing.unwrap_or(Sharing::Shared);
    for number in 0.. {
        let name =
            if number == 0 { step.cache_name.clone() } else { format!("{}-{number}", step.cache_name) };
        let lock_path = caches.join(format!("{name}.lock"));
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let file = file.at("open", &lock_path)?;
        let how = match sharing {
            Sharing::Shared => FlockArg::LockSharedNonblock,
            Sharing::Private | Sharing::Locked => FlockArg::LockExclusiveNonblock,
        };
        match lock(solver, file, how, sharing != Sharing::Private)? {
            Some(lock) => {
                let dir = caches.join(&name);
                make_cache(solver, step, &dir)?;
                return Ok((dir, Some(lock)));
            }
            None => continue,
        }
    }
    unreachable!("the loop has no end")
}

/// Takes a lock; waits for it, unless the build is cancelled, if asked to.
fn lock(
    solver: &Solver<'_>,
    mut file: fs::File,
    how: FlockArg,
    wait: bool,
) -> Result<Option<Flock<fs::File>>, Fault> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) if !wait => return Ok(None),
            Err((again, nix::errno::Errno::EWOULDBLOCK)) => {
                if solver.io.cancel.is_cancelled() {
                    return Err(crate::BuildError::Cancelled.into());
                }
                file = again;
                std::thread::sleep(PAUSE);
            }
            Err((_, error)) => return Err(Fault::said(format!("cannot lock the cache: {error}"))),
        }
    }
}

/// Makes a cache when it is first used; a half-made one is never seen.
fn make_cache(solver: &Solver<'_>, step: &StepMount, dir: &Path) -> Result<(), Fault> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(dir);
    let fresh = context::scratch_dir(parent)?;
    if let Some(files) = &step.source {
        solver.materialise(files, fresh.path())?;
    }
    let mount = &step.mount;
    chown(fresh.path(), Some(mount.uid.unwrap_or(0)), Some(mount.gid.unwrap_or(0)))
        .at("set owner of", dir)?;
    let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o755));
    fs::set_permissions(fresh.path(), mode).at("set mode of", dir)?;
    match fs::rename(fresh.path(), dir) {
        // Another build was faster.
        Err(error) if dir.exists() => tracing::debug!(%error, "a cache was made twice"),
        result => {
            result.at("create", dir)?;
            // It has moved: nothing is left to remove.
            let _moved = fresh.keep();
        }
    }
    Ok(())
}
