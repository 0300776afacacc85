//! Lexical checks of paths. Symbolic links are the business of whoever opens them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::SpecError;

/// The path without `.`, `..` and double slashes, made absolute at `/`.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Refuses a path no system call can take.
pub(super) fn no_nul(field: &str, path: &Path) -> Result<(), SpecError> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(SpecError::new(field, "contains a NUL byte"));
    }
    Ok(())
}

/// Refuses a path that is empty or relative.
pub(super) fn absolute(field: &str, path: &Path) -> Result<(), SpecError> {
    no_nul(field, path)?;
    if !path.is_absolute() {
        return Err(SpecError::new(field, format!("{:?} is not an absolute path", path.display()))
            .hint("start it with /"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_never_leaves_the_root() {
        for (given, wanted) in
            [("/a/../../b", "/b"), ("a/./b//c", "/a/b/c"), ("/..", "/"), ("", "/"), ("/dev/", "/dev")]
        {
            assert_eq!(clean(Path::new(given)), Path::new(wanted), "{given}");
        }
    }
}
