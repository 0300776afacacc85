//! Shares of caches and memory bandwidth: groups of the file system resctrl (Documentation/filesystems/resctrl.rst of
//! Linux), which config-linux.md calls `intelRdt`. Processors of AMD and Arm have it too.
//!
//! ```text
//!  <mount>/                 the default class of service
//!    info/L3, info/MB       what can be shared out; info/last_cmd_status says why the last write was refused
//!    <class>/schemata       the shares: "L3:0=7f0;1=1f"
//!    <class>/tasks          who has them; a fork goes where its parent is
//!    <class>/mon_groups/<id>/{tasks,mon_data}    a container's own counters
//! ```

mod group;
mod schemata;
mod stats;

use std::io;
use std::path::{Path, PathBuf};

use berth_spec::RdtPlan;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::CgroupError;
use crate::dir::Dir;

pub use group::{Group, Place};
pub use stats::{BandwidthUse, CacheInfo, CacheUse, MemoryBandwidthInfo, RdtStats};

/// Where it is mounted by convention.
const USUAL: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` of linux/magic.h.
const MAGIC: FsType = FsType(0x765_5821);
const MONITORS: &str = "mon_groups";

/// The mounted file system.
#[derive(Debug)]
pub struct Resctrl {
    root: Dir,
}

impl Resctrl {
    /// The one that is mounted here.
    ///
    /// # Errors
    /// [`CgroupError::NoResctrl`] if none is.
    pub fn find() -> Result<Self, CgroupError> {
        let found = match Self::mounted(Path::new(USUAL)) {
            Some(found) => Some(found),
            None => mountpoint()?.and_then(|path| Self::mounted(&path)),
        };
        found.ok_or(CgroupError::NoResctrl)
    }

    fn mounted(path: &Path) -> Option<Self> {
        let found = Self::at(path).ok()?;
        let kind = fstatfs(found.root.fd()).ok()?.filesystem_type();
        (kind == MAGIC).then_some(found)
    }

    /// The one at this directory, which is taken for one unseen.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn at(path: &Path) -> Result<Self, CgroupError> {
        Ok(Self { root: Dir::open(path, Vec::new())? })
    }

    /// True if it shares this out: `L3`, `MB`.
    ///
    /// # Errors
    /// Other than that it does not.
    pub fn shares(&self, resource: &str) -> Result<bool, CgroupError> {
        match self.root.child(&format!("info/{resource}")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where a container's group will be.
    #[must_use]
    pub fn place(&self, id: &str, clos: Option<&str>, monitoring: bool) -> Place {
        let class = match clos {
            Some("/") => None,
            Some(name) => Some(name.to_owned()),
            None => Some(id.to_owned()),
        };
        let made = clos.is_none() && class.as_deref().is_some_and(|name| self.root.child(name).is_err());
        Place { mount: self.root.path.clone(), class, made, monitor: monitoring.then(|| id.to_owned()) }
    }

    /// Makes or joins the group that a container asks for and sets its shares, without a process as yet. What a failure
    /// has made is taken away again.
    ///
    /// # Errors
    /// The machine does not share out what is asked for; a class that is there has other shares, or one that should be
    /// there is not; what the kernel says.
    pub fn join(self, id: &str, plan: &RdtPlan) -> Result<Group, CgroupError> {
        self.check(plan)?;
        let mut place = self.place(id, plan.clos.as_deref(), plan.monitoring);
        let joins = plan.clos.is_some() && plan.lines().next().is_none();
        let made = match place.class.as_deref() {
            Some(name) if !joins => self.make(&self.root, name)?,
            _ => false,
        };
        place.made = made && plan.clos.is_none();
        let directory = match self.directory(&place) {
            Err(error) if error.is_not_found() && joins => {
                let path = place.class.iter().fold(self.root.path.clone(), |path, name| path.join(name));
                return Err(CgroupError::NoClass { path });
            }
            other => other?,
        };
        let mut group = Group { resctrl: self, directory, monitor: None, place, made };
        match group.settle(plan, made) {
            Ok(()) => Ok(group),
            Err(error) => {
                // There is a failure to tell already.
                group.undo().ok();
                Err(error)
            }
        }
    }

    /// A container's group; `None` if it is gone.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(place: &Place) -> Result<Option<Group>, CgroupError> {
        let opened = Self::at(&place.mount).and_then(|resctrl| {
            let directory = resctrl.directory(place)?;
            let monitor = match &place.monitor {
                Some(id) => Some(directory.child(MONITORS)?.child(id)?),
                None => None,
            };
            Ok(Group { resctrl, directory, monitor, place: place.clone(), made: place.made })
        });
        match opened {
            Ok(group) => Ok(Some(group)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check(&self, plan: &RdtPlan) -> Result<(), CgroupError> {
        let asked = [
            ("l3CacheSchema", "L3", !plan.cache.is_empty()),
            ("memBwSchema", "MB", plan.bandwidth.is_some()),
        ];
        for (field, resource, asked) in asked {
            if asked && !self.shares(resource)? {
                return Err(CgroupError::invalid(
                    format!("linux.intelRdt.{field}"),
                    format!(
                        "this machine cannot share out {resource} (there is no {}/info/{resource})",
                        self.root.path.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn directory(&self, place: &Place) -> Result<Dir, CgroupError> {
        self.root.child(place.class.as_deref().unwrap_or("."))
    }

    /// True if it is new.
    fn make(&self, parent: &Dir, name: &str) -> Result<bool, CgroupError> {
        match mkdirat(parent.fd(), name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(self.refused("create", parent.path.join(name), errno)),
        }
    }

    fn refused(&self, operation: &'static str, path: PathBuf, error: impl Into<io::Error>) -> CgroupError {
        let source: io::Error = error.into();
        // Older lines may be about other commands.
        let status = self.root.read("info/last_cmd_status").ok();
        let status = status.and_then(|text| text.lines().last().map(str::to_owned));
        let hint = match (operation, source.raw_os_error().map(Errno::from_raw)) {
            ("create", Some(Errno::ENOSPC)) => Some(
                "the processor has no more of them: remove a group, or share one by linux.intelRdt.closID",
            ),
            _ => None,
        };
        let status = status.filter(|text| !text.is_empty() && text != "ok");
        CgroupError::Resctrl { operation, path, source, status, hint }
    }
}

fn remove(parent: &Dir, name: &str) -> Result<(), CgroupError> {
    match unlinkat(parent.fd(), name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(CgroupError::io("remove", parent.path.join(name), errno)),
    }
}

/// From the list of mounts, for whoever has mounted it elsewhere.
fn mountpoint() -> Result<Option<PathBuf>, CgroupError> {
    let path = "/proc/self/mountinfo";
    let text = berth_sys::procfs::read_text(path).map_err(|error| CgroupError::io("read", path, error))?;
    Ok(text.lines().find_map(mountpoint_of))
}

/// Field 5 of a line of proc_pid_mountinfo(5) whose file system is resctrl.
fn mountpoint_of(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let of_kind = kind.split(' ').next() == Some("resctrl");
    let path = mount.split(' ').nth(4)?;
    of_kind.then(|| path.replace("\\040", " ").into())
}

const WRITE: OFlag = OFlag::O_WRONLY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_wherever_it_is_mounted() {
        let line = "40 29 0:35 / /mnt/my\\040rdt rw,relatime shared:9 - resctrl resctrl rw,mba_MBps";
        assert_eq!(mountpoint_of(line), Some("/mnt/my rdt".into()));
        assert_eq!(mountpoint_of("29 1 0:26 / /resctrl rw - tmpfs resctrl rw"), None);
    }
}
