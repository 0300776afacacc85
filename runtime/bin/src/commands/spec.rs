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
    /// For a container without root privileges: the caller is root inside, the host's network is used
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let own_cgroup = berth_cgroup::detect().is_ok_and(|layout| layout.version() == 2);
        let mut spec = example(own_cgroup);
        if self.rootless {
            without_root(&mut spec);
        }
        let path = self.bundle.clone().unwrap_or_default().join("config.json");
        let mut file = match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("file {} exists (remove it first)", path.display())
            }
            other => other.with_context(|| format!("create {}", path.display()))?,
        };
        let text = serde_json::to_string_pretty(&spec).context("spec")?;
        writeln!(file, "{text}").with_context(|| format!("write {}", path.display()))?;
        Ok(0)
    }
}

/// A cgroup namespace hides where the host keeps its version 1 groups, and old programs look there: runc's example has
/// one on version 2 only.
fn example(own_cgroup: bool) -> Value {
    let kinds = ["pid", "network", "ipc", "uts", "mount"].into_iter().chain(own_cgroup.then_some("cgroup"));
    let namespaces: Vec<Value> = kinds.map(|kind| json!({ "type": kind })).collect();
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": berth_spec::VERSION,
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
        "hostname": "runc",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// What the kernel refuses to a user without privileges goes out, a user namespace comes in.
fn without_root(spec: &mut Value) {
    let linux = &mut spec["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let own = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    linux["uidMappings"] = own(nix::unistd::geteuid().as_raw());
    linux["gidMappings"] = own(nix::unistd::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // sysfs belongs to the network namespace, which is the host's.
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
        } else if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            let fixed = |option: &Value| {
                option.as_str().is_some_and(|o| o.starts_with("uid=") || o.starts_with("gid="))
            };
            options.retain(|option| !fixed(option));
        }
    }
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
    fn the_examples_are_valid_configurations() {
        for own_cgroup in [false, true] {
            compile(super::example(own_cgroup), false);
            let mut spec = super::example(own_cgroup);
            super::without_root(&mut spec);
            assert!(!spec.to_string().contains("gid=5"));
            compile(spec, true);
        }
    }

    fn compile(spec: serde_json::Value, rootless: bool) {
        let spec = serde_json::from_value(spec).unwrap();
        let context = berth_spec::CompileContext {
            bundle: "/bundle".into(),
            rootless,
            cgroup: berth_spec::CgroupMounts::V2 { mountpoint: "/sys/fs/cgroup".into() },
            cgroup_path: "/berth/example".into(),
            known_capabilities: None,
            selinux: false,
        };
        let plan = berth_spec::compile(&spec, &context).unwrap();
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }
}
