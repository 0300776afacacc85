//! Who makes containers' cgroups, and where they are.

use std::path::{Path, PathBuf};

use crate::error::{EngineError, Result};

/// The prefix of the scopes' names.
const PREFIX: &str = "berth";

/// Who makes the cgroups of containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Berth itself, as directories of the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, as scopes below slices.
    Systemd,
}

impl CgroupDriver {
    /// Its name in Docker's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// The parent of containers that name none.
    pub(crate) fn default_parent(self) -> &'static str {
        match self {
            Self::Cgroupfs => "/berth",
            Self::Systemd => "system.slice",
        }
    }

    /// Whether this machine has it.
    pub(crate) fn check(self) -> Result<()> {
        // sd_booted(3)
        if self.is_systemd() && !Path::new("/run/systemd/system").is_dir() {
            return Err(EngineError::invalid(
                "the cgroup driver systemd needs systemd as process 1, and this machine was not booted with it: leave out \
                 native.cgroupdriver=systemd",
            ));
        }
        Ok(())
    }

    /// True if systemd is to be asked.
    pub(crate) fn is_systemd(self) -> bool {
        self == Self::Systemd
    }

    /// Whether a parent is one for this driver.
    pub(crate) fn check_parent(self, parent: &str) -> Result<()> {
        match self {
            Self::Cgroupfs => Ok(()),
            Self::Systemd => slice(parent).map(drop),
        }
    }

    /// `linux.cgroupsPath` of a container below this parent.
    pub(crate) fn path(self, parent: &str, id: &str) -> Result<PathBuf> {
        Ok(match self {
            Self::Cgroupfs => Path::new("/").join(slices(parent)).join(id),
            Self::Systemd => format!("{}:{PREFIX}:{id}", slice(parent)?).into(),
        })
    }
}

/// The slice that a parent names: its own name has those above it in it (systemd.slice(5)).
fn slice(parent: &str) -> Result<&str> {
    let name = parent.rsplit('/').next().unwrap_or_default();
    if name.len() <= ".slice".len() || !name.ends_with(".slice") {
        return Err(EngineError::invalid(format!(
            "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\", not {parent:?}"
        )));
    }
    Ok(name)
}

/// A parent as a path. A slice of systemd is in the slices that its name has before each dash (systemd.slice(5)).
fn slices(parent: &str) -> PathBuf {
    let Some(name) = parent.strip_suffix(".slice").filter(|name| !name.contains('/')) else {
        return parent.into();
    };
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter(|end| *end > 0).map(|end| format!("{}.slice", &name[..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_the_slices_of_its_name() {
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";
        assert_eq!(slices("kubepods-burstable-pod1_2.slice"), Path::new(path));
        assert_eq!(slices("/kubepods/burstable/pod1"), Path::new("/kubepods/burstable/pod1"));
        assert_eq!(slices("/a/b.slice"), Path::new("/a/b.slice"));
    }

    #[test]
    fn systemd_is_given_a_slice_and_a_name() {
        let path = |parent: &str| CgroupDriver::Systemd.path(parent, "c1").ok();
        assert_eq!(path("kubepods-pod1.slice"), Some("kubepods-pod1.slice:berth:c1".into()));
        assert_eq!(path("/kubepods.slice/kubepods-pod1.slice"), Some("kubepods-pod1.slice:berth:c1".into()));
        for wrong in ["", "/berth", ".slice", "/a.slice/b"] {
            let error = CgroupDriver::Systemd.path(wrong, "c1").unwrap_err().to_string();
            assert!(error.contains("xxx.slice"), "{error}");
        }
        assert_eq!(CgroupDriver::Cgroupfs.path("/berth", "c1").unwrap(), Path::new("/berth/c1"));
    }
}
