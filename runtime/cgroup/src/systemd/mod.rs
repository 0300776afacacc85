//! The systemd driver: a container's cgroup is that of a scope, and systemd knows its limits.
//!
//! ```text
//!   Unit::new ─▶ start ─▶ (the plan's writes) ─▶ set … ─▶ stop
//!   slice:prefix:name     StartTransientUnit      SetUnitProperties   StopUnit, ResetFailedUnit
//!                         wait for JobRemoved                         wait for JobRemoved
//! ```
//!
//! What systemd is told and what is written to the control files is the same, so that it never puts another value there
//! when it looks after its units (`systemctl daemon-reload`, `set-property`).

mod bus;
mod devices;
mod placeholder;
mod properties;
mod text;

use std::path::{Path, PathBuf};

use berth_dbus::Value;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::CgroupError;
use bus::{Bus, BusError, Instance};
pub(crate) use placeholder::Placeholder;
pub(crate) use properties::rounded;
use properties::{Property, at_start, depends_on_version, of_limits, of_scope};

/// The prefix of a scope's name when config.json gives none.
const DEFAULT_PREFIX: &str = "berth";

/// The unit of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    name: String,
    slice: String,
    /// Below each hierarchy's root.
    path: PathBuf,
    instance: Instance,
    container: String,
    #[serde(skip)]
    extra: Vec<Property>,
}

