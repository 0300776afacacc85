//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

/// The Berth daemon: serves the Docker Engine API, and the Kubernetes CRI at <run-root>/cri.sock.
#[derive(Debug, Parser)]
#[command(name = "berthd", version)]
pub(crate) struct Args {
    /// Directory of images, volumes and containers
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth", env = "BERTH_ROOT")]
    pub(crate) root: PathBuf,

    /// Directory of sockets and other state that a reboot may take
    #[arg(long, value_name = "DIR", default_value = "/run/berth", env = "BERTH_RUN_ROOT")]
    pub(crate) run_root: PathBuf,

    /// Address to listen on, unix:///path or tcp://127.0.0.1:port; may be given several times
    /// [default: unix://<run-root>/berth.sock]
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    pub(crate) hosts: Vec<String>,

    /// Group that may use the unix sockets [default: docker, if there is one]
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// How much to log to stderr: error, warn, info, debug, trace, or a filter like berth_engine=debug
    /// [default: info]
    #[arg(short = 'l', long, value_name = "LEVEL", env = "BERTH_LOG")]
    log_level: Option<String>,

    /// Log debug lines
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,

    /// Directory with a directory for each registry (hosts.toml, certificates); may be given several times
    /// [default: /etc/berth/certs.d, /etc/docker/certs.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) registry_dir: Vec<PathBuf>,

    /// Registry (host[:port]) to speak to without TLS; those of this host always are; may be given several times
    #[arg(long, value_name = "REGISTRY")]
    pub(crate) insecure_registry: Vec<String>,

    /// Size that the image store never passes, such as 50GB; before it does, images that no container uses are removed,
    /// the oldest first [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) image_cap: Option<u64>,

    /// Size that the build cache never passes, its records and cache mounts included; before it does, what was used
    /// longest ago is removed [default: a fifth of the file system]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) build_cache_cap: Option<u64>,

    /// Directory of CNI network configurations for pods; without one they are on the default bridge
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,

    /// Directory of CNI plugins; may be given several times [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Vec<PathBuf>,

    /// Full name of an image that a kubelet must not remove to make room; may be given several times
    #[arg(long, value_name = "IMAGE")]
    pub(crate) cri_pinned_image: Vec<String>,

    /// File with classes of block I/O that pods may ask for by annotation, in the form of containerd and CRI-O
    #[arg(long, value_name = "FILE")]
    pub(crate) cri_blockio_classes: Option<PathBuf>,

    /// Let a kubelet restore containers from images that are checkpoints, whose processes get the rights they had
    #[arg(long)]
    pub(crate) cri_restore_images: bool,

    /// Socket for plugins of the Node Resource Interface [default: <run-root>/nri.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) nri_socket: Option<PathBuf>,

    /// The program berth-shim [default: beside berthd itself]
    #[arg(long, value_name = "FILE")]
    pub(crate) shim: Option<PathBuf>,

    /// File for the process id [default: <run-root>/berthd.pid]
    #[arg(short = 'p', long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,

    /// File with settings in docker's form (daemon.json); what the command line says counts more
    /// [default: /etc/berth/daemon.json, if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,

    /// Speak TLS on TCP addresses
    #[arg(long)]
    pub(crate) tls: bool,

    /// Speak TLS on TCP addresses, to clients with a certificate of --tlscacert only
    #[arg(long)]
    pub(crate) tlsverify: bool,

    /// Certificates of the authority that signs clients' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,

    /// Certificate of this daemon (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,

    /// Key of this daemon's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,

    /// Name server of containers that ask for none; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<String>,

    /// Label of this daemon, KEY=VALUE; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,

    /// Parent cgroup of containers that name none [default: /berth; system.slice with the systemd driver]
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,

    /// Option for running containers: native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd, who makes their
    /// cgroups [default: native.cgroupdriver=cgroupfs]
    #[arg(long = "exec-opt", value_name = "KEY=VALUE")]
    pub(crate) exec_opts: Vec<String>,

    /// Give an init process to containers that do not say otherwise
    #[arg(long)]
    pub(crate) init: bool,

    /// Give containers users of their own: those that /etc/subuid and /etc/subgid give to this user
    /// (USER[:GROUP], or "default", which is dockremap), or FIRST+COUNT
    #[arg(long, value_name = "USER")]
    pub(crate) userns_remap: Option<String>,

