//! The clock that the kernel takes the times of files from. It stands still for some milliseconds at a time.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// The time that a file gets which is written now, or an earlier one of the same tick.
pub(crate) fn now() -> io::Result<Timestamp> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?;
    timestamp(now).ok_or_else(|| io::Error::other("the clock shows no time that a file can have"))
}

/// Waits until what is made from now on is newer than everything that already has one of these times: what a step
/// makes is told from what it copies by its time. Times that are yet to come are not waited for.
pub(crate) fn wait_until_past(times: impl Iterator<Item = TimeSpec>) -> io::Result<()> {
    let present = Timestamp::now();
    let Some(newest) = times.filter_map(timestamp).filter(|time| *time <= present).max() else {
        return Ok(());
    };
    while now()? <= newest {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn timestamp(time: TimeSpec) -> Option<Timestamp> {
    Timestamp::new(time.tv_sec(), i32::try_from(time.tv_nsec()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_written_afterwards_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let time = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let stat = nix::sys::stat::stat(&path).unwrap();
            TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
        };
        for _ in 0..20 {
            let before = time("before");
            let to_come = TimeSpec::new(before.tv_sec() + 3600, 0);
            wait_until_past([before, to_come].into_iter()).unwrap();
            assert!(timestamp(before).unwrap() < now().unwrap());
            assert!(time("after") > before);
        }
    }
}
