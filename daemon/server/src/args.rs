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
    hosts: Vec<String>,

    /// Group that may use the unix sockets [default: docker, if there is one]
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub(crate) group: Option<String>,

    /// How much to log to stderr: error, warn, info, debug, trace, or a filter like berth_engine=debug
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info", env = "BERTH_LOG")]
    pub(crate) log_level: String,

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

    /// Directory of CNI network configurations for pods; without one they are on the default bridge
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,

    /// Directory of CNI plugins; may be given several times [default: /opt/cni/bin, /usr/lib/cni]
    #[arg(long, value_name = "DIR")]
    pub(crate) cni_bin_dir: Vec<PathBuf>,

    /// Full name of an image that a kubelet must not remove to make room; may be given several times
    #[arg(long, value_name = "IMAGE")]
    pub(crate) cri_pinned_image: Vec<String>,

    /// The program berth-shim [default: beside berthd itself]
    #[arg(long, value_name = "FILE")]
    shim: Option<PathBuf>,

    /// File for the process id [default: <run-root>/berthd.pid]
    #[arg(short = 'p', long, value_name = "FILE")]
    pidfile: Option<PathBuf>,

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