impl Unit {
    /// The unit that `linux.cgroupsPath` (`slice:prefix:name`) asks for, or `berth-<id>.scope` in system.slice (for an
    /// unprivileged user: in user.slice of their own systemd). Annotations `org.systemd.property.NAME` become
    /// properties of it.
    ///
    /// # Errors
    /// The machine was not booted with systemd, the path has another form, a name is none of systemd's, or an annotation
    /// has no value of D-Bus.
    pub fn new<'a>(
        cgroups_path: Option<&Path>,
        id: &str,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, CgroupError> {
        // sd_booted(3)
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(CgroupError::NoSystemd);
        }
        let instance = if nix::unistd::geteuid().is_root() { Instance::System } else { Instance::User };
        let asked = cgroups_path.map(|path| path.to_string_lossy()).unwrap_or_default();
        let mut unit = Self::parse(&asked, id, instance)?;
        unit.extra = text::from_annotations(annotations)?;
        if instance == Instance::User {
            // The user's systemd has its own units below a cgroup of the system's.
            let root = Bus::connect(instance).and_then(|mut bus| bus.manager_property("ControlGroup"));
            let root = root.map_err(|error| unit.failed("find the place of", error))?;
            unit.path = Path::new(&root).join(unit.path.strip_prefix("/").unwrap_or(&unit.path));
        }
        Ok(unit)
    }

    fn parse(asked: &str, id: &str, instance: Instance) -> Result<Self, CgroupError> {
        let default = if instance == Instance::User { "user.slice" } else { "system.slice" };
        let (slice, prefix, name) = match asked.split(':').collect::<Vec<_>>()[..] {
            [""] => (default, DEFAULT_PREFIX, id),
            ["", prefix, name] => (default, prefix, name),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                let problem = format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {asked:?} instead"
                );
                return Err(CgroupError::invalid("linux.cgroupsPath", problem));
            }
        };
        let invalid = |problem: String| Err(CgroupError::invalid("linux.cgroupsPath", problem));
        if name.ends_with(".slice") {
            return invalid(format!("{name:?} names a slice, but a container needs a scope of its own"));
        }
        let unit = format!("{prefix}-{name}.scope");
        // systemd.unit(5)
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if unit.len() > 255 || !unit.bytes().all(valid) {
            return invalid(format!(
                "{unit:?} is no name of a systemd unit (letters, digits and : - _ . \\ @)"
            ));
        }
        let path = expand(slice)?.join(&unit);
        let (slice, container) = (slice.to_owned(), id.to_owned());
        Ok(Self { name: unit, slice, path, instance, container, extra: Vec::new() })
    }

    /// The cgroup below each hierarchy's root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The unit's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if the kernel lets us put a process into the cgroup: the user's systemd alone may move it from where the
    /// user logged in to where their units are.
    pub(crate) fn is_joined_by_birth(&self) -> bool {
        self.instance == Instance::System
    }

    /// Makes the scope, with the limits and with a placeholder in it.
    pub(crate) fn start(&self, version: u8, resources: &LinuxResources) -> Result<Placeholder, CgroupError> {
        let failed = |error| self.failed("start", error);
        // Before there is a connection: the child must not hold it.
        let placeholder = Placeholder::start().map_err(|errno| failed(BusError::Exchange(errno.into())))?;
        let mut bus = Bus::connect(self.instance).map_err(failed)?;
        let systemd = self.version(&mut bus, resources)?;
        let mut list = of_scope(version, &self.container, &self.slice);
        let pid = Value::Uint32(placeholder.pid().as_raw().unsigned_abs());
        list.push(("PIDs".to_owned(), Value::Array("u".into(), vec![pid])));
        list.extend(of_limits(version, resources, systemd)?);
        list.extend(at_start(resources, systemd));
        list.extend(self.extra.iter().cloned());
        bus.watch_jobs().map_err(failed)?;
        let arguments = [
            Value::text(&self.name),
            Value::text("replace"),
            encoded(list),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let mut started = bus.call("StartTransientUnit", &arguments);
        if started.as_ref().is_err_and(|error| error.is("UnitExists")) {
            // One that failed and was never looked after; a living one stays, and stays in the way.
            self.reset(&mut bus);
            started = bus.call("StartTransientUnit", &arguments);
        }
        let job = match started {
            Err(error) if error.is("UnitExists") => {
                let problem = format!("is not empty: it is that of the running systemd unit {}", self.name);
                return Err(CgroupError::InUse { path: self.path.clone(), problem });
            }
            other => other.map_err(failed)?,
        };
        let job = job.first().and_then(Value::as_text).unwrap_or_default();
        let ended = bus.wait_for_job(job);
        if ended.as_ref().is_ok_and(|result| result == "done") {
            return Ok(placeholder);
        }
        self.reset(&mut bus);
        let result = ended.map_err(failed)?;
        Err(CgroupError::Systemd {
            operation: "start",
            unit: self.name.clone(),
            problem: format!("its job ended with {result:?}"),
            hint: Some("`systemctl status` and `journalctl -u` of the unit say more"),
        })
    }

    /// Changes limits of the running unit; they last until it is stopped.
    pub(crate) fn set(&self, version: u8, resources: &LinuxResources) -> Result<(), CgroupError> {
        let failed = |error| self.failed("set properties of", error);
        let mut bus = Bus::connect(self.instance).map_err(failed)?;
        let systemd = self.version(&mut bus, resources)?;
        let list = of_limits(version, resources, systemd)?;
        if list.is_empty() {
            return Ok(());
        }
        let runtime = Value::Bool(true);
        let arguments = [Value::text(&self.name), runtime, encoded(list)];
        bus.call("SetUnitProperties", &arguments).map(drop).map_err(failed)
    }

    /// Stops the unit and forgets it. One that is gone already is fine.
    ///
    /// # Errors
    /// systemd cannot be reached, or refuses.
    pub fn stop(&self) -> Result<(), CgroupError> {
        let failed = |error| self.failed("stop", error);
        let mut bus = Bus::connect(self.instance).map_err(failed)?;
        bus.watch_jobs().map_err(failed)?;
        match bus.call("StopUnit", &[Value::text(&self.name), Value::text("replace")]) {
            Ok(job) => {
                let job = job.first().and_then(Value::as_text).unwrap_or_default();
                let result = bus.wait_for_job(job).map_err(failed)?;
                if result != "done" {
                    tracing::warn!(unit = self.name, result, "the unit did not stop in order");
                }
            }
            Err(error) if error.is("NoSuchUnit") => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        self.reset(&mut bus);
        Ok(())
    }

    /// Moves a process into the unit's cgroup, or one below it.
    pub(crate) fn attach(&self, below: &Path, pid: nix::unistd::Pid) -> Result<(), CgroupError> {
        let failed = |error| self.failed("put a process into", error);
        let mut bus = Bus::connect(self.instance).map_err(failed)?;
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid.as_raw().unsigned_abs())]);
        let arguments =
            [Value::text(&self.name), Value::text(Path::new("/").join(below).to_string_lossy()), pids];
        bus.call("AttachProcessesToUnit", &arguments).map(drop).map_err(failed)
    }

    /// systemd keeps a unit that failed until it is told that somebody has seen it.
    fn reset(&self, bus: &mut Bus) {
        match bus.call("ResetFailedUnit", &[Value::text(&self.name)]) {
            Err(error) if !error.is("NoSuchUnit") => {
                tracing::debug!(unit = self.name, %error, "cannot reset the unit");
            }
            _ => {}
        }
    }

    /// systemd's version; 0 where it does not matter.
    fn version(&self, bus: &mut Bus, resources: &LinuxResources) -> Result<u32, CgroupError> {
        if !depends_on_version(resources) {
            return Ok(0);
        }
        let text =
            bus.manager_property("Version").map_err(|error| self.failed("ask for the version of", error))?;
        Ok(version_number(&text))
    }

    fn failed(&self, operation: &'static str, error: BusError) -> CgroupError {
        let hint = match &error {
            BusError::Connect { .. } if self.instance == Instance::User => {
                Some("is the user logged in with a session of systemd (loginctl, dbus-user-session)?")
            }
            BusError::Connect { .. } => Some("is dbus running?"),
            _ => None,
        };
        CgroupError::Systemd { operation, unit: self.name.clone(), problem: error.to_string(), hint }
    }
}

