//! A group, and who is in it.

use std::io::Write;
use std::path::PathBuf;

use berth_spec::RdtPlan;
use berth_sys::Pid;
use serde::{Deserialize, Serialize};

use super::{MONITORS, Resctrl, WRITE, remove, schemata, stats};
use crate::CgroupError;
use crate::dir::Dir;

/// Where a container's group is, and what of it goes with the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where resctrl is mounted.
    pub mount: PathBuf,
    /// The group; `None` is the default one.
    pub class: Option<String>,
    /// It was made for this container alone.
    pub made: bool,
    /// The monitoring group in it.
    pub monitor: Option<String>,
}

/// A group for a container.
#[derive(Debug)]
pub struct Group {
    pub(super) resctrl: Resctrl,
    pub(super) directory: Dir,
    pub(super) monitor: Option<Dir>,
    pub(super) place: Place,
    /// Made by this creation, be it for others too.
    pub(super) made: bool,
}

impl Group {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sets the shares and makes the monitoring group.
    pub(super) fn settle(&mut self, plan: &RdtPlan, made: bool) -> Result<(), CgroupError> {
        if !made && plan.clos.is_some() {
            self.compare(plan)?;
        }
        self.set(plan)?;
        if let Some(id) = &self.place.monitor {
            let groups = self.directory.child(MONITORS).map_err(|error| match error.is_not_found() {
                true => CgroupError::invalid(
                    "linux.intelRdt.enableMonitoring",
                    "this machine does not monitor (no info/L3_MON)",
                ),
                false => error,
            })?;
            self.resctrl.make(&groups, id)?;
            self.monitor = Some(groups.child(id)?);
        }
        Ok(())
    }

    /// A class that others may be in must have the shares that are asked for (config-linux.md, "IntelRdt").
    fn compare(&self, plan: &RdtPlan) -> Result<(), CgroupError> {
        let present = self.directory.read("schemata")?;
        let step = self.resctrl.root.read_optional("info/MB/bandwidth_gran")?;
        let step = step.and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        match plan.cache.iter().chain(&plan.bandwidth).find(|line| !schemata::holds(&present, line, step)) {
            None => Ok(()),
            Some(asked) => Err(CgroupError::OtherShares {
                path: self.directory.path.clone(),
                asked: asked.clone(),
                present: present.split_whitespace().collect::<Vec<_>>().join(" "),
            }),
        }
    }

    /// Sets the shares that are given.
    ///
    /// # Errors
    /// With what the kernel has to say to it.
    pub fn set(&self, plan: &RdtPlan) -> Result<(), CgroupError> {
        let text: String = plan.lines().map(|line| format!("{line}\n")).collect();
        if text.is_empty() { Ok(()) } else { self.write(&self.directory, "schemata", &text) }
    }

    /// Takes a process in; those that it forks from now on are in it too.
    ///
    /// # Errors
    /// It has ended, or the kernel refuses.
    pub fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        let number = pid.to_string();
        self.write(&self.directory, "tasks", &number)?;
        self.monitor.as_ref().map_or(Ok(()), |monitor| self.write(monitor, "tasks", &number))
    }

    fn write(&self, dir: &Dir, name: &str, text: &str) -> Result<(), CgroupError> {
        let mut file = dir.open_file(name, WRITE)?;
        let refused = |error| self.resctrl.refused("write to", dir.path.join(name), error);
        file.write_all(text.as_bytes()).map_err(refused)
    }

    /// What it has and uses.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn stats(&self) -> Result<stats::RdtStats, CgroupError> {
        stats::read(&self.resctrl, &self.directory, self.monitor.as_ref().unwrap_or(&self.directory))
    }

    /// Takes away what was made for the container; a class with a name stays for others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(self) -> Result<(), CgroupError> {
        if self.place.made
            && let Some(name) = &self.place.class
        {
            drop(self.monitor);
            return remove(&self.resctrl.root, name);
        }
        self.place.monitor.as_ref().map_or(Ok(()), |id| match self.directory.child(MONITORS) {
            Err(error) if error.is_not_found() => Ok(()),
            groups => remove(&groups?, id),
        })
    }

    /// The same for a container that never came to be: a class that it has brought goes too, unless somebody else has
    /// moved in.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn undo(mut self) -> Result<(), CgroupError> {
        let unused = self.directory.read_optional("tasks")?.is_none_or(|tasks| tasks.trim().is_empty());
        self.place.made |= self.made && unused;
        self.remove()
    }
}
