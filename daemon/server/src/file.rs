//! daemon.json: the settings of a daemon in docker's form. What the command line says counts more.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use berth_engine::{CgroupDriver, Runtime};
use serde::Deserialize;

use crate::args::Args;

/// Where it is when nothing else is said; that there is none is no error then.
const DEFAULT: &str = "/etc/berth/daemon.json";

/// The settings that are understood; docker's names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Settings {
    hosts: Vec<String>,
    group: Option<String>,
    debug: bool,
    log_level: Option<String>,
    pidfile: Option<PathBuf>,
    labels: Vec<String>,
    dns: Vec<String>,
    insecure_registries: Vec<String>,
    cgroup_parent: Option<String>,
    exec_opts: Vec<String>,
    init: bool,
    userns_remap: Option<String>,
    runtimes: BTreeMap<String, RuntimeSettings>,
    default_runtime: Option<String>,
    log_driver: Option<String>,
    log_opts: BTreeMap<String, String>,
    default_shm_size: Option<Size>,
    cdi_spec_dirs: Vec<PathBuf>,
    tls: bool,
    tlsverify: bool,
    tlscacert: Option<PathBuf>,
    tlscert: Option<PathBuf>,
    tlskey: Option<PathBuf>,
    /// Always so: containers outlive the daemon.
    live_restore: Option<bool>,
    /// `overlay2` is the only one there is.
    storage_driver: Option<String>,
    storage_opts: Vec<String>,
}

/// Bytes as a number, or text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeSettings {
    path: PathBuf,
    runtime_args: Vec<String>,
}

/// What is not a flag as well.
#[derive(Debug, Default)]
pub(crate) struct Further {
    pub(crate) runtimes: BTreeMap<String, Runtime>,
    pub(crate) log_opts: BTreeMap<String, String>,
    /// Bytes of /dev/shm.
    pub(crate) shm_size: Option<i64>,
    pub(crate) cgroup_driver: CgroupDriver,
}

/// Completes the arguments from the file.
pub(crate) fn complete(args: &mut Args) -> anyhow::Result<Further> {
    let path = args.config_file.clone().unwrap_or_else(|| DEFAULT.into());
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && args.config_file.is_none() => "{}".to_owned(),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    let settings = parse(&text, &path)?;
    merge(args, settings).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str, path: &Path) -> anyhow::Result<Settings> {
    serde_json::from_str(text)
        .with_context(|| format!("unable to configure the daemon with {}", path.display()))
}

fn merge(args: &mut Args, settings: Settings) -> anyhow::Result<Further> {
    let storage = settings.storage_driver.as_deref().unwrap_or("overlay2");
    if !["overlay2", "overlayfs"].contains(&storage) {
        bail!("storage-driver {storage:?}: there is only overlay2");
    }
    if settings.live_restore == Some(false) {
        tracing::info!("live-restore is always on: containers outlive the daemon");
    }
    let fill = |slot: &mut Vec<String>, from: Vec<String>| {
        if slot.is_empty() {
            *slot = from;
        }
    };
    fill(&mut args.hosts, settings.hosts);
    args.labels.extend(settings.labels);
    fill(&mut args.dns, settings.dns);
    fill(&mut args.exec_opts, settings.exec_opts);
    fill(&mut args.storage_opts, settings.storage_opts);
    args.insecure_registry.extend(settings.insecure_registries);
    args.group = args.group.take().or(settings.group);
    if args.cdi_spec_dir.is_empty() {
        args.cdi_spec_dir = settings.cdi_spec_dirs;
    }
    args.debug |= settings.debug;
    if let Some(level) = settings.log_level {
        args.set_log_level(level);
    }
    args.pidfile = args.pidfile.take().or(settings.pidfile);
    args.cgroup_parent = args.cgroup_parent.take().or(settings.cgroup_parent);
    args.init |= settings.init;
    args.userns_remap = args.userns_remap.take().or(settings.userns_remap).filter(|user| !user.is_empty());
    args.default_runtime = args.default_runtime.take().or(settings.default_runtime);
    args.tls |= settings.tls;
    args.tlsverify |= settings.tlsverify;
    args.tlscacert = args.tlscacert.take().or(settings.tlscacert);
    args.tlscert = args.tlscert.take().or(settings.tlscert);
    args.tlskey = args.tlskey.take().or(settings.tlskey);
    // Options belong to their driver: another driver on the command line leaves the file's options out.
    let same_driver = args.log_driver.is_none() || args.log_driver == settings.log_driver;
    let mut log_opts = if same_driver { settings.log_opts } else { BTreeMap::new() };
    log_opts.extend(args.log_opts.iter().cloned());
    args.log_driver = args.log_driver.take().or(settings.log_driver);
    let mut runtimes = BTreeMap::new();
    for (name, runtime) in settings.runtimes {
        if runtime.path.as_os_str().is_empty() {
            bail!("runtimes: {name:?} has no path");
        }
        runtimes.insert(name, Runtime { path: runtime.path, args: runtime.runtime_args });
    }
    for (name, path) in args.add_runtime.iter().cloned() {
        runtimes.insert(name, Runtime { path, args: Vec::new() });
    }
    let shm_size = match settings.default_shm_size {
        None => None,
        Some(Size::Bytes(bytes)) => Some(bytes),
        Some(Size::Text(text)) => {
            let bytes = crate::args::binary_size(&text).map_err(anyhow::Error::msg)?;
            Some(i64::try_from(bytes).context("default-shm-size")?)
        }
    };
    let cgroup_driver = cgroup_driver(&args.exec_opts)?;
    Ok(Further { runtimes, log_opts, shm_size, cgroup_driver })
}

