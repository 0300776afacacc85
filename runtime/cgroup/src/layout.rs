//! Which hierarchies the host has.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use berth_spec::{CgroupHierarchy, CgroupMounts};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use crate::CgroupError;

/// Where the hierarchies are mounted by convention.
const ROOT: &str = "/sys/fs/cgroup";

/// Mount options of a version 1 hierarchy that are no controllers (cgroups(7)).
const NO_CONTROLLER: [&str; 9] =
    ["rw", "ro", "none", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods", "all"];

/// The host's cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One cgroup2 hierarchy with the controllers.
    V2 {
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// Version 1 only.
    V1 {
        /// The hierarchies in mount order.
        hierarchies: Vec<Hierarchy>,
    },
    /// Version 1 with the controllers, and a cgroup2 without any beside it.
    Hybrid {
        /// The hierarchies of version 1 in mount order.
        hierarchies: Vec<Hierarchy>,
        /// Where cgroup2 is mounted.
        unified: PathBuf,
    },
}

/// One hierarchy of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers; empty for a named one.
    pub controllers: Vec<String>,
    /// The name of a hierarchy without controllers (`systemd`).
    pub name: Option<String>,
}

impl Hierarchy {
    /// A container joins it: it has a controller, or it is where systemd keeps its services.
    pub(crate) fn takes_part(&self) -> bool {
        self.name.as_deref() == Some("systemd") || !self.controllers.is_empty()
    }
}

/// Finds the mounted hierarchies, once in the life of a process: where systemd and everybody else mount them, below
/// `/sys/fs/cgroup`; if they are not there, from `/proc/self/mountinfo`, a file that grows with every mount of the host.
///
/// # Errors
/// mountinfo cannot be read, or no cgroup file system is mounted.
pub fn detect() -> Result<Layout, CgroupError> {
    static FOUND: OnceLock<Layout> = OnceLock::new();
    if let Some(layout) = FOUND.get() {
        return Ok(layout.clone());
    }
    let layout = match conventional(Path::new(ROOT)) {
        Some(layout) => layout,
        None => from_mountinfo()?,
    };
    Ok(FOUND.get_or_init(|| layout).clone())
}

/// The layout, if every hierarchy that the kernel has is mounted at its usual place.
fn conventional(root: &Path) -> Option<Layout> {
    let is = |path: &Path, magic| statfs(path).is_ok_and(|found| found.filesystem_type() == magic);
    if is(root, CGROUP2_SUPER_MAGIC) {
        return Some(Layout::V2 { mount: root.to_owned() });
    }
    let hierarchies = listed(&berth_sys::procfs::read_text("/proc/self/cgroup").ok()?, root)?;
    if hierarchies.is_empty() || !hierarchies.iter().all(|known| is(&known.mount, CGROUP_SUPER_MAGIC)) {
        return None;
    }
    let unified = root.join("unified");
    Some(match is(&unified, CGROUP2_SUPER_MAGIC) {
        true => Layout::Hybrid { hierarchies, unified },
        false => Layout::V1 { hierarchies },
    })
}

/// cgroups(7), "/proc/[pid]/cgroup": `hierarchy-ID:controllers:path`, the newest first; version 2 has the id 0.
fn listed(cgroups: &str, root: &Path) -> Option<Vec<Hierarchy>> {
    let mut hierarchies = Vec::new();
    for line in cgroups.lines().rev() {
        let (id, rest) = line.split_once(':')?;
        let (names, _path) = rest.split_once(':')?;
        if id == "0" {
            continue;
        }
        hierarchies.push(match names.strip_prefix("name=") {
            Some(name) => {
                Hierarchy { mount: root.join(name), controllers: Vec::new(), name: Some(name.to_owned()) }
            }
            None => Hierarchy {
                mount: root.join(names),
                controllers: names.split(',').map(str::to_owned).collect(),
                name: None,
            },
        });
    }
    Some(hierarchies)
}

fn from_mountinfo() -> Result<Layout, CgroupError> {
    let path = "/proc/self/mountinfo";
    let text = berth_sys::procfs::read_text(path).map_err(|error| CgroupError::io("read", path, error))?;
    parse(&text).ok_or(CgroupError::NotMounted)
}

/// proc_pid_mountinfo(5): `… mountpoint options [tags…] - fstype source superoptions`
fn parse(mountinfo: &str) -> Option<Layout> {
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let (left, right) = line.split_once(" - ")?;
        let mount = || left.split(' ').nth(4).map(|path| PathBuf::from(unescape(path)));
        let mut right = right.split(' ');
        match right.next()? {
            "cgroup2" => unified = unified.or(mount()),
            "cgroup" => {
                let mut hierarchy = Hierarchy { mount: mount()?, controllers: Vec::new(), name: None };
                for option in right.nth(1).unwrap_or_default().split(',') {
                    if let Some(name) = option.strip_prefix("name=") {
                        hierarchy.name = Some(name.to_owned());
                    } else if !NO_CONTROLLER.contains(&option) && !option.contains('=') {
                        hierarchy.controllers.push(option.to_owned());
                    }
                }
                let again = |known: &Hierarchy| {
                    known.controllers == hierarchy.controllers && known.name == hierarchy.name
                };
                if !hierarchies.iter().any(again) {
                    hierarchies.push(hierarchy);
                }
            }
            _ => {}
        }
    }
    let controllers = hierarchies.iter().any(|hierarchy| !hierarchy.controllers.is_empty());
    match (controllers, unified) {
        (false, Some(mount)) => Some(Layout::V2 { mount }),
        (true, Some(unified)) => Some(Layout::Hybrid { hierarchies, unified }),
        (_, None) if !hierarchies.is_empty() => Some(Layout::V1 { hierarchies }),
        (_, None) => None,
    }
}

