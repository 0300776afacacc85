//! `RUN --mount`: what a step sees beside its own file system.
//!
//! Files of a stage, an image or the context are mounted, not copied: their layers become an overlay of the step's
//! own, whose upper directory takes what the step writes and goes with it.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::ignore;
use berth_dockerfile_parser::instruction::Run;
use berth_dockerfile_parser::mount::{self, Mount, MountType, Sharing};
use berth_oci::{DiffId, Digest};
use berth_store::{Snapshot, Store};
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime as oci;

use crate::agent::{self, Forward};
use crate::context;
use crate::copy::{Changes, Copier};
use crate::fault::{At, Fault};
use crate::key::KeyInputs;
use crate::lowers::{Part, part};
use crate::rootdir::{RootDir, clamp};
use crate::start::fresh_id;
use crate::step::StageRun;

/// A mount of a step, resolved as far as it can be before the step runs.
pub(crate) struct StepMount {
    pub(crate) target: PathBuf,
    mount: Mount,
    /// Where a bind's or a new cache's files come from.
    source: Option<Files>,
    /// Identity of a cache, or of a bind's files.
    identity: String,
}

/// A part of a stack of layers.
struct Files {
    layers: Vec<DiffId>,
    /// Plain path in the merged tree.
    path: PathBuf,
}

/// What the container gets.
pub(crate) struct Prepared {
    pub(crate) mounts: Vec<oci::Mount>,
    /// Secrets as variables, and the place of the ssh agent.
    pub(crate) env: Vec<String>,
    /// Needed while the step runs.
    pub(crate) held: Vec<Held>,
}

/// Something that a mount needs while the step runs.
#[expect(dead_code, reason = "held for what happens when they are dropped")]
pub(crate) enum Held {
    Lock(Flock<fs::File>),
    Snapshot(Scratch),
    Agent(Forward),
}

/// A snapshot whose changes nobody wants.
pub(crate) struct Scratch {
    store: Store,
    key: String,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.store.snapshots().remove(&self.key) {
            tracing::warn!(snapshot = self.key, %error, "the snapshot of a mount stays behind");
        }
    }
}

impl StepMount {
    /// Secrets and the contents of caches are no inputs.
    pub(crate) fn add_to_key(&self, key: &mut KeyInputs) {
        let m = &self.mount;
        key.add(
            format!("mount {}", self.target.display()),
            format!("{} {} {} {} {}", m.kind.name(), m.readonly, m.source, self.identity, m.size),
        );
    }
}

