//! Mounts as a user asks for them (`Binds`, `Mounts`, `Volumes`, `VolumesFrom`, `Tmpfs`), as one list. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use berth_api::container::{HostConfig, Mount, MountPoint, VolumeDriverConfig};
use serde::{Deserialize, Serialize};

use super::secrets::{self, Secret};
use crate::error::{EngineError, Kind, Result};

/// Where a mount's content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// An image's file system, read-only.
    Image,
    /// A file in memory.
    Secret,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountPlan {
    pub(crate) kind: MountKind,
    /// Absolute, clean path in the container.
    pub(crate) target: String,
    /// Path on the host, or the volume's name (empty: an anonymous volume is to be made).
    pub(crate) source: String,
    pub(crate) read_only: bool,
    /// As typed, `ro`, `z`; for inspect.
    pub(crate) mode: String,
    /// `rprivate`, `rshared`, …; empty for volumes.
    pub(crate) propagation: String,
    /// Do not copy the image's content into the empty volume.
    pub(crate) no_copy: bool,
    /// Bind without the mounts below the source.
    pub(crate) non_recursive: bool,
    /// Read-only without the mounts below the source.
    pub(crate) read_only_non_recursive: bool,
    /// Read-only, with the mounts below, or not at all.
    pub(crate) read_only_force_recursive: bool,
    /// Whose files the source's are (`caller`, `UID`, `UID/GID`); empty: ids are what they are.
    pub(crate) idmap: String,
    /// Id of the image whose content is mounted.
    pub(crate) image_id: String,
    /// A missing source is made (`-v`) or refused (`--mount`).
    pub(crate) create_source: bool,
    /// Path within the volume or the image.
    pub(crate) subpath: String,
    /// Labels of a volume that has to be made.
    pub(crate) labels: BTreeMap<String, String>,
    /// Driver of a volume that has to be made.
    pub(crate) driver: String,
    /// Driver options of a volume that has to be made.
    pub(crate) driver_options: BTreeMap<String, String>,
    /// Mount options of a tmpfs.
    pub(crate) tmpfs_options: Vec<String>,
    /// The volume was made for this container, and goes with `rm -v`.
    pub(crate) anonymous: bool,
    /// What a secret consists of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Secret>,
    /// From `HostConfig.Tmpfs`: docker does not list it in `Mounts`.
    pub(crate) hidden: bool,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Docker answers a bad `Binds` entry with a 500.
fn invalid_spec(spec: &str, reason: impl std::fmt::Display) -> EngineError {
    EngineError::new(Kind::Internal, format!("invalid volume specification: '{spec}': {reason}"))
}

/// Removes `.`, `..`, doubled and trailing slashes, as Go's `filepath.Clean` does of absolute paths.
pub(crate) fn clean(path: &str) -> String {
    let mut cleaned = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned.to_string_lossy().into_owned()
}

fn target(kind: &str, path: &str) -> Result<String, String> {
    let refuse = |reason: String| Err(format!("invalid mount config for type \"{kind}\": {reason}"));
    if path.is_empty() {
        return refuse("field Target must not be empty".to_owned());
    }
    if !path.starts_with('/') {
        return refuse(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    match clean(path).as_str() {
        "/" => refuse("invalid specification: destination can't be '/'".to_owned()),
        cleaned => Ok(cleaned.to_owned()),
    }
}

/// Parses one of `Binds`: `[source:]target[:options]`.
pub(crate) fn parse_bind(spec: &str, volume_driver: &str) -> Result<MountPlan> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, path, mode) = match parts[..] {
        [path] => ("", path, ""),
        [source, path] => (source, path, ""),
        [source, path, mode] => (source, path, mode),
        _ => return Err(EngineError::new(Kind::Internal, format!("invalid volume specification: '{spec}'"))),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(EngineError::new(Kind::Internal, format!("invalid volume specification: '{spec}'")));
    }
    let bind = source.starts_with('/');
    let kind = if bind { "bind" } else { "volume" };
    let target = target(kind, path).map_err(|reason| invalid_spec(spec, reason))?;
    let mut plan = MountPlan {
        kind: if bind { MountKind::Bind } else { MountKind::Volume },
        target,
        source: if bind { clean(source) } else { source.to_owned() },
        mode: mode.to_owned(),
        create_source: true,
        driver: volume_driver.to_owned(),
        ..MountPlan::default()
    };
    apply_mode(&mut plan, mode).map_err(|()| invalid_spec(spec, format!("invalid mode: {mode}")))?;
    match plan.kind {
        MountKind::Bind if plan.propagation.is_empty() => "rprivate".clone_into(&mut plan.propagation),
        // Docker relabels named volumes by default and shows it.
        MountKind::Volume if mode.is_empty() && !source.is_empty() => "z".clone_into(&mut plan.mode),
        _ => {}
    }
    Ok(plan)
}

fn apply_mode(plan: &mut MountPlan, mode: &str) -> Result<(), ()> {
    let bind = plan.kind == MountKind::Bind;
    let (mut access, mut label, mut copy, mut consistency) = (0, 0, 0, 0);
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        match word {
            "ro" | "rw" => {
                access += 1;
                plan.read_only = word == "ro";
            }
            "z" | "Z" => label += 1,
            "nocopy" if !bind => {
                copy += 1;
                plan.no_copy = true;
            }
            "consistent" | "cached" | "delegated" | "default" => consistency += 1,
            word if bind && word.starts_with("idmap=") => {
                let owner = word.trim_start_matches("idmap=");
                id_owner(owner)?;
                owner.clone_into(&mut plan.idmap);
            }
            word if bind && PROPAGATIONS.contains(&word) && plan.propagation.is_empty() => {
                word.clone_into(&mut plan.propagation);
            }
            _ => return Err(()),
        }
    }
    if [access, label, copy, consistency].into_iter().any(|count| count > 1) { Err(()) } else { Ok(()) }
}