/// Space, tab, newline and backslash come as three octal digits.
fn unescape(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        result.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                result.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                result.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    result + rest
}

impl Layout {
    /// The version the kernel's controllers are driven by: 2, or 1 (a hybrid host counts as 1).
    #[must_use]
    pub fn version(&self) -> u8 {
        match self {
            Self::V2 { .. } => 2,
            Self::V1 { .. } | Self::Hybrid { .. } => 1,
        }
    }

    /// The hierarchies of version 1 a container takes part in.
    pub(crate) fn taking_part(&self) -> impl Iterator<Item = &Hierarchy> {
        let all = match self {
            Self::V2 { .. } => &[][..],
            Self::V1 { hierarchies } | Self::Hybrid { hierarchies, .. } => hierarchies,
        };
        all.iter().filter(|hierarchy| hierarchy.takes_part())
    }

    /// Where the cgroup2 hierarchy is mounted, with or without controllers.
    #[must_use]
    pub(crate) fn unified(&self) -> Option<&Path> {
        match self {
            Self::V2 { mount } | Self::Hybrid { unified: mount, .. } => Some(mount),
            Self::V1 { .. } => None,
        }
    }

    /// The same for the plan compiler's mounts of type `cgroup`.
    #[must_use]
    pub fn mounts(&self) -> CgroupMounts {
        if let Self::V2 { mount } = self {
            return CgroupMounts::V2 { mountpoint: mount.clone() };
        }
        let hierarchies = self
            .taking_part()
            .map(|hierarchy| CgroupHierarchy {
                name: hierarchy
                    .mount
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                data: match &hierarchy.name {
                    Some(name) => format!("none,name={name}"),
                    None => hierarchy.controllers.join(","),
                },
                mountpoint: hierarchy.mount.clone(),
            })
            .collect();
        CgroupMounts::V1 { hierarchies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 1 0:26 / /sys/fs/cgroup rw - tmpfs none rw
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls
35 30 0:28 / /mnt/a\\040b rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn hybrid_host() {
        let layout = parse(HYBRID).unwrap();
        assert_eq!(layout.version(), 1);
        let Layout::Hybrid { hierarchies, unified } = &layout else { panic!("{layout:?}") };
        assert_eq!(unified, &PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(hierarchies.len(), 3, "the second mount of cpu,cpuacct is the first one again");
        let CgroupMounts::V1 { hierarchies } = layout.mounts() else { panic!() };
        let shown: Vec<_> = hierarchies.iter().map(|h| (h.name.as_str(), h.data.as_str())).collect();
        let expected =
            [("cpu,cpuacct", "cpu,cpuacct"), ("systemd", "none,name=systemd"), ("net_cls", "net_cls")];
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_usual_places() {
        let text = "12:name=systemd:/a\n3:cpu,cpuacct:/x:y\n1:net_cls:/\n0::/init.scope\n";
        let found = listed(text, Path::new("/c")).unwrap();
        let mounts: Vec<_> = found.iter().map(|known| known.mount.to_str().unwrap()).collect();
        assert_eq!(mounts, ["/c/net_cls", "/c/cpu,cpuacct", "/c/systemd"]);
        assert_eq!(found[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[2].name.as_deref(), Some("systemd"));
        assert!(listed("nonsense", Path::new("/c")).is_none());
        assert!(conventional(Path::new("/proc")).is_none(), "nothing is mounted there");
    }

    #[test]
    fn both_ways_agree() {
        let shown = |layout: Layout| {
            let mut mounts: Vec<PathBuf> = layout.taking_part().map(|known| known.mount.clone()).collect();
            mounts.sort();
            (layout.version(), mounts, layout.unified().map(Path::to_owned))
        };
        if let Some(layout) = conventional(Path::new(ROOT)) {
            assert_eq!(shown(layout), shown(from_mountinfo().unwrap()));
        }
    }

    #[test]
    fn pure_hosts() {
        assert_eq!(
            parse("1 1 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"),
            Some(Layout::V2 { mount: "/sys/fs/cgroup".into() })
        );
        assert_eq!(parse("1 1 0:2 / /proc rw - proc proc rw"), None);
        assert_eq!(unescape("/a\\040b\\x"), "/a b\\x");
    }

    #[test]
    fn this_host() {
        detect().unwrap();
    }
}
