//! `--storage-opt size=10G`: how much a container may write into its own tree. A project quota on its upper and work
//! directories ([`berth_sys::quota`]) holds it to that; which project it is stands in the directories and nowhere else.

use std::fs::File;
use std::path::Path;
use std::sync::PoisonError;

use berth_store::Snapshot;
use berth_sys::{Errno, quota};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::logs::size;

/// Projects that people made themselves have smaller numbers.
const FIRST: u32 = 1 << 30;
/// So many numbers are tried.
const TRIES: u32 = 1024;

/// What `--storage-opt` asks for: bytes.
pub(crate) fn asked<'a>(options: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Option<u64>> {
    let mut asked = None;
    for (key, value) in options {
        if !key.eq_ignore_ascii_case("size") {
            return Err(EngineError::invalid(format!(
                "Unknown option {key}: --storage-opt knows size=BYTES"
            )));
        }
        let invalid = || EngineError::invalid(format!("invalid size: '{value}'"));
        asked = Some(size(value).ok_or_else(invalid)?).filter(|bytes| *bytes > 0);
    }
    Ok(asked)
}

/// Whether containers whose trees are below this directory can be bounded.
pub(crate) fn check(root: &Path) -> Result<()> {
    let place = File::open(root).map_err(|error| EngineError::io("open", root, error))?;
    match quota::is_enforced(&place) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(EngineError::invalid(format!(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or over ext4 with 'prjquota': \
             the file system of {} has no project quotas",
            root.display()
        ))),
    }
}

impl Engine {
    /// Bounds what a container writes into its tree, where nothing was written yet.
    pub(crate) fn bound(&self, snapshot: &Snapshot, bytes: u64) -> Result<()> {
        let failed = |errno: Errno| EngineError::io("bound the size of", &snapshot.upper, errno);
        let open = |path: &Path| File::open(path).map_err(|error| EngineError::io("open", path, error));
        let (upper, work) = (open(&snapshot.upper)?, open(&snapshot.work)?);
        // Looking for a number and taking it are one.
        let _one = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let project = free_project(&upper, &snapshot.key).map_err(failed)?;
        quota::set_limit(&upper, project, bytes).map_err(failed)?;
        // Both, for overlayfs moves files from one to the other, which does not go from project to project.
        [&upper, &work].into_iter().try_for_each(|place| quota::set_project(place, project)).map_err(failed)
    }

    /// Removes a container's tree; its project's number is free again.
    pub(crate) fn remove_snapshot(&self, id: &str) -> Result<()> {
        let snapshot = self.store.snapshots().get(id)?;
        let upper = snapshot.and_then(|snapshot| File::open(snapshot.upper).ok());
        self.store.snapshots().remove(id)?;
        if let Some(upper) = upper
            && let Ok(project @ FIRST..) = quota::project(&upper)
            && let Err(errno) = quota::set_limit(&upper, project, 0)
        {
            tracing::warn!(container = id, project, %errno, "taking the bound of a project away");
        }
        Ok(())
    }
}

/// A number that nobody uses, the same for the same key where it can be: engines that share a file system do not meet.
fn free_project(file: &File, key: &str) -> std::result::Result<u32, Errno> {
    // Ids are random.
    let start = key.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0) % FIRST;
    for step in 0..TRIES {
        let project = FIRST + (start + step) % FIRST;
        if quota::usage(file, project)? == quota::Usage::default() {
            return Ok(project);
        }
    }
    Err(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[(&str, &str)]) -> Result<Option<u64>> {
        let options: Vec<_> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        asked(options.iter().map(|(key, value)| (key, value)))
    }

    #[test]
    fn sizes_are_parsed_and_others_refused() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("size", "10G")]).unwrap(), Some(10 << 30));
        assert_eq!(of(&[("Size", "512k")]).unwrap(), Some(512 << 10));
        assert_eq!(of(&[("size", "0")]).unwrap(), None);
        assert_eq!(of(&[("size", "big")]).unwrap_err().message(), "invalid size: 'big'");
        assert!(
            of(&[("dm.basesize", "1G")]).unwrap_err().message().starts_with("Unknown option dm.basesize")
        );
    }

    #[test]
    fn a_file_system_without_quotas_is_told() {
        assert!(check(Path::new("/proc")).unwrap_err().message().contains("the file system of /proc"));
    }
}
