//! `mounts` → mount steps.

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::mount_options::MountOptions;
use crate::oci;
use crate::plan::{IdMaps, NamespaceKind, NamespacePlan, RootPlan, SpecWarning};
use crate::step::{
    BindSource, FsOption, IdmapSource, IdmapStep, InitStep, MountAttributes, MountSource, MountStep,
};

use super::{CompileContext, cgroup_mounts, namespaces, paths, warn};

/// What may be mounted inside /proc: files an engine like LXCFS replaces (the same list as runc's). The compiler looks at
/// the paths of config.json, the runtime at where they lead.
pub const COVERABLE_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// File systems whose files the policy labels one by one (the same as runc's).
const LABELLED_BY_POLICY: [&str; 3] = ["proc", "sysfs", "mqueue"];

/// The mount option for `linux.mountLabel`.
pub(super) fn context(label: &str) -> FsOption {
    FsOption { key: "context".into(), value: Some(label.to_owned()) }
}

/// `linux.mountLabel`, if there is one.
pub(super) fn label<'a>(linux: &'a oci::Linux, ctx: &CompileContext) -> Result<Option<&'a str>, SpecError> {
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
    if label.is_some() && !ctx.selinux {
        return Err(SpecError::new("linux.mountLabel", "is set, but the kernel does not label with SELinux")
            .hint("leave out linux.mountLabel, or enable SELinux on this host"));
    }
    Ok(label)
}

/// What a mount is compiled by.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) ctx: &'a CompileContext,
    pub(super) root: &'a RootPlan,
    pub(super) namespaces: &'a NamespacePlan,
    /// Of the container's new user namespace.
    pub(super) id_maps: &'a IdMaps,
    /// SELinux label of new file systems.
    pub(super) label: Option<&'a str>,
}

/// The mounts, and what has to follow them once they have been filled.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) steps: Vec<InitStep>,
    /// Mounts to make read-only after devices and links have been put in.
    pub(super) readonly_later: Vec<PathBuf>,
    /// `/dev` is the host's: nothing is made in it.
    pub(super) dev_is_bound: bool,
}

pub(super) fn plan(
    spec: &oci::Spec,
    around: Surroundings<'_>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<Mounts, SpecError> {
    let Surroundings { ctx, namespaces, .. } = around;
    let mut mounts = Mounts::default();
    let given = spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty());
    if given && !namespaces.has(NamespaceKind::Mount) {
        let message =
            "without a mount namespace of its own the container's mounts are the host's until it is deleted";
        warn(warnings, "mounts", message);
    }
    for (at, mount) in spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{at}]");
        let destination = destination(&field, mount, around.root, warnings)?;
        let options = MountOptions::parse(mount.options().as_deref().unwrap_or_default());
        if mount.typ().as_deref() == Some("cgroup") && options.bind.is_none() {
            only_procfs(&field, &destination, "cgroup")?;
            let own = namespaces.has(NamespaceKind::Cgroup);
            cgroup_mounts::plan(&field, at, destination, &options, ctx, own, &mut mounts)?;
            continue;
        }
        let mut step = one(&field, at, mount, destination, options, around, warnings)?;
        if step.destination == Path::new("/dev") {
            mounts.dev_is_bound |= matches!(step.source, MountSource::Bind { .. });
            if !mounts.dev_is_bound && step.attributes.readonly() {
                writable_for_now(&mut step);
                mounts.readonly_later.push(step.destination.clone());
            }
        }
        mounts.steps.push(InitStep::Mount(Box::new(step)));
    }
    Ok(mounts)
}

fn writable_for_now(step: &mut MountStep) {
    step.attributes = step.attributes.without_readonly();
    if let MountSource::Filesystem { superblock, .. } = &mut step.source {
        superblock.readonly = false;
    }
}

fn destination(
    field: &str,
    mount: &oci::Mount,
    root: &RootPlan,
    warnings: &mut Vec<SpecWarning>,
) -> Result<PathBuf, SpecError> {
    let field = format!("{field}.destination");
    let given = mount.destination();
    paths::no_nul(&field, given)?;
    if given.as_os_str().is_empty() {
        return Err(SpecError::new(field, "is empty").hint("give the absolute path inside the container"));
    }
    if !given.is_absolute() {
        warn(warnings, &field, "is relative; taken from the container's root");
    }
    // As runc takes it: a path that begins with the root's own is one inside the root.
    let clean = inside(root, given).unwrap_or_else(|| paths::clean(given));
    if clean.starts_with("/proc") && clean != Path::new("/proc") {
        let allowed = COVERABLE_PROC.iter().any(|path| clean == Path::new(path));
        if !allowed {
            return Err(SpecError::new(
                field,
                format!("{:?} cannot be mounted because it is inside /proc", clean.display()),
            )
            .hint("only single files such as /proc/meminfo can be replaced"));
        }
    }
    Ok(clean)
}

/// The path inside the container of a path of the host that lies in the container's root.
fn inside(root: &RootPlan, path: &Path) -> Option<PathBuf> {
    let root = paths::clean(&root.path);
    if root == Path::new("/") {
        return None;
    }
    let rest = paths::clean(path).strip_prefix(root).ok()?.to_owned();
    Some(Path::new("/").join(rest))
}

