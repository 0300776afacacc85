//! Freezing, killing and listing of processes.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::CgroupError;
use crate::dir::{Dir, descendants};
use crate::group::FreezerState;

/// How long a cgroup may take to stand still.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_micros(200);

/// Version 1: `freezer.state`. Version 2: `cgroup.freeze` and `cgroup.events`.
pub(crate) fn state(dir: &Dir, version: u8) -> Result<FreezerState, CgroupError> {
    if version == 1 {
        return Ok(match dir.read("freezer.state")?.trim() {
            "FROZEN" => FreezerState::Frozen,
            "FREEZING" => FreezerState::Freezing,
            _ => FreezerState::Thawed,
        });
    }
    let wanted = dir.read("cgroup.freeze")?.trim() == "1";
    let frozen = dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1");
    Ok(match (wanted, frozen) {
        (true, true) => FreezerState::Frozen,
        (true, false) => FreezerState::Freezing,
        (false, _) => FreezerState::Thawed,
    })
}

pub(crate) fn freeze(dir: &Dir, version: u8) -> Result<(), CgroupError> {
    let deadline = Instant::now() + FREEZE_PATIENCE;
    let (file, value) = if version == 1 { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
    dir.write(file, value)?;
    while state(dir, version)? != FreezerState::Frozen {
        if Instant::now() > deadline {
            // Half frozen is worse than running: give the processes back.
            thaw(dir, version)?;
            return Err(CgroupError::io("freeze (gave up after 2 s)", &dir.path, Errno::ETIMEDOUT));
        }
        sleep(POLL);
        // A process that forked while version 1 was freezing may have been missed: say it again.
        if version == 1 {
            dir.write(file, value)?;
        }
    }
    Ok(())
}

pub(crate) fn thaw(dir: &Dir, version: u8) -> Result<(), CgroupError> {
    if version == 1 { dir.write("freezer.state", "THAWED") } else { dir.write("cgroup.freeze", "0") }
}

/// Version 2 since Linux 5.14 has `cgroup.kill`; otherwise freeze, signal, thaw, so that no fork escapes.
pub(crate) fn kill_all(dir: &Dir, version: u8, freezer: Option<&Dir>) -> Result<(), CgroupError> {
    if version == 2 {
        match dir.write("cgroup.kill", "1") {
            Err(error) if error.is_not_found() => {}
            other => return other,
        }
    }
    if pids(&dir.path)?.is_empty() {
        return Ok(());
    }
    let frozen = freezer.map(|freezer| freeze(freezer, version));
    let signalled = signal(&dir.path);
    if let (Some(freezer), Some(Ok(()))) = (freezer, &frozen) {
        thaw(freezer, version)?;
    }
    signalled
}

fn signal(path: &Path) -> Result<(), CgroupError> {
    for pid in pids(path)? {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(CgroupError::io("kill the processes of", path, errno)),
        }
    }
    Ok(())
}

/// Processes of the cgroup and of all below it.
pub(crate) fn pids(path: &Path) -> Result<Vec<i32>, CgroupError> {
    let mut pids = Vec::new();
    for dir in std::iter::once(path.to_owned()).chain(descendants(path)) {
        let file = dir.join("cgroup.procs");
        match std::fs::read_to_string(&file) {
            // 0 is a process of a pid namespace out of sight; it cannot be named, let alone signalled.
            Ok(text) => {
                pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0))
            }
            Err(error) => {
                let error = CgroupError::io("read", &file, error);
                if !error.is_not_found() && !error.is_unsupported() {
                    return Err(error);
                }
            }
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}
