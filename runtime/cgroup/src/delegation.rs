//! Handing a cgroup of version 2 to a user.

use crate::CgroupError;
use crate::dir::Dir;

/// The kernel's list of files that are handed over, one a line.
const LIST: &str = "/sys/kernel/cgroup/delegate";
/// What the list holds at least (kernels before 4.15 have none).
const FIRST: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Changes the owner of the directory and of the files that belong to its user.
pub(crate) fn hand_over(dir: &Dir, uid: u32) -> Result<(), CgroupError> {
    let list = match std::fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => FIRST.to_owned(),
        Err(error) => return Err(CgroupError::io("read", LIST, error)),
    };
    dir.chown(".", uid)?;
    for name in list.lines() {
        match dir.chown(name, uid) {
            // memory.reclaim and the like exist only where their controller does.
            Err(error) if error.is_not_found() => {}
            other => other?,
        }
    }
    Ok(())
}
