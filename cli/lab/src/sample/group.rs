//! Where the control group of a process is, on version 1, version 2 and machines that have both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directories of a process's control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Directories by controller (version 1).
    v1: BTreeMap<String, PathBuf>,
    /// The directory of the unified hierarchy (version 2).
    v2: Option<PathBuf>,
}

impl Group {
    /// The group of a process.
    ///
    /// # Errors
    /// If the process is not there, or no hierarchy is mounted.
    pub fn of(pid: i64) -> Result<Self, String> {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let group = Self::from_texts(&read(&format!("/proc/{pid}/cgroup"))?, &read("/proc/self/mountinfo")?);
        if group.v1.is_empty() && group.v2.is_none() {
            return Err("no control group hierarchy is mounted here".to_owned());
        }
        Ok(group)
    }

    /// From `/proc/PID/cgroup` (cgroups(7)) and `/proc/PID/mountinfo` (proc(5)).
    fn from_texts(membership: &str, mountinfo: &str) -> Self {
        let mut group = Self { v1: BTreeMap::new(), v2: None };
        for line in membership.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                group.v2 = mount(mountinfo, None).and_then(|mount| mount.directory(path));
                continue;
            }
            for controller in controllers.split(',') {
                let directory = mount(mountinfo, Some(controller)).and_then(|mount| mount.directory(path));
                group.v1.extend(directory.map(|directory| (controller.to_owned(), directory)));
            }
        }
        group
    }

    /// The directory of a version 1 controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.get(controller).map(PathBuf::as_path)
    }

    /// The directory of the unified hierarchy.
    pub(super) fn v2(&self) -> Option<&Path> {
        self.v2.as_deref()
    }
}

/// Where a hierarchy is mounted, and which of its groups is at the top there.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
}

impl Mount<'_> {
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" { path } else { path.strip_prefix(self.root)? };
        Some(Path::new(self.point).join(below.trim_start_matches('/')))
    }
}

/// The mount of a version 1 controller, or of version 2.
fn mount<'a>(mountinfo: &'a str, controller: Option<&str>) -> Option<Mount<'a>> {
    mountinfo.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let (kind, _, options) = (tail.next()?, tail.next()?, tail.next()?);
        let fits = match controller {
            None => kind == "cgroup2",
            Some(controller) => kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        let mut head = head.split(' ').skip(3);
        let (root, point) = (head.next()?, head.next()?);
        fits.then_some(Mount { root, point })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs cgroup rw
31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /outer /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn a_hybrid_machine() {
        let group = Group::from_texts("4:memory:/b/c\n3:cpu,cpuacct:/b/c\n2:pids:/outer/b\n0::/u\n", MOUNTS);
        let at = |controller| group.v1(controller).map(|path| path.display().to_string());
        assert_eq!(at("memory").as_deref(), Some("/sys/fs/cgroup/memory/b/c"));
        assert_eq!(at("cpuacct").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct/b/c"));
        assert_eq!(at("pids").as_deref(), Some("/sys/fs/cgroup/pids/b"));
        assert_eq!(at("blkio"), None);
        assert_eq!(group.v2(), Some(Path::new("/sys/fs/cgroup/unified/u")));
    }

    #[test]
    fn version_2() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let group = Group::from_texts("0::/berth/abc\n", mounts);
        assert_eq!((group.v1.len(), group.v2()), (0, Some(Path::new("/sys/fs/cgroup/berth/abc"))));
    }
}