    /// Another OCI runtime that containers may ask for, NAME=PATH; may be given several times
    #[arg(long, value_name = "NAME=PATH", value_parser = runtime)]
    pub(crate) add_runtime: Vec<(String, PathBuf)>,

    /// Runtime of containers that ask for none [default: runc, which is Berth's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) default_runtime: Option<String>,

    /// Directory with descriptions of devices (CDI); may be given several times [default: /etc/cdi, /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    pub(crate) cdi_spec_dir: Vec<PathBuf>,

    /// Log driver of containers that ask for none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,

    /// Option of the default log driver, KEY=VALUE; may be given several times
    #[arg(long = "log-opt", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) log_opts: Vec<(String, String)>,

    /// Option of the storage, KEY=VALUE: overlay2.size=10G bounds what each container may write into its own tree;
    /// may be given several times
    #[arg(long = "storage-opt", value_name = "KEY=VALUE")]
    pub(crate) storage_opts: Vec<String>,

    /// Open descriptor to which a newline is written once clients are served
    #[arg(long, value_name = "N")]
    pub(crate) ready_fd: Option<i32>,
}

impl Args {
    /// Where to listen.
    pub(crate) fn hosts(&self) -> Vec<String> {
        if self.hosts.is_empty() {
            return vec![format!("unix://{}", self.run_root.join("berth.sock").display())];
        }
        self.hosts.clone()
    }

    /// What to log.
    pub(crate) fn log_level(&self) -> &str {
        match (&self.log_level, self.debug) {
            (Some(level), _) => level,
            (None, true) => "debug",
            (None, false) => "info",
        }
    }

    pub(crate) fn set_log_level(&mut self, level: String) {
        self.log_level.get_or_insert(level);
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        self.pidfile.clone().unwrap_or_else(|| self.run_root.join("berthd.pid"))
    }

    /// The shim's program; it must be there before the first container needs it.
    pub(crate) fn shim(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.shim {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("finding the own program")?.with_file_name("berth-shim"),
        };
        let hint =
            || format!("no berth-shim at {}: install it beside berthd or give --shim FILE", path.display());
        path.canonicalize().with_context(hint)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn runtime(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form NAME=PATH"))?;
    if name.is_empty() || path.is_empty() {
        return Err(format!("{text:?} is not of the form NAME=PATH"));
    }
    Ok((name.to_owned(), path.into()))
}

/// Bytes, or with a unit of 1000 (kB, MB, GB, TB) or 1024 (KiB, MiB, GiB, TiB).
fn size(text: &str) -> Result<u64, String> {
    let bad =
        || format!("{text:?} is no size: a number with B, kB, MB, GB, TB or KiB, MiB, GiB, TiB is expected");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    text[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

/// Bytes, or with a unit of 1024 as docker has them for memory: `64m`, `1g`.
pub(crate) fn binary_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("{text:?} is no size")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("{text:?} is no size"))?;
    number.checked_shl(shift).ok_or_else(|| format!("{text:?} is no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_root_moves_socket_and_pidfile() {
        let args = Args::parse_from(["berthd", "--run-root", "/x"]);
        assert_eq!(args.hosts(), ["unix:///x/berth.sock"]);
        assert_eq!(args.pidfile(), PathBuf::from("/x/berthd.pid"));
        let args =
            Args::parse_from(["berthd", "-H", "unix:///a", "--host=tcp://127.0.0.1:1", "--pidfile=/p"]);
        assert_eq!(args.hosts(), ["unix:///a", "tcp://127.0.0.1:1"]);
        assert_eq!(args.pidfile(), PathBuf::from("/p"));
    }

    #[test]
    fn sizes() {
        let cap =
            |text: &str| Args::try_parse_from(["berthd", "--image-cap", text]).map(|args| args.image_cap);
        assert_eq!(cap("50GB").unwrap(), Some(50_000_000_000));
        assert_eq!(cap("1GiB").unwrap(), Some(1 << 30));
        assert_eq!(cap("77").unwrap(), Some(77));
        for bad in ["", "GB", "5 apples", "99999999999TB"] {
            assert!(cap(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
