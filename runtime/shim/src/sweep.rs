//! `berth-shim sweep DIR`: cleans up after a shim that was killed.
//!
//! Init died with its shim by the parent-death signal (unless it has changed its user since, which clears that), and
//! its pid namespace with it. What can be left: processes of a container without a pid namespace, the cgroup, the
//! socket. Networks and layers are the engine's.

use std::{
    io,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use berth_cgroup::{Cgroup, detect};
use berth_shim_protocol::files;

use crate::record::{self, Leftovers};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Remove what is left of the container of this run directory.
pub(crate) fn sweep(dir: &Path) -> anyhow::Result<()> {
    if let Some(Leftovers { cgroup: path, unit }) = record::read(dir, files::STATE)? {
        let layout = detect()?;
        let cgroup = match &unit {
            Some(unit) => Cgroup::open_in_unit(&layout, unit)?,
            None => Cgroup::open(&layout, &path)?,
        };
        let until = Instant::now() + PATIENCE;
        while !cgroup.pids()?.is_empty() {
            cgroup.kill_all()?;
            if Instant::now() > until {
                let kind = io::ErrorKind::TimedOut;
                let error = io::Error::new(kind, "processes do not die; are they waiting for a device?");
                return Err(error).with_context(|| format!("emptying the cgroup {}", path.display()));
            }
            sleep(Duration::from_millis(5));
        }
        cgroup.remove().map_err(|errors| {
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            io::Error::other(texts.join("; "))
        })?;
    }
    record::remove(dir, files::STATE)?;
    record::remove(dir, files::SOCKET)?;
    record::remove_empty(dir, files::SHIM_LOG)?;
    Ok(())
}
