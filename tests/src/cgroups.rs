//! Parent groups of other engines' containers: a name for each instance, so that they can be taken away.

use std::path::{Path, PathBuf};

/// The parent group of the engine that lives in `dir`, as engines take it on their command lines.
///
/// # Panics
/// If `dir` is `/`.
#[must_use]
pub fn parent_of(dir: &Path) -> String {
    let name = dir.file_name().expect("a directory with a name");
    format!("/{}", name.to_string_lossy().trim_start_matches('.'))
}

/// Removes the group and all below it from every hierarchy. One with processes stays, and the leak check finds it.
pub fn remove(parent: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        remove_tree(&hierarchy.join(parent.trim_start_matches('/')));
    }
}

fn remove_tree(group: &PathBuf) {
    for child in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
    std::fs::remove_dir(group).ok();
}
