//! The directories of a cgroup: making and removing them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::dir::{Dir, descendants, make as make_directory};
use crate::plan::{directories, relative};
use crate::{CgroupError, Layout};

/// Waits between attempts to remove a cgroup that is still busy: dying processes leave it a moment later. About 1.3 s.
const REMOVE_WAITS_MS: [u64; 9] = [1, 2, 5, 10, 25, 50, 200, 400, 600];

/// Makes the directories of the cgroup `path` where they are not there yet, and lists the new ones in `made`.
pub(crate) fn make(layout: &Layout, path: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match layout {
        Layout::V2 { mount } => make_v2(mount, &relative(path), made),
        Layout::V1 { .. } | Layout::Hybrid { .. } => {
            for hierarchy in layout.taking_part() {
                let cpuset = hierarchy.controllers.iter().any(|own| own == "cpuset");
                make_v1(&hierarchy.mount, &relative(path), cpuset, made)?;
            }
            layout.unified().map_or(Ok(()), |unified| make_v1(unified, &relative(path), false, made))
        }
    }
}

/// Removes the cgroup `path` where it is empty: the parent all containers of an engine shared, once the last is gone.
/// One that still has processes or children stays. True if it is gone from every hierarchy.
///
/// # Errors
/// A directory cannot be removed for another reason than its being in use.
pub fn prune(layout: &Layout, path: &Path) -> Result<bool, CgroupError> {
    let mut gone = true;
    for directory in directories(layout, path) {
        match std::fs::remove_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => gone = false,
            Err(error) => return Err(CgroupError::io("remove", directory, error)),
        }
    }
    Ok(gone)
}

/// Takes away what [`make`] has made.
pub(crate) fn unmake(made: &[PathBuf]) {
    for dir in made.iter().rev() {
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %dir.display(), %error, "cannot remove a half made cgroup");
            }
            _ => {}
        }
    }
}

/// Removes a directory and those below it, retrying while the kernel still answers EBUSY.
pub(crate) fn remove(path: &Path) -> Result<(), CgroupError> {
    let mut waits = REMOVE_WAITS_MS.iter();
    loop {
        match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let busy = error.raw_os_error() == Some(nix::libc::EBUSY);
                // Children made inside by the container (it may own a subtree) also make it busy.
                for child in descendants(path).iter().rev() {
                    if let Err(error) = std::fs::remove_dir(child) {
                        tracing::debug!(path = %child.display(), %error, "child cgroup is still busy");
                    }
                }
                match waits.next() {
                    Some(wait) if busy => sleep(Duration::from_millis(*wait)),
                    _ => return Err(CgroupError::io("remove", path, error)),
                }
            }
        }
    }
}

/// Makes the directories of a path. Mostly only the last lacks.
fn make_v1(mount: &Path, path: &Path, cpuset: bool, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let whole = mount.join(path);
    let new = match make_directory(&whole) {
        Err(error) if error.is_not_found() => match path.parent() {
            Some(parent) => {
                make_v1(mount, parent, cpuset, made)?;
                make_directory(&whole)?
            }
            None => return Err(error),
        },
        other => other?,
    };
    if new {
        made.push(whole);
    }
    if cpuset { inherit_cpuset(mount, path, new) } else { Ok(()) }
}

/// A new cpuset of version 1 is empty and takes no process until it has processors and memory nodes.
fn inherit_cpuset(mount: &Path, path: &Path, new: bool) -> Result<(), CgroupError> {
    // The root of the hierarchy has all.
    let Some(parent) = path.parent() else { return Ok(()) };
    let (above, own) =
        (Dir::named(&mount.join(parent), Vec::new()), Dir::named(&mount.join(path), Vec::new()));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !new && !own.read(file)?.trim().is_empty() {
            continue;
        }
        let mut value = above.read(file)?;
        if value.trim().is_empty() {
            inherit_cpuset(mount, parent, false)?;
            value = above.read(file)?;
        }
        own.write(file, value.trim())?;
    }
    Ok(())
}

/// Makes the directories of a path, enabling every controller on the way down. No process is moved: an ancestor with
/// processes of its own keeps what it has enabled.
fn make_v2(mount: &Path, path: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut current = mount.to_owned();
    for component in path.components() {
        enable_controllers(&Dir::open(&current, Vec::new())?)?;
        current.push(component);
        if make_directory(&current)? {
            made.push(current.clone());
        }
    }
    Ok(())
}

fn enable_controllers(dir: &Dir) -> Result<(), CgroupError> {
    let (available, enabled) = (dir.read("cgroup.controllers")?, dir.read("cgroup.subtree_control")?);
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|controller| !enabled.split_whitespace().any(|enabled| enabled == *controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() || dir.write("cgroup.subtree_control", &missing.join(" ")).is_ok() {
        return Ok(());
    }
    // All or nothing failed: some controllers may be enabled alone. What stays off shows up as a missing file only if
    // a limit asks for it.
    for controller in missing {
        if let Err(error) = dir.write("cgroup.subtree_control", &controller) {
            tracing::debug!(%error, "controller not enabled");
        }
    }
    Ok(())
}
