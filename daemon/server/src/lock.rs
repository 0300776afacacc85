//! One daemon per root: locks that the kernel releases whatever happens, and the file with the process id.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Locks of root and run root; the process id's file goes with them.
#[derive(Debug)]
pub(crate) struct Locks {
    _root: Flock<File>,
    _run_root: Flock<File>,
    pidfile: PathBuf,
}

impl Locks {
    /// Makes the directories, locks them, and writes the process id.
    pub(crate) fn take(root: &Path, run_root: &Path, pidfile: &Path) -> anyhow::Result<Self> {
        // Under root lie other users' files with their own modes: nobody else may pass. In the run root lies the
        // socket that a group may use.
        make_directory(root, 0o710)?;
        // Before the run root is made: who is refused leaves nothing there.
        let root = lock(&root.join("root.lock"))?;
        make_directory(run_root, 0o711)?;
        let run_root = lock(&run_root.join("berthd.lock"))?;
        let locks = Self { _root: root, _run_root: run_root, pidfile: pidfile.to_owned() };
        fs::write(pidfile, format!("{}\n", std::process::id()))
            .with_context(|| format!("writing {}", pidfile.display()))?;
        Ok(locks)
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.pidfile) {
            tracing::warn!(path = %self.pidfile.display(), %error, "removing the process id's file");
        }
    }
}

fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    // What mkdir(2) says of it, "File exists", tells nobody what to do.
    if let Some(other) = path.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
        bail!("making the directory {}: {} is no directory", path.display(), other.display());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| format!("making the directory {}", path.display()))
}

fn lock(path: &Path) -> anyhow::Result<Flock<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => bail!(
            "another berthd uses {}: end it, or give this one its own --root and --run-root",
            path.parent().unwrap_or(path).display()
        ),
        Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (root, run) = (dir.path().join("root"), dir.path().join("run"));
        let pidfile = run.join("berthd.pid");
        let first = Locks::take(&root, &run, &pidfile).unwrap();
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", std::process::id()));
        let error = Locks::take(&root, &dir.path().join("other"), &pidfile).unwrap_err().to_string();
        assert!(error.starts_with("another berthd uses"), "{error}");
        assert!(!dir.path().join("other").exists(), "who is refused leaves nothing");
        drop(first);
        assert!(!pidfile.exists());
        Locks::take(&root, &run, &pidfile).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_a_root_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for root in [file.clone(), file.join("below")] {
            let error = format!("{:#}", Locks::take(&root, dir.path(), &file).unwrap_err());
            assert!(error.ends_with(&format!("{} is no directory", file.display())), "{error}");
        }
    }
}