impl StageRun<'_> {
    pub(crate) fn step_mounts(&mut self, run: &Run) -> Result<Vec<StepMount>, Fault> {
        let mut found = Vec::new();
        let mut agents = 0;
        for word in &run.mounts {
            let raw = &word.text;
            let env = &self.state.env;
            let expand = |word: &str| self.solver.lexer.word(word, &env[..]).map_err(|e| e.to_string());
            let parsed = mount::parse(raw, expand).map_err(|fault| {
                let help = fault.help.map(|help| format!(" ({help})")).unwrap_or_default();
                Fault::said(format!("--mount={raw}: {}{help}", fault.message))
            })?;
            let number = agents;
            agents += usize::from(parsed.kind == MountType::Ssh);
            found.push(self.step_mount(raw, parsed, number)?);
        }
        Ok(found)
    }

    fn step_mount(&mut self, raw: &str, mount: Mount, agent: usize) -> Result<StepMount, Fault> {
        let id = if mount.id.is_empty() { mount.source.clone() } else { mount.id.clone() };
        let target = match (mount.kind, mount.target.as_str()) {
            (MountType::Secret, "") => {
                let id = if id.is_empty() { "secret".to_owned() } else { id };
                format!("/run/secrets/{}", Path::new(&id).file_name().unwrap_or_default().to_string_lossy())
            }
            (MountType::Ssh, "") => agent::target(agent),
            (_, "") => {
                return Err(Fault::said(format!("RUN --mount={raw}: a target is needed (target=/path)")));
            }
            (_, target) => self.state.absolute(target),
        };
        let target = clamp(Path::new(&target));
        if target.as_os_str().is_empty() {
            return Err(Fault::said("invalid mount target \"/\""));
        }
        let wanted = if mount.source.is_empty() { "/" } else { &mount.source };
        let has_files =
            mount.kind == MountType::Bind || mount.kind == MountType::Cache && !mount.from.is_empty();
        let source = if has_files { Some(self.files(&mount.from, wanted)?) } else { None };
        let identity = match (mount.kind, &source) {
            (MountType::Cache, _) => {
                let id = if mount.id.is_empty() {
                    format!("/{}", clamp(Path::new(&mount.target)).display())
                } else {
                    mount.id.clone()
                };
                let namespace = self.solver.arguments.given.get("BUILDKIT_CACHE_MOUNT_NS");
                let owner = format!("{:?} {:?} {:?}", mount.uid, mount.gid, mount.mode);
                let all = format!("{id}\0{}\0{}\0{owner}\0{namespace:?}", mount.from, mount.source);
                Digest::of(all.as_bytes()).hex().to_owned()
            }
            (_, Some(files)) => {
                let mut key = KeyInputs::new("bind", "");
                files.layers.iter().for_each(|layer| key.add("layer", layer.as_str()));
                key.add("path", files.path.to_string_lossy());
                key.digest().hex().to_owned()
            }
            _ => String::new(),
        };
        Ok(StepMount { target: Path::new("/").join(target), mount, source, identity })
    }

    /// Files as a part of layers. Those of the context become a layer, which is made once for each content.
    fn files(&mut self, from: &str, wanted: &str) -> Result<Files, Fault> {
        let solver = self.solver;
        if from.is_empty() {
            return self.context_files(&solver.context.source, wanted);
        }
        let from = solver.origin(self.index, from, false)?;
        let source = solver.open(&from)?;
        let Some(layers) = from.layers().map(<[_]>::to_vec) else {
            return self.context_files(&source, wanted);
        };
        let path = source.root.resolve(Path::new(wanted)).at("resolve", wanted)?;
        if source.root.meta(&path).at("look at", wanted)?.is_none() {
            return Err(Fault::said(format!("\"/{}\": not found in {}", path.display(), source.name)));
        }
        Ok(Files { layers, path })
    }

    fn context_files(&mut self, source: &crate::source::Source, wanted: &str) -> Result<Files, Fault> {
        let selections = source.select(wanted, &ignore::Matcher::default())?;
        let file = selections.iter().find(|selection| !selection.is_dir());
        let path = file.map(|selection| PathBuf::from(&selection.name)).unwrap_or_default();
        Ok(Files { layers: vec![self.layer_of(source, wanted)?], path })
    }

    /// Mounts files; what the step writes there goes nowhere.
    fn mount_files(
        &self,
        files: &Files,
        readonly: bool,
        own: &Path,
        target: &str,
        held: &mut Vec<Held>,
    ) -> Result<oci::Mount, Fault> {
        let store = &self.solver.shared.store;
        let key = format!("mount-{}", fresh_id());
        let snapshot = store.snapshots().create(&key, &files.layers)?;
        held.push(Held::Snapshot(Scratch { store: store.clone(), key }));
        match part(&snapshot.lower, &files.path).at("look for", &files.path)? {
            Part::File(path) if readonly => bind(&path, target, true),
            Part::File(path) => {
                fs::copy(&path, own).at("copy", &path)?;
                bind(own, target, false)
            }
            Part::Directories(lower) => overlay(&snapshot, &lower, readonly, target),
        }
    }

    /// Copies files into a directory.
    fn fill(&self, files: &Files, dir: &Path) -> Result<(), Fault> {
        let mount = self.solver.shared.store.snapshots().mount_ro(&files.layers)?;
        let name = "the first contents of a cache".to_owned();
        let source = crate::source::Source::new(RootDir::new(mount), ignore::Matcher::default(), true, name);
        let root = RootDir::open_host(dir).at("open", dir)?;
        let changes = Changes::default();
        let copier = Copier::new(&root, &changes, &self.solver.stop);
        let selections = source.select(&files.path.to_string_lossy(), &ignore::Matcher::default())?;
        selections.iter().try_for_each(|selection| copier.copy(&source, selection, "/"))
    }
}

/// Makes everything ready below `dir`.
pub(crate) fn prepare(run: &StageRun<'_>, dir: &Path, mounts: &[StepMount]) -> Result<Prepared, Fault> {
    let mut prepared = Prepared { mounts: Vec::new(), env: Vec::new(), held: Vec::new() };
    for (i, step) in mounts.iter().enumerate() {
        let mount = &step.mount;
        let own = dir.join(format!("mount-{i}"));
        let target = step.target.display().to_string();
        match mount.kind {
            MountType::Bind => {
                let files = step.source.as_ref().expect("a bind has its source resolved");
                let mounted = run.mount_files(files, mount.readonly, &own, &target, &mut prepared.held)?;
                prepared.mounts.push(mounted);
            }
            MountType::Cache => {
                let (path, lock) = cache_dir(run, step)?;
                if let Some(name) = path.file_name() {
                    run.solver.note_mount(&name.to_string_lossy());
                }
                prepared.held.extend(lock.map(Held::Lock));
                prepared.mounts.push(bind(&path, &target, mount.readonly)?);
            }
            MountType::Tmpfs => prepared.mounts.push(tmpfs(&target, mount.size)?),
            MountType::Secret => secret(run, step, &own, &target, &mut prepared)?,
            MountType::Ssh => ssh(run, step, dir, i, &mut prepared)?,
        }
    }
    Ok(prepared)
}