fn one(
    field: &str,
    index: usize,
    mount: &oci::Mount,
    destination: PathBuf,
    options: MountOptions,
    around: Surroundings<'_>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<MountStep, SpecError> {
    let idmap = idmap(field, mount, &options, around)?;
    let source = source(field, mount, &destination, &options, around, warnings)?;
    if idmap.is_some() && !matches!(source, MountSource::Bind { .. }) {
        return Err(SpecError::new(format!("{field}.uidMappings"), "id mapping needs a bind mount"));
    }
    let (mut attributes, implied) = match source {
        MountSource::Bind { .. } => options.of_bind(),
        _ => (options.attributes, 0),
    };
    // A new mount has no attribute yet that could be cleared; an atime mode keeps its mask.
    if matches!(source, MountSource::Filesystem { .. }) {
        attributes.clear &= MountAttributes::ATIME;
    }
    Ok(MountStep {
        index: Some(index),
        destination,
        source,
        attributes,
        implied,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation,
        idmap,
    })
}

fn source(
    field: &str,
    mount: &oci::Mount,
    destination: &Path,
    options: &MountOptions,
    around: Surroundings<'_>,
    warnings: &mut Vec<SpecWarning>,
) -> Result<MountSource, SpecError> {
    let fstype = mount.typ().as_deref().unwrap_or_default();
    let given = mount.source().clone().unwrap_or_default();
    paths::no_nul(&format!("{field}.source"), &given)?;
    if options.copy_up && fstype != "tmpfs" {
        return Err(SpecError::new(format!("{field}.options"), "tmpcopyup needs a mount of type tmpfs"));
    }
    if options.remount {
        let superblock = options.bind.is_none().then_some(options.superblock);
        return Ok(MountSource::Remount { superblock, options: options.data.clone() });
    }
    if let Some(recursive) = options.bind.or((fstype == "bind").then_some(false)) {
        if given.as_os_str().is_empty() {
            return Err(SpecError::new(format!("{field}.source"), "is missing")
                .hint("a bind mount shows a path of the host"));
        }
        for option in &options.data {
            warn(
                warnings,
                format!("{field}.options"),
                format!("{:?} has no effect on a bind mount", option.key),
            );
        }
        let path = around.ctx.bundle.join(given);
        let source = match inside(around.root, &path) {
            Some(inside) => BindSource::Container(inside),
            None => BindSource::Host(path),
        };
        return Ok(MountSource::Bind { source, recursive });
    }
    if fstype.is_empty() || fstype == "none" {
        let changes = !options.propagation.is_empty() || !options.attributes.is_empty();
        if changes || !options.recursive_attributes.is_empty() {
            return Ok(MountSource::Existing);
        }
        return Err(SpecError::new(format!("{field}.type"), "is missing")
            .hint("name a file system, or add the option bind or rbind"));
    }
    only_procfs(field, destination, fstype)?;
    let mut superblock = options.superblock;
    if options.copy_up {
        superblock.readonly = false;
    }
    let source = given.to_string_lossy().into_owned();
    let mut data = options.data.clone();
    data.extend(around.label.filter(|_| !LABELLED_BY_POLICY.contains(&fstype)).map(context));
    Ok(MountSource::Filesystem {
        fstype: fstype.to_owned(),
        source: if source.is_empty() { fstype.to_owned() } else { source },
        superblock,
        options: data,
        copy_up: options.copy_up,
    })
}

/// A /proc that is none would let the container write what the kernel is asked (CVE-2019-16884). Whether what is bound
/// there is one, the runtime sees.
fn only_procfs(field: &str, destination: &Path, fstype: &str) -> Result<(), SpecError> {
    if destination != Path::new("/proc") || fstype == "proc" {
        return Ok(());
    }
    let problem = format!("{fstype:?} must not be mounted on /proc");
    Err(SpecError::new(format!("{field}.type"), problem).hint("use type proc"))
}

fn idmap(
    field: &str,
    mount: &oci::Mount,
    options: &MountOptions,
    around: Surroundings<'_>,
) -> Result<Option<IdmapStep>, SpecError> {
    let maps = IdMaps {
        uid: namespaces::id_map(
            &format!("{field}.uidMappings"),
            mount.uid_mappings().as_deref().unwrap_or_default(),
        )?,
        gid: namespaces::id_map(
            &format!("{field}.gidMappings"),
            mount.gid_mappings().as_deref().unwrap_or_default(),
        )?,
    };
    if maps.uid.is_empty() != maps.gid.is_empty() {
        return Err(SpecError::new(
            format!("{field}.uidMappings"),
            "uidMappings and gidMappings must be specified together",
        ));
    }
    let recursive = options.idmap.unwrap_or(false);
    if !maps.is_empty() {
        return Ok(Some(IdmapStep { source: IdmapSource::Maps(maps), recursive }));
    }
    if options.idmap.is_none() {
        return Ok(None);
    }
    let source = match around.namespaces.joins(NamespaceKind::User) {
        Some(path) => IdmapSource::Namespace(path.clone()),
        None if !around.id_maps.is_empty() => IdmapSource::Maps(around.id_maps.clone()),
        None => {
            return Err(SpecError::new(
                format!("{field}.options"),
                "idmap needs uidMappings and gidMappings, or a container with a user namespace",
            ));
        }
    };
    Ok(Some(IdmapStep { source, recursive }))
}