/// Parses one of `Mounts`.
pub(crate) fn parse_mount(mount: &Mount) -> Result<MountPlan> {
    let kind = mount.kind.as_str();
    let refuse =
        |reason: String| EngineError::invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    let base = MountPlan {
        target: target(kind, &mount.target).map_err(EngineError::invalid)?,
        read_only: mount.read_only,
        ..MountPlan::default()
    };
    let unexpected = |options: &str| refuse(format!("field {options} must not be specified"));
    let given = [
        ("bind", "BindOptions", mount.bind_options.is_some()),
        ("volume", "VolumeOptions", mount.volume_options.is_some()),
        ("tmpfs", "TmpfsOptions", mount.tmpfs_options.is_some()),
        ("image", "ImageOptions", mount.image_options.is_some()),
        ("secret", "SecretOptions", mount.secret_options.is_some()),
    ];
    if let Some((_, name, _)) = given.iter().find(|(of, _, given)| *given && *of != kind) {
        return Err(unexpected(name));
    }
    match kind {
        "bind" => bind_mount(mount, base, refuse),
        "volume" => volume_mount(mount, base, refuse),
        "tmpfs" => tmpfs_mount(mount, base, refuse),
        "image" => image_mount(mount, base, refuse),
        "secret" => secrets::parse(mount, base),
        _ => {
            Err(EngineError::invalid(format!("invalid mount config for type \"{kind}\": mount type unknown")))
        }
    }
}

fn bind_mount(mount: &Mount, base: MountPlan, refuse: impl Fn(String) -> EngineError) -> Result<MountPlan> {
    let options = mount.bind_options.clone().unwrap_or_default();
    if mount.source.is_empty() {
        return Err(refuse("field Source must not be empty".into()));
    }
    if !mount.source.starts_with('/') {
        return Err(refuse(format!("invalid mount path: '{}' mount path must be absolute", mount.source)));
    }
    let propagation = match options.propagation.as_str() {
        "" => "rprivate",
        known if PROPAGATIONS.contains(&known) => known,
        unknown => return Err(refuse(format!("invalid propagation mode: {unknown}"))),
    };
    if options.read_only_force_recursive && (!mount.read_only || options.read_only_non_recursive) {
        return Err(refuse("ReadOnlyForceRecursive requires a recursive read-only mount".into()));
    }
    if id_owner(&options.idmap).is_err() {
        return Err(refuse(format!("invalid idmap {:?}: caller, UID or UID/GID is expected", options.idmap)));
    }
    Ok(MountPlan {
        kind: MountKind::Bind,
        source: clean(&mount.source),
        idmap: options.idmap,
        read_only_force_recursive: options.read_only_force_recursive,
        propagation: propagation.to_owned(),
        non_recursive: options.non_recursive,
        read_only_non_recursive: options.read_only_non_recursive,
        create_source: options.create_mountpoint,
        ..base
    })
}

