//! Who the process is, and where it stands.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_spec::UserPlan;
use berth_sys::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{Gid, Uid, chdir, fchown, getcwd, setgroups, setresgid, setresuid};

use super::capabilities;
use super::root::{is_null, standard_streams};
use crate::error::{Context, FailureKind, Fault};

/// Becomes the user; keeps the permitted capabilities for the step that sets them.
pub(super) fn user(plan: &UserPlan) -> Result<(), Fault> {
    own_streams(plan);
    umask(Mode::from_bits_truncate(plan.umask));
    nix::sys::prctl::set_keepcaps(true).at(|| "keep capabilities".into())?;
    let groups: Vec<Gid> = plan.additional_gids.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&groups) {
        // In a user namespace without setgroups(2) there are no groups to drop.
        Err(Errno::EPERM) if groups.is_empty() => {}
        other => other.map_err(|errno| unknown("groups", &format!("{:?}", plan.additional_gids), errno))?,
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    setresgid(gid, gid, gid).map_err(|errno| unknown("group", &plan.gid.to_string(), errno))?;
    setresuid(uid, uid, uid).map_err(|errno| unknown("user", &plan.uid.to_string(), errno))?;
    nix::sys::prctl::set_keepcaps(false).at(|| "stop keeping capabilities".into())
}

/// An id that could not be taken.
fn unknown(kind: &str, id: &str, errno: Errno) -> Fault {
    let hint = match errno {
        Errno::EINVAL => Some(format!(
            "{kind} {id} is unknown in the container's user namespace: add it to linux.uidMappings and \
             linux.gidMappings, or choose a mapped one"
        )),
        Errno::EAGAIN => Some(format!("{kind} {id} has as many processes as RLIMIT_NPROC allows")),
        _ => None,
    };
    Fault::os(format!("become {kind} {id}"), errno).hint(hint)
}

/// The user may open its own streams again through /dev/stdout, as docker's users do. Streams that cannot be given
/// away (the host's files, a read-only file system) stay as they are.
fn own_streams(plan: &UserPlan) {
    for (_, stream) in standard_streams() {
        let Ok(stat) = fstat(stream) else { continue };
        if stat.st_uid != plan.uid && !is_null(&stat) {
            fchown(stream, Some(Uid::from_raw(plan.uid)), None).ok();
        }
    }
}

/// Enters the working directory, as the user, or by the capabilities that are not given up yet: images have a WORKDIR
/// that is closed to their USER, and runc and crun enter it.
pub(super) fn working_directory(path: &Path) -> Result<(), Fault> {
    let entered = match chdir(path) {
        Err(Errno::EACCES) => capabilities::with_permitted(|| chdir(path))?,
        other => other,
    };
    entered.map_err(|errno| {
        let kind = match errno {
            Errno::ENOENT => FailureKind::NotFound,
            Errno::EACCES => FailureKind::PermissionDenied,
            _ => FailureKind::Other,
        };
        let hint = match errno {
            Errno::EACCES => {
                Some("the container's user may not enter it: choose another process.cwd or user")
            }
            Errno::ENOTDIR => Some("a part of it is a file"),
            Errno::ENOENT => Some("it cannot be made, because the root file system is read-only"),
            _ => None,
        };
        let fault = Fault::os(format!("chdir to cwd ({path:?}) set in config.json failed"), errno);
        Fault { kind, ..fault }.hint(hint.map(str::to_owned))
    })?;
    // A descriptor of the host as working directory would lead out (runc CVE-2024-21626).
    let inside = match getcwd() {
        Ok(here) => here.is_absolute(),
        Err(Errno::ENOENT) => false,
        // The container's seccomp filter does not let us ask.
        Err(_) => climbs_to_the_root().at(|| format!("find out where {} is", path.display()))?,
    };
    if inside {
        return Ok(());
    }
    Err(Fault::new("current working directory is outside of container mount namespace root"))
}

/// Whether the way up from the working directory ends at `/`.
fn climbs_to_the_root() -> Result<bool, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let place = |directory: &OwnedFd| fstat(directory).map(|stat| (stat.st_dev, stat.st_ino));
    let root = place(&open("/", flags, Mode::empty())?)?;
    let mut here = open(".", flags, Mode::empty())?;
    loop {
        let parent = openat(&here, "..", flags, Mode::empty())?;
        if place(&parent)? == place(&here)? {
            return Ok(place(&here)? == root);
        }
        here = parent;
    }
}
