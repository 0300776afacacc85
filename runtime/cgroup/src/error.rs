//! Errors that name the file and the operation.

use std::io;
use std::path::{Path, PathBuf};

/// A failure while planning, making, changing or reading a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file operation failed.
    #[error("cgroup: {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, in words.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A limit was refused.
    #[error("cgroup: cannot set {} to {value:?}: {source}{}", path.display(), hint.map(|h| format!(" ({h})")).unwrap_or_default())]
    Write {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The answer.
        source: io::Error,
        /// What it means.
        hint: Option<&'static str>,
    },
    /// A limit needs a controller this host does not have.
    #[error("cgroup: {field} needs the {controller} controller, which this host does not offer ({hint})")]
    NoController {
        /// The field of `linux.resources`.
        field: String,
        /// The controller.
        controller: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A value that no kernel takes.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field of `linux.resources`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A cgroup that a new container should get is somebody else's.
    #[error("container's cgroup {problem}: {} (choose another linux.cgroupsPath)", path.display())]
    InUse {
        /// Below each hierarchy's root.
        path: PathBuf,
        /// What is in the way.
        problem: String,
    },
    /// The systemd driver was asked for where there is none.
    #[error(
        "systemd cgroup flag passed, but systemd support for managing cgroups is not available (this machine was not booted with systemd: leave --systemd-cgroup out)"
    )]
    NoSystemd,
    /// systemd did not do what it was asked for.
    #[error("systemd: cannot {operation} unit {unit:?}: {problem}{}", hint.map(|h| format!(" ({h})")).unwrap_or_default())]
    Systemd {
        /// What was tried, in words.
        operation: &'static str,
        /// The unit.
        unit: String,
        /// What systemd, or the connection to it, said.
        problem: String,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// A cgroup inside the container's own that cannot be used.
    #[error("{0}")]
    Below(String),
    /// No cgroup file system is mounted.
    #[error("no cgroup hierarchy is mounted below /sys/fs/cgroup (mount cgroup2 there)")]
    NotMounted,
    /// There is no resctrl here.
    #[error(
        "linux.intelRdt: no file system resctrl is mounted (it takes a processor that shares out its caches, Intel's RDT or AMD's QoS; there: mount -t resctrl resctrl /sys/fs/resctrl)"
    )]
    NoResctrl,
    /// A class of service that nobody has made.
    #[error("linux.intelRdt.closID: there is no class {} (make it, or let linux.intelRdt.schemata say what it gets)", path.display())]
    NoClass {
        /// Where it would be.
        path: PathBuf,
    },
    /// A class of service that is there already with other shares.
    #[error("linux.intelRdt: the class {} is there with other shares: {asked:?} is asked for, it has {present:?} (leave the schemas out to join it, or choose another closID)", path.display())]
    OtherShares {
        /// Where it is.
        path: PathBuf,
        /// The line that does not hold.
        asked: String,
        /// What it has.
        present: String,
    },
    /// resctrl refused something.
    #[error("resctrl: cannot {operation} {}: {source}{}{}", path.display(), status.as_deref().map(|s| format!(": {s}")).unwrap_or_default(), hint.map(|h| format!(" ({h})")).unwrap_or_default())]
    Resctrl {
        /// What was tried, in words.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The answer.
        source: io::Error,
        /// `info/last_cmd_status`: what the kernel has to say to it.
        status: Option<String>,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// A device program could not be installed.
    #[error("cgroup: cannot {operation} the device program of {}: {source}", path.display())]
    Device {
        /// `load` or `attach`.
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl CgroupError {
    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.as_ref().to_owned(), source: source.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// True if the cgroup (or the file in it) is gone.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } | Self::Device { source, .. } => {
                matches!(source.raw_os_error(), Some(code) if code == nix::libc::ENOENT || code == nix::libc::ENODEV)
            }
            _ => false,
        }
    }

    /// True if the caller may not do this.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        use nix::libc::{EACCES, EPERM, EROFS};
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } | Self::Device { source, .. } => {
                matches!(source.raw_os_error(), Some(EACCES | EPERM | EROFS))
            }
            _ => false,
        }
    }

    /// True if the kernel has the file but does not implement it (EOPNOTSUPP).
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::libc::EOPNOTSUPP))
    }

    /// True if the kernel refused the value as such.
    pub(crate) fn is_invalid_value(&self) -> bool {
        let code = match self {
            Self::Write { source, .. } => source.raw_os_error(),
            _ => None,
        };
        code == Some(nix::libc::EINVAL) || code == Some(nix::libc::EBUSY)
    }
}