/// Whose files an id-mapped bind mount's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdOwner {
    /// Whoever owns the source.
    Caller,
    /// These.
    Ids { uid: u32, gid: u32 },
}

/// Parses `idmap`; none when it is empty.
pub(crate) fn id_owner(text: &str) -> Result<Option<IdOwner>, ()> {
    match text {
        "" => Ok(None),
        "caller" => Ok(Some(IdOwner::Caller)),
        ids => {
            let (uid, gid) = ids.split_once('/').unwrap_or((ids, ids));
            let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or(());
            Ok(Some(IdOwner::Ids { uid: id(uid)?, gid: id(gid)? }))
        }
    }
}

fn inner_path(path: &str, what: &str) -> Result<(), String> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(path).components().all(plain) {
        return Ok(());
    }
    Err(format!("subpath must be a relative path within the {what}: {path}"))
}

fn image_mount(mount: &Mount, base: MountPlan, refuse: impl Fn(String) -> EngineError) -> Result<MountPlan> {
    if mount.source.is_empty() {
        return Err(refuse("field Source must not be empty".into()));
    }
    let subpath = mount.image_options.clone().unwrap_or_default().subpath;
    inner_path(&subpath, "image").map_err(refuse)?;
    Ok(MountPlan { kind: MountKind::Image, source: mount.source.clone(), subpath, read_only: true, ..base })
}

fn volume_mount(mount: &Mount, base: MountPlan, refuse: impl Fn(String) -> EngineError) -> Result<MountPlan> {
    let options = mount.volume_options.clone().unwrap_or_default();
    if mount.source.is_empty() && mount.read_only {
        return Err(refuse("must not set ReadOnly mode when using anonymous volumes".into()));
    }
    inner_path(&options.subpath, "volume").map_err(&refuse)?;
    let VolumeDriverConfig { name: driver, options: driver_options } =
        options.driver_config.unwrap_or_default();
    Ok(MountPlan {
        kind: MountKind::Volume,
        source: mount.source.clone(),
        mode: "z".to_owned(),
        no_copy: options.no_copy,
        subpath: options.subpath,
        labels: options.labels.unwrap_or_default(),
        driver,
        driver_options: driver_options.unwrap_or_default(),
        ..base
    })
}

fn tmpfs_mount(mount: &Mount, base: MountPlan, refuse: impl Fn(String) -> EngineError) -> Result<MountPlan> {
    if !mount.source.is_empty() {
        return Err(refuse("field Source must not be specified".into()));
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    if mount.read_only {
        words.push("ro".into());
    }
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes < 0 {
        return Err(refuse("size must not be negative".into()));
    }
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    for option in options.options.iter().flatten() {
        match option.as_slice() {
            [flag] if flag == "exec" => words.retain(|word| word != "noexec"),
            [flag] if flag == "noexec" => {}
            other => return Err(refuse(format!("unsupported tmpfs option {:?}", other.join("=")))),
        }
    }
    Ok(MountPlan { kind: MountKind::Tmpfs, tmpfs_options: words, ..base })
}

/// Parses one of `Tmpfs`: path → options.
fn parse_tmpfs(path: &str, options: &str) -> Result<MountPlan> {
    const FLAGS: [&str; 18] = [
        "exec",
        "noexec",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "ro",
        "rw",
        "atime",
        "noatime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "diratime",
        "nodiratime",
        "sync",
        "async",
    ];
    const KEYS: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
    let target = target("tmpfs", path).map_err(EngineError::invalid)?;
    let mut words: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let known = match word.split_once('=') {
            Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
            None => FLAGS.contains(&word) || PROPAGATIONS.contains(&word),
        };
        if !known {
            return Err(EngineError::invalid(format!("invalid tmpfs option [{word:?}]")));
        }
        let opposite = word.strip_prefix("no").map_or_else(|| format!("no{word}"), str::to_owned);
        words.retain(|earlier| *earlier != opposite);
        words.push(word.to_owned());
    }
    let read_only = words.iter().any(|word| word == "ro");
    Ok(MountPlan {
        kind: MountKind::Tmpfs,
        target,
        read_only,
        tmpfs_options: words,
        hidden: true,
        ..MountPlan::default()
    })
}

