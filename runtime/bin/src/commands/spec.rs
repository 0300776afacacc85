//! `spec`: an example config.json, the one that runc writes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Directory to write to (default: the current one)
    #[arg(short, long)]
    bundle: Option<PathBuf>,
}

impl Spec {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let path = self.bundle.clone().unwrap_or_default().join("config.json");
        let mut file = match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("file {} exists (remove it first)", path.display())
            }
            other => other.with_context(|| format!("create {}", path.display()))?,
        };
        let text = serde_json::to_string_pretty(&example()).context("spec")?;
        writeln!(file, "{text}").with_context(|| format!("write {}", path.display()))?;
        Ok(0)
    }
}

fn example() -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "berth",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let closed = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| [&closed[..], more].concat();
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", "shm", &with(&["mode=1777", "size=65536k"])),
        mount("/dev/mqueue", "mqueue", "mqueue", &closed),
        mount("/sys", "sysfs", "sysfs", &with(&["ro"])),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(&["relatime", "ro"])),
    ])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_is_a_valid_configuration() {
        let spec = serde_json::from_value(super::example()).unwrap();
        let context = berth_spec::CompileContext {
            bundle: "/bundle".into(),
            rootless: false,
            cgroup: berth_spec::CgroupMounts::V2 { mountpoint: "/sys/fs/cgroup".into() },
            cgroup_path: "/berth/example".into(),
            known_capabilities: None,
        };
        let plan = berth_spec::compile(&spec, &context).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }
}
