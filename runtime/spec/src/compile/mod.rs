//! config.json → [`ContainerPlan`].

mod capabilities;
pub(crate) use capabilities::number as capability_number;
mod cgroup_mounts;
mod devices;
mod hooks;
mod mounts;
pub use mounts::COVERABLE_PROC;
mod namespaces;
mod order;
mod paths;
mod process;
mod rdt;
mod resources;
mod sysctl;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::error::SpecError;
use crate::oci;
use crate::plan::{CgroupRequest, ContainerPlan, NamespaceKind, RootPlan, SpecWarning};
use crate::process::ProcessPlan;
use crate::seccomp::{self, SeccompProgram};

/// What the compiler must know about the host and the caller; it looks at nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileContext {
    /// Directory of the bundle, absolute: `root.path` and relative bind sources start there.
    pub bundle: PathBuf,
    /// The caller is not root.
    pub rootless: bool,
    /// What a mount of type `cgroup` shows.
    pub cgroup: CgroupMounts,
    /// The container's cgroup relative to each hierarchy's root (`/berth/<id>`), bound when it has no cgroup namespace.
    pub cgroup_path: PathBuf,
    /// Capabilities of the runtime's own bounding set, if known: others are dropped from the request with a warning.
    pub known_capabilities: Option<u64>,
    /// The kernel labels with SELinux.
    pub selinux: bool,
}

/// The host's cgroup hierarchies, for mounts of type `cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupMounts {
    /// Nothing is known; a mount of type `cgroup` is an error.
    None,
    /// One cgroup2 hierarchy.
    V2 {
        /// Where it is mounted, `/sys/fs/cgroup`.
        mountpoint: PathBuf,
    },
    /// Several hierarchies of version 1.
    V1 {
        /// The hierarchies, in the order of mountinfo.
        hierarchies: Vec<CgroupHierarchy>,
    },
}

/// One mounted hierarchy of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupHierarchy {
    /// Name of the directory it appears under: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// The mount's data: `cpu,cpuacct` or `none,name=systemd`.
    pub data: String,
    /// Where the host has it mounted.
    pub mountpoint: PathBuf,
}

/// Compiles a whole `config.json`.
///
/// # Errors
/// The first field that is invalid or asks for something that does not exist.
pub fn compile(spec: &oci::Spec, ctx: &CompileContext) -> Result<ContainerPlan, SpecError> {
    version(spec.version())?;
    let none = empty_linux();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    let mut warnings = Vec::new();
    let namespaces = namespaces::plan(linux)?;
    if ctx.rootless && !namespaces.has(NamespaceKind::User) {
        return Err(SpecError::new("linux.namespaces", "rootless container requires user namespaces")
            .hint("add {\"type\": \"user\"} with id mappings, or run as root"));
    }
    let id_maps = namespaces::id_maps(linux, &namespaces)?;
    let root = root(spec, ctx)?;
    let in_userns = namespaces.has(NamespaceKind::User);
    let process = match spec.process() {
        Some(process) => {
            process::plan(process, filter_of(linux)?, in_userns, ctx.known_capabilities, &mut warnings)?
        }
        None => process::none(in_userns),
    };
    let label = mounts::label(linux, ctx)?;
    let around = mounts::Surroundings { ctx, root: &root, namespaces: &namespaces, id_maps: &id_maps, label };
    let mounts = mounts::plan(spec, around, &mut warnings)?;
    let devices = devices::plan(linux, in_userns)?;
    let hooks = hooks::plan(spec.hooks().as_ref())?;
    let sysctls = sysctl::plan(linux.sysctl().as_ref(), &namespaces)?;
    resources::check(linux, &mut warnings)?;
    let parts = order::Parts {
        spec,
        linux,
        namespaces: &namespaces,
        root: &root,
        process: &process,
        hooks: &hooks,
        mounts,
        devices,
        sysctls,
    };
    let owner = cgroup_mounts::owner(spec, &namespaces, &id_maps);
    let steps = order::container(parts)?;
    let parent = order::parent(linux, &namespaces, &id_maps, &process)?;
    let mut annotations: Vec<_> =
        spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    annotations.sort_unstable();
    Ok(ContainerPlan {
        namespaces,
        id_maps,
        root,
        parent,
        steps,
        process,
        cgroup: CgroupRequest {
            path: linux.cgroups_path().clone(),
            resources: resources::with_default_devices(linux.resources().as_ref()),
            owner,
        },
        rdt: rdt::plan(linux)?,
        hooks,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        annotations,
        warnings,
    })
}

