//! `-v`, `--mount`, `--tmpfs`.

use anyhow::{Context, Result, bail};
use berth_api::container::{
    BindOptions, ImageMountOptions, Mount, TmpfsOptions, VolumeDriverConfig, VolumeMountOptions,
};

use super::environment::pair;
use crate::output::units::parse_memory;

/// What a `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    /// `/data`: an anonymous volume.
    Anonymous(String),
    /// `source:target[:options]`, for `HostConfig.Binds`.
    Bind(String),
}

/// Parses `-v`. A relative source becomes absolute: the engine does not know our directory.
pub(crate) fn volume(spec: &str) -> Result<Volume> {
    let Some((source, rest)) = spec.split_once(':') else {
        if !spec.starts_with('/') {
            bail!("-v {spec}: the path in the container must be absolute");
        }
        return Ok(Volume::Anonymous(spec.to_owned()));
    };
    if source.is_empty() || rest.is_empty() {
        bail!("-v {spec}: expected source:target[:options]");
    }
    let relative = source == "." || source == ".." || source.starts_with("./") || source.starts_with("../");
    let source = if relative {
        let absolute = std::path::absolute(source).with_context(|| format!("-v {spec}"))?;
        absolute.to_str().context("the source's path is not UTF-8")?.to_owned()
    } else if source == "~" || source.starts_with("~/") {
        bail!("-v {spec}: '~' is the shell's; write $HOME");
    } else {
        source.to_owned()
    };
    Ok(Volume::Bind(format!("{source}:{rest}")))
}

/// Parses `--mount type=bind,source=…,target=…`.
pub(crate) fn mount(spec: &str) -> Result<Mount> {
    parse_mount(spec).with_context(|| format!("invalid argument {spec:?} for --mount"))
}

fn parse_mount(spec: &str) -> Result<Mount> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in spec.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(k, v)| (k, Some(v)));
        let key = key.trim().to_ascii_lowercase();
        if let Some(set) = flag(&mut mount, &key) {
            *set = value.is_none_or(truthy);
            continue;
        }
        let value = value.with_context(|| format!("'{field}' must be a key=value pair"))?;
        keyed(&mut mount, &key, value)?;
    }
    if mount.target.is_empty() {
        bail!("target is required");
    }
    let misplaced = [
        (mount.bind_options.is_some(), "bind"),
        (mount.volume_options.is_some(), "volume"),
        (mount.image_options.is_some(), "image"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
    ];
    if let Some((_, kind)) = misplaced.iter().find(|(given, kind)| *given && mount.kind != *kind) {
        bail!("{kind} options cannot be given for a mount of type {}", mount.kind);
    }
    Ok(mount)
}

/// The switches: they need no value.
fn flag<'a>(mount: &'a mut Mount, key: &str) -> Option<&'a mut bool> {
    match key {
        "readonly" | "ro" => Some(&mut mount.read_only),
        "volume-nocopy" => Some(&mut mount.volume_options.get_or_insert_default().no_copy),
        "bind-nonrecursive" => Some(&mut mount.bind_options.get_or_insert_default().non_recursive),
        "bind-create-src" => Some(&mut mount.bind_options.get_or_insert_default().create_mountpoint),
        _ => None,
    }
}

fn keyed(mount: &mut Mount, key: &str, value: &str) -> Result<()> {
    match key {
        "type" => value.to_ascii_lowercase().clone_into(&mut mount.kind),
        "source" | "src" => {
            let relative =
                value.starts_with("./") || value.starts_with("../") || value == "." || value == "..";
            mount.source = if relative {
                std::path::absolute(value)?.to_str().context("the source's path is not UTF-8")?.to_owned()
            } else {
                value.to_owned()
            };
        }
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "consistency" => value.clone_into(&mut mount.consistency),
        "bind-propagation" => value.clone_into(&mut mount.bind_options.get_or_insert_default().propagation),
        "idmap" => value.clone_into(&mut mount.bind_options.get_or_insert_default().idmap),
        "bind-recursive" => recursive(mount.bind_options.get_or_insert_default(), value)?,
        "volume-subpath" => value.clone_into(&mut mount.volume_options.get_or_insert_default().subpath),
        "volume-driver" => value.clone_into(&mut driver(mount).name),
        "volume-opt" => {
            let (name, value) = pair(value);
            driver(mount).options.get_or_insert_default().insert(name, value);
        }
        "volume-label" => {
            let (name, value) = pair(value);
            let labels = &mut mount.volume_options.get_or_insert_default().labels;
            labels.get_or_insert_default().insert(name, value);
        }
        "image-subpath" => {
            mount.image_options = Some(ImageMountOptions { subpath: value.to_owned() });
        }
        "tmpfs-size" => {
            mount.tmpfs_options.get_or_insert_default().size_bytes =
                parse_memory(value).map_err(anyhow::Error::msg)?;
        }
        "tmpfs-mode" => {
            let mode =
                u32::from_str_radix(value, 8).with_context(|| format!("{value:?} is no octal mode"))?;
            mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default).mode = mode;
        }
        other => bail!("unknown option '{other}'"),
    }
    Ok(())
}

fn driver(mount: &mut Mount) -> &mut VolumeDriverConfig {
    let options: &mut VolumeMountOptions = mount.volume_options.get_or_insert_default();
    options.driver_config.get_or_insert_default()
}

fn recursive(options: &mut BindOptions, value: &str) -> Result<()> {
    match value {
        "enabled" => {}
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        other => bail!("bind-recursive is enabled, disabled, writable or readonly, not {other:?}"),
    }
    Ok(())
}

fn truthy(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        assert_eq!(volume("/data").expect("valid"), Volume::Anonymous("/data".into()));
        assert_eq!(volume("/a:/b:ro").expect("valid"), Volume::Bind("/a:/b:ro".into()));
        assert_eq!(volume("name:/b").expect("valid"), Volume::Bind("name:/b".into()));
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(volume("./x:/b").expect("valid"), Volume::Bind(format!("{}/x:/b", here.display())));
        for wrong in ["data", ":/b", "/a:", "~/x:/b"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts() {
        let bind = mount("type=bind,source=/a,target=/b,readonly,bind-propagation=rslave").expect("valid");
        assert_eq!((bind.kind.as_str(), bind.source.as_str(), bind.target.as_str()), ("bind", "/a", "/b"));
        assert!(bind.read_only && bind.bind_options.is_some_and(|o| o.propagation == "rslave"));
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=4m,tmpfs-mode=1770").expect("valid").tmpfs_options;
        assert_eq!(tmpfs.map(|o| (o.size_bytes, o.mode)), Some((4 << 20, 0o1770)));
        let volume = mount("src=v,dst=/d,volume-opt=o=x,volume-nocopy=true,ro=false").expect("valid");
        assert!(
            !volume.read_only
                && volume.volume_options.is_some_and(|o| o.no_copy && o.driver_config.is_some())
        );
        for wrong in [
            "",
            "type=bind,source=/a",
            "type=bind,target=/b,nosuch=1",
            "type=bind,target=/b,tmpfs-size=1m",
            "target",
        ] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }
}
