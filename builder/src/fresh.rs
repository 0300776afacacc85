//! The second half of a copy: what goes to places where nothing was before. There nothing has to be looked at, so that
//! it may go past an overlay right into its upper directory (once the overlay's mount has ended), on all processors.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown, linkat};
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::copy::Changes;
use crate::fault::{At, Fault};
use crate::node::Maker;
use crate::parallel;
use crate::rootdir::RootDir;
use crate::source::{Entry, Source};

/// So many files of a directory are one piece of work.
const BATCH: usize = 64;

/// What is left to do of a copy.
pub(crate) struct Fresh<'a> {
    pub(crate) source: &'a Source,
    pub(crate) changes: &'a Changes,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) parts: Vec<Part<'a>>,
    /// Where a file with several names was copied to first.
    pub(crate) linked: HashMap<(u64, u64), PathBuf>,
}

/// A new file, or the contents of a new directory (which is there and comes first).
pub(crate) struct Part<'a> {
    /// What the targets of the entries are relative to; a plain path.
    pub(crate) dest: PathBuf,
    pub(crate) entries: &'a [Entry],
}

/// Files that lie in one directory and come from one.
struct Batch<'a> {
    dest: &'a Path,
    files: Vec<&'a Entry>,
}

impl<'a> Fresh<'a> {
    /// Does it, below the root or another view of the same tree.
    pub(crate) fn fill(mut self, root: &RootDir) -> Result<(), Fault> {
        let parts = std::mem::take(&mut self.parts);
        let (mut batches, mut links) = (Vec::new(), Vec::new());
        for part in &parts {
            self.directories(part, root)?;
            self.split(part, &mut batches, &mut links);
        }
        self.files(&batches, root)?;
        for (first, target) in links {
            link(root, &first, &target).at("link", &target)?;
        }
        // Only now: writing into a directory changes its time.
        for part in &parts {
            for entry in part.entries.iter().filter(|entry| entry.meta.is_dir()) {
                let path = part.dest.join(&entry.to);
                root.set_mtime(&path, entry.meta.mtime).at("set time of", &path)?;
            }
        }
        Ok(())
    }

    fn directories(&self, part: &Part<'_>, root: &RootDir) -> Result<(), Fault> {
        for entry in part.entries.iter().skip(1).filter(|entry| entry.meta.is_dir()) {
            let path = part.dest.join(&entry.to);
            let (parent, name) = root.parent(&path).at("open", &path)?;
            mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o700)).at("create", &path)?;
            let made = root.open_dir(&path).at("open", &path)?;
            let (uid, gid) = self.changes.owner_of(&entry.meta, self.source.keeps_owner);
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).at("set owner of", &path)?;
            let mode = Mode::from_bits_truncate(self.changes.mode_of(entry.meta.mode, true));
            fchmod(&made, mode).at("set mode of", &path)?;
        }
        Ok(())
    }

    /// Sorts the files of a part into batches, and those that are further names of others.
    fn split<'p>(
        &mut self,
        part: &'p Part<'_>,
        batches: &mut Vec<Batch<'p>>,
        links: &mut Vec<(PathBuf, PathBuf)>,
    ) {
        let first = batches.len();
        for entry in part.entries.iter().filter(|entry| !entry.meta.is_dir()) {
            if entry.meta.links > 1 {
                let target = part.dest.join(&entry.to);
                if let Some(first) = self.linked.get(&entry.meta.identity) {
                    links.push((first.clone(), target));
                    continue;
                }
                self.linked.insert(entry.meta.identity, target);
            }
            match batches[first..].last_mut() {
                Some(batch)
                    if batch.files.len() < BATCH && batch.files[0].to.parent() == entry.to.parent() =>
                {
                    batch.files.push(entry);
                }
                _ => batches.push(Batch { dest: &part.dest, files: vec![entry] }),
            }
        }
    }

    fn files(&self, batches: &[Batch<'_>], root: &RootDir) -> Result<(), Fault> {
        let maker = || Maker::new(self.source, self.changes);
        parallel::map(batches, 1, maker, |maker, batch| {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
            self.batch(batch, root, maker)
        })
        .map(drop)
    }

    fn batch(&self, batch: &Batch<'_>, root: &RootDir, maker: &mut Maker<'_>) -> Result<(), Fault> {
        let Some(one) = batch.files.first() else { return Ok(()) };
        let target = batch.dest.join(&one.to);
        let from = self.source.root.parent(&one.from).at("open", &one.from)?.0;
        let to = root.parent(&target).at("open", &target)?.0;
        for entry in &batch.files {
            let target = batch.dest.join(&entry.to);
            let name = |path: &'_ Path| path.file_name().unwrap_or_default().to_owned();
            let (old, new) = (name(&entry.from), name(&target));
            let (old, new): (&OsStr, &OsStr) = (&old, &new);
            maker.file(entry, (&from, old), (&to, new), &target)?;
        }
        Ok(())
    }
}

/// Gives a file a further name.
pub(crate) fn link(root: &RootDir, first: &Path, target: &Path) -> io::Result<()> {
    let (from_dir, from) = root.parent(first)?;
    let (dir, name) = root.parent(target)?;
    Ok(linkat(&from_dir, from.as_os_str(), &dir, name.as_os_str(), AtFlags::empty())?)
}