/// An overlay of layers with an upper directory for what nobody keeps.
fn overlay(
    snapshot: &Snapshot,
    lower: &[PathBuf],
    readonly: bool,
    target: &str,
) -> Result<oci::Mount, Fault> {
    let mut options: Vec<String> = lower.iter().map(|dir| format!("lowerdir+={}", dir.display())).collect();
    options.push(format!("upperdir={}", snapshot.upper.display()));
    options.push(format!("workdir={}", snapshot.work.display()));
    options.extend(["nosuid".to_owned(), "nodev".into()]);
    options.extend(readonly.then(|| "ro".to_owned()));
    oci_mount("overlay", Path::new("overlay"), target, options)
}

/// The user's ssh agent, if there is one.
fn ssh(
    run: &StageRun<'_>,
    step: &StepMount,
    dir: &Path,
    number: usize,
    prepared: &mut Prepared,
) -> Result<(), Fault> {
    let mount = &step.mount;
    let id = if mount.id.is_empty() { "default" } else { &mount.id };
    let Some(agent) = run.solver.request.ssh.get(id) else {
        if mount.required {
            return Err(Fault::said(format!("ssh agent {id}: not found; give it with --ssh {id}")));
        }
        return Ok(());
    };
    let name = format!("ssh-{number}");
    let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    let forward = Forward::start(dir, &name, agent, owner, mount.mode.unwrap_or(0o600), run.solver.handle)?;
    let target = step.target.display().to_string();
    prepared.mounts.push(bind(&dir.join(name), &target, true)?);
    if !prepared.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
        prepared.env.push(format!("SSH_AUTH_SOCK={target}"));
    }
    prepared.held.push(Held::Agent(forward));
    Ok(())
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
    run: &StageRun<'_>,
    step: &StepMount,
    own: &Path,
    target: &str,
    prepared: &mut Prepared,
) -> Result<(), Fault> {
    let mount = &step.mount;
    let from_target = || Path::new(target).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id =
        [&mount.id, &mount.source].into_iter().find(|id| !id.is_empty()).cloned().unwrap_or_else(from_target);
    let Some(value) = run.solver.request.secrets.get(&id) else {
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
fn cache_dir(run: &StageRun<'_>, step: &StepMount) -> Result<(PathBuf, Option<Flock<fs::File>>), Fault> {
    let caches = run.solver.shared.dirs.builds.join("mounts");
    fs::create_dir_all(&caches).at("create directory", &caches)?;
    let sharing = step.mount.sharing.unwrap_or(Sharing::Shared);
    for number in 0.. {
        let name = if number == 0 { step.identity.clone() } else { format!("{}-{number}", step.identity) };
        let lock_path = caches.join(format!("{name}.lock"));
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let file = file.at("open", &lock_path)?;
        let how = match sharing {
            Sharing::Shared => FlockArg::LockSharedNonblock,
            Sharing::Private | Sharing::Locked => FlockArg::LockExclusiveNonblock,
        };
        match lock(run, file, how, sharing != Sharing::Private)? {
            Some(lock) => {
                let dir = caches.join(&name);
                make_cache(run, step, &dir)?;
                // For people, and its time tells when the cache was used last.
                let id = if step.mount.id.is_empty() { &step.mount.target } else { &step.mount.id };
                fs::write(&lock_path, id).at("write", &lock_path)?;
                return Ok((dir, Some(lock)));
            }
            None => continue,
        }
    }
    unreachable!("the loop has no end")
}

/// Takes a lock; waits for it, unless the build is cancelled, if asked to.
fn lock(
    run: &StageRun<'_>,
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
                if run.solver.stop.is_cancelled() {
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
fn make_cache(run: &StageRun<'_>, step: &StepMount, dir: &Path) -> Result<(), Fault> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(dir);
    let fresh = context::scratch_dir(parent)?;
    if let Some(files) = &step.source {
        run.fill(files, fresh.path())?;
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
