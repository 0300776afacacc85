//! A mount of type `cgroup`: what it becomes depends on the host's hierarchies and the container's namespace.
//!
//! | host | own cgroup namespace | result                                                          |
//! |------|----------------------|-----------------------------------------------------------------|
//! | v2   | any                  | a cgroup2 mount                                                 |
//! | v1   | yes                  | a tmpfs with one cgroup mount for each hierarchy                |
//! | v1   | no                   | a tmpfs with the container's directory of each hierarchy bound  |

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::mount_options::MountOptions;
use crate::oci;
use crate::plan::{IdMaps, NamespaceKind, NamespacePlan};
use crate::step::{
    BindSource, FsOption, InitStep, MountAttributes, MountSource, MountStep, SuperblockFlags, SymlinkStep,
};

use super::mounts::Mounts;
use super::{CgroupHierarchy, CgroupMounts, CompileContext};

pub(super) fn plan(
    field: &str,
    index: usize,
    destination: PathBuf,
    options: &MountOptions,
    ctx: &CompileContext,
    own_namespace: bool,
    mounts: &mut Mounts,
) -> Result<(), SpecError> {
    let step = |destination: PathBuf, source: MountSource, attributes: MountAttributes| {
        InitStep::Mount(Box::new(MountStep {
            index: Some(index),
            destination,
            source,
            attributes,
            implied: 0,
            recursive_attributes: options.recursive_attributes,
            propagation: options.propagation.clone(),
            idmap: None,
        }))
    };
    match &ctx.cgroup {
        CgroupMounts::None => Err(SpecError::new(field, "a cgroup mount on a host without cgroups")
            .hint("mount cgroup2 on /sys/fs/cgroup or leave this mount out")),
        CgroupMounts::V2 { mountpoint } => {
            let fallback = below(mountpoint, &ctx.cgroup_path);
            mounts.steps.push(step(destination, MountSource::Cgroup2 { fallback }, options.attributes));
            Ok(())
        }
        CgroupMounts::V1 { hierarchies } => {
            let tmpfs = tmpfs(options);
            mounts.steps.push(step(destination.clone(), tmpfs, options.attributes.without_readonly()));
            for hierarchy in hierarchies {
                let source = if own_namespace {
                    hierarchy_mount(hierarchy)
                } else {
                    let source = below(&hierarchy.mountpoint, &ctx.cgroup_path);
                    MountSource::Bind { source: BindSource::Host(source), recursive: false }
                };
                mounts.steps.push(step(destination.join(&hierarchy.name), source, options.attributes));
                mounts.steps.extend(links(&destination, hierarchy));
            }
            if options.attributes.readonly() {
                mounts.readonly_later.push(destination);
            }
            Ok(())
        }
    }
}

/// Whom the cgroup is handed to: the process may make groups of its own below, if it sees nothing but its own (a new
/// cgroup namespace) and has it mounted writable.
pub(super) fn owner(spec: &oci::Spec, namespaces: &NamespacePlan, maps: &IdMaps) -> Option<u32> {
    let writable = |mount: &oci::Mount| {
        mount.typ().as_deref().is_some_and(|kind| matches!(kind, "cgroup" | "cgroup2"))
            && mount.destination().components().eq(Path::new("/sys/fs/cgroup").components())
            && !MountOptions::parse(mount.options().as_deref().unwrap_or_default()).attributes.readonly()
    };
    let mounted = spec.mounts().iter().flatten().any(writable);
    if !namespaces.creates(NamespaceKind::Cgroup) || !mounted {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    if !namespaces.has(NamespaceKind::User) {
        return Some(uid).filter(|uid| *uid != 0);
    }
    let map = maps.uid.iter().find(|map| (map.container..map.container + map.size).contains(&uid))?;
    Some(map.host + (uid - map.container))
}

fn below(mountpoint: &Path, cgroup: &Path) -> PathBuf {
    mountpoint.join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

fn tmpfs(options: &MountOptions) -> MountSource {
    let mut data = options.data.clone();
    data.push(FsOption { key: "mode".to_owned(), value: Some("755".to_owned()) });
    MountSource::Filesystem {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        superblock: SuperblockFlags { readonly: false, ..options.superblock },
        options: data,
        copy_up: false,
    }
}

fn hierarchy_mount(hierarchy: &CgroupHierarchy) -> MountSource {
    let option = |word: &str| match word.split_once('=') {
        Some((key, value)) => FsOption { key: key.to_owned(), value: Some(value.to_owned()) },
        None => FsOption { key: word.to_owned(), value: None },
    };
    // The superblock is the host's: it must stay writable whatever the mount is.
    MountSource::Filesystem {
        fstype: "cgroup".to_owned(),
        source: "cgroup".to_owned(),
        superblock: SuperblockFlags::default(),
        options: hierarchy.data.split(',').map(option).collect(),
        copy_up: false,
    }
}

/// `cpu` and `cpuacct` beside `cpu,cpuacct`.
fn links(destination: &Path, hierarchy: &CgroupHierarchy) -> Vec<InitStep> {
    if !hierarchy.name.contains(',') {
        return Vec::new();
    }
    let link = |controller: &str| {
        InitStep::Symlink(SymlinkStep {
            path: destination.join(controller),
            target: PathBuf::from(&hierarchy.name),
            replace: false,
            if_exists: None,
        })
    };
    hierarchy.name.split(',').map(link).collect()
}