/// `name[:mode]` of `VolumesFrom`.
pub(crate) fn parse_volumes_from(spec: &str) -> Result<(&str, Option<&str>)> {
    let (name, mode) = spec.split_once(':').map_or((spec, None), |(name, mode)| (name, Some(mode)));
    if name.is_empty() {
        return Err(EngineError::invalid(format!("invalid volumes-from specification: {spec}")));
    }
    if mode.is_some_and(|mode| !["ro", "rw", "z", "Z"].contains(&mode)) {
        return Err(EngineError::invalid(format!(
            "invalid mode for volumes-from: {}",
            mode.unwrap_or_default()
        )));
    }
    Ok((name, mode))
}

/// All mounts of a container, by destination. `inherited` are those of `VolumesFrom`; `volumes` the anonymous ones
/// of its configuration, which give way to everything else.
pub(crate) fn plan<'a>(
    host: &HostConfig,
    volumes: impl Iterator<Item = &'a String>,
    inherited: Vec<MountPlan>,
) -> Result<Vec<MountPlan>> {
    let mut by_target: BTreeMap<String, MountPlan> =
        inherited.into_iter().map(|plan| (plan.target.clone(), plan)).collect();
    let mut own: BTreeMap<String, MountPlan> = BTreeMap::new();
    let mut add = |plan: MountPlan| match own.contains_key(&plan.target) {
        true => Err(EngineError::invalid(format!("Duplicate mount point: {}", plan.target))),
        false => {
            own.insert(plan.target.clone(), plan);
            Ok(())
        }
    };
    for bind in host.binds.iter().flatten() {
        add(parse_bind(bind, &host.volume_driver)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(parse_mount(mount)?)?;
    }
    for (path, options) in host.tmpfs.iter().flatten() {
        add(parse_tmpfs(path, options)?)?;
    }
    by_target.extend(own);
    for path in volumes {
        let plan = parse_bind(path, &host.volume_driver)
            .map_err(|error| EngineError::invalid(error.message().to_owned()))?;
        by_target.entry(plan.target.clone()).or_insert(plan);
    }
    Ok(by_target.into_values().collect())
}

impl MountPlan {
    /// Whether nothing of it lies on a disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.kind, MountKind::Tmpfs | MountKind::Secret)
    }

    /// As inspect and list show it. `mountpoint` is where a volume of this name is.
    pub(crate) fn point(&self, mountpoint: impl FnOnce(&str) -> String) -> MountPoint {
        let volume = self.kind == MountKind::Volume;
        MountPoint {
            kind: match self.kind {
                MountKind::Bind => "bind",
                MountKind::Volume => "volume",
                MountKind::Tmpfs | MountKind::Secret => "tmpfs",
                MountKind::Image => "image",
            }
            .to_owned(),
            name: if volume { self.source.clone() } else { String::new() },
            source: if volume { mountpoint(&self.source) } else { self.source.clone() },
            destination: self.target.clone(),
            driver: if volume { "local".to_owned() } else { String::new() },
            mode: self.mode.clone(),
            rw: !self.read_only,
            propagation: self.propagation.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(spec: &str) -> MountPlan {
        parse_bind(spec, "").unwrap()
    }

    #[test]
    fn binds_in_every_form() {
        let plan = bind("/tmp/../srv:/data/:ro");
        assert_eq!(
            (plan.kind, plan.source.as_str(), plan.target.as_str()),
            (MountKind::Bind, "/srv", "/data")
        );
        assert!(plan.read_only && plan.create_source);
        assert_eq!(plan.propagation, "rprivate");
        assert_eq!(bind("/a:/b:rshared,ro").propagation, "rshared");
        let named = bind("data:/v");
        assert_eq!(
            (named.kind, named.source.as_str(), named.mode.as_str()),
            (MountKind::Volume, "data", "z")
        );
        assert_eq!(bind("data:/v:ro").mode, "ro");
        assert!(bind("data:/v:nocopy").no_copy);
        assert_eq!(bind("/a:/b:ro,idmap=caller").idmap, "caller");
        assert!(parse_bind("data:/v:idmap=caller", "").is_err(), "volumes are nobody's");
        let anonymous = bind("/v");
        assert_eq!(
            (anonymous.kind, anonymous.source.as_str(), anonymous.mode.as_str()),
            (MountKind::Volume, "", "")
        );
    }

    #[test]
    fn bad_binds_are_told_in_dockers_words() {
        let message = |spec| parse_bind(spec, "").unwrap_err().message().to_owned();
        assert_eq!(
            message("/a:b"),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
             mount path must be absolute"
        );
        for spec in
            ["", ":/a", "/a:", "/a:/b:ro:x", "/a:/b:ro,rw", "/a:/b:nocopy", "v:/b:rshared", "/a:/", "/a:/b:x"]
        {
            assert!(message(spec).starts_with("invalid volume specification:"), "{spec}");
        }
    }

    #[test]
    fn long_form() {
        let parse = |json: &str| parse_mount(&serde_json::from_str::<Mount>(json).unwrap());
        let plan =
            parse(r#"{"Type":"bind","Source":"/s","Target":"/t","BindOptions":{"NonRecursive":true}}"#)
                .unwrap();
        assert!(plan.non_recursive && !plan.create_source);
        let plan =
            parse(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":4096,"Mode":448}}"#).unwrap();
        assert_eq!(plan.tmpfs_options, ["noexec", "nosuid", "nodev", "mode=700", "size=4096"]);
        let error = parse(r#"{"Type":"bind","Target":"/t"}"#).unwrap_err();
        assert_eq!(error.message(), "invalid mount config for type \"bind\": field Source must not be empty");
        assert!(parse(r#"{"Type":"volume","Target":"/t","BindOptions":{}}"#).is_err());
        assert!(parse(r#"{"Type":"bogus","Target":"/t"}"#).is_err());
        assert!(
            parse(r#"{"Type":"volume","Source":"v","Target":"/t","VolumeOptions":{"Subpath":"../x"}}"#)
                .is_err()
        );
        let image =
            parse(r#"{"Type":"image","Source":"box","Target":"/t","ImageOptions":{"Subpath":"etc"}}"#);
        let image = image.unwrap();
        assert!(image.kind == MountKind::Image && image.read_only && image.subpath == "etc");
        assert!(parse(r#"{"Type":"image","Target":"/t"}"#).is_err());
        let npipe = parse(r#"{"Type":"npipe","Source":"x","Target":"/t"}"#).unwrap_err();
        assert!(npipe.message().contains("mount type unknown"));
        let mapped = parse(r#"{"Type":"bind","Source":"/s","Target":"/t","BindOptions":{"Idmap":"5/6"}}"#);
        assert_eq!(id_owner(&mapped.unwrap().idmap), Ok(Some(IdOwner::Ids { uid: 5, gid: 6 })));
        let odd = parse(r#"{"Type":"bind","Source":"/s","Target":"/t","BindOptions":{"Idmap":"me"}}"#);
        assert!(odd.unwrap_err().message().contains("UID/GID"));
    }

    #[test]
    fn the_list_is_unique_and_ordered() {
        let host = HostConfig {
            binds: Some(vec!["/h:/b".into(), "v:/a".into()]),
            tmpfs: Some(BTreeMap::from([("/t".into(), "size=1m,exec".into())])),
            ..HostConfig::default()
        };
        let volumes = ["/a".to_owned(), "/z".to_owned()];
        let inherited =
            vec![MountPlan { target: "/b".into(), source: "other".into(), ..MountPlan::default() }];
        let plans = plan(&host, volumes.iter(), inherited).unwrap();
        let targets: Vec<&str> = plans.iter().map(|plan| plan.target.as_str()).collect();
        assert_eq!(targets, ["/a", "/b", "/t", "/z"]);
        assert_eq!(plans[0].source, "v");
        assert_eq!(plans[1].source, "/h");
        assert_eq!(plans[2].tmpfs_options, ["nosuid", "nodev", "size=1m", "exec"]);
        let twice =
            HostConfig { binds: Some(vec!["/h:/b".into(), "/i:/b/".into()]), ..HostConfig::default() };
        assert_eq!(plan(&twice, [].iter(), vec![]).unwrap_err().message(), "Duplicate mount point: /b");
    }

    #[test]
    fn volumes_from() {
        assert_eq!(parse_volumes_from("db:ro").unwrap(), ("db", Some("ro")));
        assert_eq!(parse_volumes_from("db").unwrap(), ("db", None));
        assert!(parse_volumes_from("db:x").is_err());
        assert!(parse_volumes_from("").is_err());
    }
}