/// Where the seccomp filter of an exec comes from. It is its container's in either case.
#[derive(Debug, Clone)]
pub enum ExecFilter {
    /// It is compiled from the profile in the container's configuration.
    Profile,
    /// It was compiled when the container was made; `None` if that has none.
    Compiled(Option<SeccompProgram>),
}

/// Compiles a `process` object for an exec into a running container. `container` is that container's own
/// configuration: the presence of a user namespace comes from there. `known_capabilities` is as in [`CompileContext`].
///
/// # Errors
/// The first field that is invalid.
pub fn compile_process(
    process: &oci::Process,
    container: &oci::Spec,
    filter: ExecFilter,
    known_capabilities: Option<u64>,
) -> Result<(ProcessPlan, Vec<SpecWarning>), SpecError> {
    let none = empty_linux();
    let linux = container.linux().as_ref().unwrap_or(&none);
    let in_userns = namespaces::plan(linux)?.has(NamespaceKind::User);
    let mut warnings = Vec::new();
    let filter = match filter {
        ExecFilter::Profile => filter_of(linux)?,
        ExecFilter::Compiled(filter) => filter,
    };
    let mut plan = process::plan(process, filter, in_userns, known_capabilities, &mut warnings)?;
    plan.parent = order::exec_parent(&plan, in_userns);
    plan.steps = order::exec(&plan, linux, in_userns)?;
    Ok((plan, warnings))
}

/// The compiled `linux.seccomp`.
fn filter_of(linux: &oci::Linux) -> Result<Option<SeccompProgram>, SpecError> {
    linux.seccomp().as_ref().map(|profile| seccomp::compile(profile, seccomp::native_arch())).transpose()
}

/// `linux` of a configuration without one: the crate's default would bring namespaces and masks of its own.
fn empty_linux() -> oci::Linux {
    let mut linux = oci::Linux::default();
    linux.set_resources(None);
    linux.set_namespaces(None);
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    linux
}

/// config.md, "Specification version".
fn version(version: &str) -> Result<(), SpecError> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = numbers.split('.').map(str::parse::<u32>).collect();
    match parts.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        [Ok(major), Ok(_), Ok(_)] => {
            Err(SpecError::new("ociVersion", format!("major version {major} is not supported"))
                .hint("this runtime implements version 1"))
        }
        _ => Err(SpecError::new("ociVersion", format!("{version:?} is no semantic version"))
            .hint("write for example \"1.2.0\"")),
    }
}

fn root(spec: &oci::Spec, ctx: &CompileContext) -> Result<RootPlan, SpecError> {
    let root = spec.root().as_ref().ok_or_else(|| {
        SpecError::new("root", "is missing").hint("root.path names the container's root file system")
    })?;
    if root.path().as_os_str().is_empty() {
        return Err(SpecError::new("root.path", "is empty"));
    }
    paths::no_nul("root.path", root.path())?;
    Ok(RootPlan { path: ctx.bundle.join(root.path()), readonly: root.readonly().unwrap_or(false) })
}

fn warn(warnings: &mut Vec<SpecWarning>, field: impl Into<String>, message: impl Into<String>) {
    warnings.push(SpecWarning { field: field.into(), message: message.into() });
}