/// The only option for running containers that there is, also in docker.
fn cgroup_driver(options: &[String]) -> anyhow::Result<CgroupDriver> {
    let mut driver = CgroupDriver::default();
    for option in options {
        driver = match option.split_once('=') {
            Some(("native.cgroupdriver", "cgroupfs")) => CgroupDriver::Cgroupfs,
            Some(("native.cgroupdriver", "systemd")) => CgroupDriver::Systemd,
            _ => bail!(
                "exec-opt {option:?}: there are native.cgroupdriver=cgroupfs and native.cgroupdriver=systemd"
            ),
        };
    }
    Ok(driver)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn merged(words: &[&str], json: &str) -> anyhow::Result<(Args, Further)> {
        let mut args = Args::parse_from([&["berthd"], words].concat());
        let further = merge(&mut args, parse(json, Path::new("x"))?)?;
        Ok((args, further))
    }

    #[test]
    fn the_command_line_counts_more() {
        let json = r#"{"hosts":["unix:///a"],"log-driver":"syslog","log-opts":{"tag":"x"},"init":true,
            "runtimes":{"crun":{"path":"/usr/bin/crun","runtimeArgs":["--debug"]}},"default-shm-size":"64m"}"#;
        let (args, further) = merged(&[], json).unwrap();
        assert_eq!((args.hosts(), args.init), (vec!["unix:///a".to_owned()], true));
        assert_eq!(further.log_opts["tag"], "x");
        assert_eq!(further.runtimes["crun"].args, ["--debug"]);
        assert_eq!(further.shm_size, Some(64 << 20));
        let (args, further) = merged(&["-H", "unix:///b", "--log-driver", "local"], json).unwrap();
        assert_eq!(args.hosts(), ["unix:///b"]);
        assert_eq!((args.log_driver.as_deref(), further.log_opts.len()), (Some("local"), 0));
    }

    #[test]
    fn the_cgroup_driver_is_an_option() {
        let driver = |words: &[&str], json| merged(words, json).map(|(_, further)| further.cgroup_driver);
        let file = r#"{"exec-opts":["native.cgroupdriver=systemd"]}"#;
        assert_eq!(driver(&[], "{}").unwrap(), CgroupDriver::Cgroupfs);
        assert_eq!(driver(&[], file).unwrap(), CgroupDriver::Systemd);
        assert_eq!(
            driver(&["--exec-opt", "native.cgroupdriver=cgroupfs"], file).unwrap(),
            CgroupDriver::Cgroupfs
        );
        assert!(driver(&["--exec-opt", "native.cgroupdriver=bogus"], "{}").is_err());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = format!("{:#}", merged(&[], r#"{"bogus":1}"#).unwrap_err());
        assert!(error.contains("unknown field `bogus`"), "{error}");
        assert!(merged(&[], r#"{"storage-driver":"btrfs"}"#).is_err());
        assert!(merged(&[], r#"{"runtimes":{"x":{}}}"#).is_err());
    }
}