/// `a(sv)`
fn encoded(list: Vec<Property>) -> Value {
    let pair = |(name, value): Property| Value::Struct(vec![Value::Text(name), value.variant()]);
    Value::Array("(sv)".into(), list.into_iter().map(pair).collect())
}

/// `252.39-1~deb12u2`, `v245.4`
fn version_number(text: &str) -> u32 {
    let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<PathBuf, CgroupError> {
    let invalid = || CgroupError::invalid("linux.cgroupsPath", format!("invalid slice name: {slice:?}"));
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty()).ok_or_else(invalid)?;
    if stem == "-" {
        return Ok("/".into());
    }
    let mut path = PathBuf::from("/");
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains('/') {
            return Err(invalid());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_each_other() {
        let expanded = |slice| expand(slice).map(|path| path.display().to_string()).ok();
        assert_eq!(expanded("system.slice").as_deref(), Some("/system.slice"));
        assert_eq!(expanded("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expanded("-.slice").as_deref(), Some("/"));
        for wrong in ["", ".slice", "system", "a--b.slice", "-a.slice", "a/b.slice", "../x.slice"] {
            assert_eq!(expanded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn units_by_path() {
        let unit = |asked: &str| Unit::parse(asked, "c1", Instance::System);
        let path = |asked: &str| unit(asked).unwrap().path.display().to_string();
        assert_eq!(path(""), "/system.slice/berth-c1.scope");
        assert_eq!(path("machine-a.slice:p:x"), "/machine.slice/machine-a.slice/p-x.scope");
        assert_eq!(path(":p:x"), "/system.slice/p-x.scope");
        for wrong in
            ["/a/b", "a:b", "a.slice:b:c:d", "system.slice:p:x.slice", "system.slice:p:a/../b", "x:p:n"]
        {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
        let user = Unit::parse("", "c1", Instance::User).unwrap();
        assert_eq!(user.path, Path::new("/user.slice/berth-c1.scope"));
    }

    #[test]
    fn versions() {
        for (text, number) in [("252.39-1~deb12u2", 252), ("v245.4-1.fc32", 245), ("257", 257), ("", 0)] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
