//! Volumes, binds, tmpfs, configs and secrets.
//!
//! What the old bind syntax can say is said in it, because only that makes a missing source; the rest goes as mounts.
//! That choice is docker compose's and shows in a container's configuration.

use std::path::Path;

use berth_client::api::container::{
    BindOptions, ImageMountOptions, Mount as ApiMount, TmpfsOptions, VolumeMountOptions,
};

use super::Wanted;
use crate::{
    Result,
    error::Error,
    files::{self, Delivery},
    model::{self, Mount},
};

/// Binds and mounts.
pub(super) fn of(wanted: &Wanted<'_>) -> Result<(Vec<String>, Vec<ApiMount>)> {
    let mut all: Vec<ApiMount> = inherited(wanted);
    let taken = |all: &[ApiMount], target: &str| all.iter().any(|mount| mount.target == target);
    for mount in &wanted.service.volumes {
        let made = mount_of(wanted, mount);
        if mount.source.is_empty() && mount.r#type == "volume" && taken(&all, &made.target) {
            continue;
        }
        all.retain(|other| other.target != made.target);
        all.push(made);
    }
    for file in files::of(wanted.project, wanted.name, wanted.service)? {
        if let Delivery::Bind(source) = &file.delivery
            && !taken(&all, &file.target)
        {
            all.push(bind_of_file(source, &file.target, file.is_secret));
        }
        all.extend(file.in_memory().filter(|_| wanted.secrets));
    }
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for made in all {
        match as_bind(wanted, &made) {
            Some(bind) => binds.push(bind),
            None => mounts.push(made),
        }
    }
    Ok((binds, mounts))
}

/// Anonymous volumes of the container that is replaced.
fn inherited(wanted: &Wanted<'_>) -> Vec<ApiMount> {
    let Some((replaced, image_volumes)) = wanted.inherit else { return Vec::new() };
    let anonymous = |target: &str| {
        let declared = image_volumes.iter().any(|volume| volume == target);
        declared
            || wanted.service.volumes.iter().any(|mount| mount.target == target && mount.source.is_empty())
    };
    let kept = replaced.mounts.iter().filter(|mount| mount.kind != "tmpfs" && anonymous(&mount.destination));
    kept.map(|mount| ApiMount {
        kind: mount.kind.clone(),
        source: if mount.kind == "volume" { mount.name.clone() } else { mount.source.clone() },
        target: mount.destination.clone(),
        read_only: !mount.rw,
        ..ApiMount::default()
    })
    .collect()
}

fn mount_of(wanted: &Wanted<'_>, mount: &Mount) -> ApiMount {
    let source = match mount.r#type.as_str() {
        "volume" => wanted.project.volumes.get(&mount.source).map_or(&mount.source, |volume| &volume.name),
        _ => &mount.source,
    };
    let kind = mount.r#type.as_str();
    ApiMount {
        kind: kind.to_owned(),
        source: source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
        consistency: mount.consistency.clone(),
        bind_options: mount.bind.as_ref().filter(|_| kind == "bind").map(bind_options),
        volume_options: mount.volume.as_ref().filter(|_| kind == "volume").map(|volume| VolumeMountOptions {
            no_copy: volume.nocopy,
            labels: Some(volume.labels.0.clone()).filter(|labels| !labels.is_empty()),
            subpath: volume.subpath.clone(),
            driver_config: None,
        }),
        tmpfs_options: mount.tmpfs.as_ref().filter(|_| kind == "tmpfs").map(|tmpfs| TmpfsOptions {
            size_bytes: tmpfs.size.0,
            mode: tmpfs.mode,
            options: None,
        }),
        image_options: mount
            .image
            .as_ref()
            .filter(|_| kind == "image")
            .map(|image| ImageMountOptions { subpath: image.subpath.clone() }),
        secret_options: None,
    }
}

fn bind_options(bind: &model::BindOptions) -> BindOptions {
    BindOptions {
        propagation: bind.propagation.clone(),
        create_mountpoint: bind.create_host_path,
        non_recursive: bind.recursive == "disabled",
        read_only_non_recursive: bind.recursive == "writable",
        read_only_force_recursive: bind.recursive == "readonly",
        idmap: String::new(),
    }
}

fn bind_of_file(source: &Path, target: &str, is_secret: bool) -> ApiMount {
    ApiMount {
        kind: "bind".to_owned(),
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        read_only: true,
        bind_options: is_secret.then(BindOptions::default),
        ..ApiMount::default()
    }
}

/// The mount in bind syntax, if that can say it.
fn as_bind(wanted: &Wanted<'_>, made: &ApiMount) -> Option<String> {
    let mount = wanted.service.volumes.iter().find(|mount| mount.target == made.target)?;
    match made.kind.as_str() {
        "bind" => {
            let bind = mount.bind.as_ref();
            let plain = bind.is_none_or(|bind| {
                bind.create_host_path && bind.propagation.is_empty() && bind.recursive.is_empty()
            });
            plain.then(|| line(&made.source, mount))
        }
        "volume" => {
            let volume = mount.volume.as_ref();
            let plain = volume
                .is_none_or(|volume| volume.labels.is_empty() && volume.subpath.is_empty() && !volume.nocopy);
            let ours = wanted.project.volumes.values().any(|volume| volume.name == made.source);
            (plain && ours).then(|| line(&made.source, mount))
        }
        _ => None,
    }
}

fn line(source: &str, mount: &Mount) -> String {
    let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
    if let Some(bind) = &mount.bind {
        options.extend(
            [bind.selinux.as_str(), bind.propagation.as_str()].into_iter().filter(|text| !text.is_empty()),
        );
    }
    if mount.volume.as_ref().is_some_and(|volume| volume.nocopy) {
        options.push("nocopy");
    }
    format!("{source}:{}:{}", mount.target, options.join(","))
}

/// Kinds of mounts this engine cannot do are refused before anything is made.
pub(crate) fn refuse(name: &str, mount: &Mount, image_mounts: bool) -> Result<()> {
    match mount.r#type.as_str() {
        "image" if !image_mounts => {
            Err(Error::service(name, "volume with type=image require Docker Engine v28 or later"))
        }
        "npipe" | "cluster" => {
            Err(Error::service(name, format!("volumes of type {} are not for this engine", mount.r#type)))
        }
        _ => Ok(()),
    }
}
