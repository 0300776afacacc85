//! Which namespaces a child is born in, which it enters afterwards, and when it takes one more fork.

use std::fs::File;
use std::os::fd::OwnedFd;

use berth_spec::{NamespaceKind, NamespacePlan, TimeOffset};
use berth_sys::Errno;
use berth_sys::clone::CloneFlags;
use berth_sys::ns;

use crate::error::{Context, Error, Fault};

/// A namespace to enter.
#[derive(Debug)]
pub(crate) struct Join {
    kind: NamespaceKind,
    fd: OwnedFd,
}

/// The namespaces of a container, opened.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// For clone3.
    pub(crate) born_in: CloneFlags,
    /// To enter, in order.
    pub(crate) joins: Vec<Join>,
    /// The cgroup namespace is made only once the child sits in its cgroup (version 1: it moves there itself).
    pub(crate) late_cgroup: bool,
    /// A process in between enters namespaces first and forks the container's init: a pid namespace holds only for
    /// children, other users' namespaces cannot be entered from a new user namespace, and the clocks of a time
    /// namespace can be set only while nobody is in it.
    pub(crate) intermediate: bool,
    /// Clock offsets of the new time namespace.
    time_offsets: Vec<TimeOffset>,
}

impl Namespaces {
    /// Opens what is to be joined. `born_in_cgroup` tells that clone3 puts the child into its cgroup.
    pub(crate) fn open(plan: &NamespacePlan, born_in_cgroup: bool) -> Result<Self, Error> {
        let joins = plan.join.iter().map(|join| {
            let file = File::open(&join.path).map_err(|e| Error::io("open namespace", &join.path, e))?;
            let fd = OwnedFd::from(file);
            let expected = CloneFlags::from_bits_retain(join.kind.clone_flag());
            match ns::kind(std::os::fd::AsFd::as_fd(&fd)) {
                Ok(kind) if kind == expected => Ok(Join { kind: join.kind, fd }),
                _ => Err(Error::Invalid(format!(
                    "{} is not a namespace of kind {}",
                    join.path.display(),
                    join.kind.proc_name()
                ))),
            }
        });
        let joins = joins.collect::<Result<Vec<_>, Error>>()?;
        let mut born_in = CloneFlags::from_bits_retain(plan.create);
        let late_cgroup = plan.creates(NamespaceKind::Cgroup) && !born_in_cgroup;
        if late_cgroup {
            born_in = born_in.without(CloneFlags::NEWCGROUP);
        }
        let early = |kind| matches!(kind, NamespaceKind::Pid | NamespaceKind::User);
        let intermediate = joins.iter().any(|join| early(join.kind))
            || (plan.creates(NamespaceKind::User) && !joins.is_empty())
            || !plan.time_offsets.is_empty();
        Ok(Self { born_in, joins, late_cgroup, intermediate, time_offsets: plan.time_offsets.clone() })
    }

    /// Enters what is to be joined.
    pub(crate) fn enter(&self) -> Result<(), Fault> {
        let enter = |join: &Join| ns::setns(&join.fd, CloneFlags::from_bits_retain(join.kind.clone_flag()));
        // A namespace need not belong to the user namespace that is joined as well. One that does not can be entered
        // with the privileges from before only, one that does with those from after.
        let users = self.joins.iter().any(|join| join.kind == NamespaceKind::User);
        let early = |join: &Join| users && join.kind != NamespaceKind::User && enter(join).is_ok();
        let entered: Vec<bool> = self.joins.iter().map(early).collect();
        for (join, entered) in self.joins.iter().zip(entered) {
            if !entered {
                enter(join).at(|| format!("join the {} namespace", join.kind.proc_name()))?;
            }
        }
        Ok(())
    }

    /// Makes the time namespace that the next child will be in, and sets its clocks (time_namespaces(7)); before that
    /// the user namespace which it is to belong to. Returns the namespaces that are left for the child's birth.
    pub(crate) fn set_clocks(&self) -> Result<CloneFlags, Fault> {
        if self.time_offsets.is_empty() {
            return Ok(self.born_in);
        }
        if self.born_in.contains(CloneFlags::NEWUSER) {
            ns::unshare(CloneFlags::NEWUSER).at(|| "unshare the user namespace".into())?;
        }
        ns::unshare(CloneFlags::NEWTIME).at(|| "unshare the time namespace".into())?;
        let lines = self.time_offsets.iter().map(|o| format!("{} {} {}\n", o.clock, o.secs, o.nanosecs));
        let lines: String = lines.collect();
        std::fs::write("/proc/self/timens_offsets", &lines).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            let hint = if errno == Errno::ERANGE {
                " (a clock would stand before zero, or too far ahead)"
            } else {
                ""
            };
            Fault::os(format!("set linux.timeOffsets to {:?}{hint}", lines.trim_end()), errno)
        })?;
        Ok(self.born_in.without(CloneFlags::NEWUSER | CloneFlags::NEWTIME))
    }
}

/// The namespaces a running container has of its own, for an exec: those that config.json lists.
pub(crate) fn of_container(spec: &berth_spec::oci::Spec) -> CloneFlags {
    use berth_spec::oci::LinuxNamespaceType as Type;
    let listed = spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten();
    listed.fold(CloneFlags::empty(), |all, namespace| {
        all | match namespace.typ() {
            Type::Mount => CloneFlags::NEWNS,
            Type::Cgroup => CloneFlags::NEWCGROUP,
            Type::Uts => CloneFlags::NEWUTS,
            Type::Ipc => CloneFlags::NEWIPC,
            Type::User => CloneFlags::NEWUSER,
            Type::Pid => CloneFlags::NEWPID,
            Type::Network => CloneFlags::NEWNET,
            Type::Time => CloneFlags::NEWTIME,
        }
    })
}

/// Root of the new user namespace: the ids are mapped now, and ours is still the one from outside.
pub(crate) fn become_root() -> Result<(), Errno> {
    nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into())
}
