//! `features`: what this runtime supports (features.md of the runtime specification).

use anyhow::Context;
use berth_sys::seccomp;
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct Features {}

impl Features {
    // A method like every other command's, although it needs nothing of itself.
    #[allow(clippy::unused_self)]
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        println!("{}", serde_json::to_string_pretty(&features()?).context("features")?);
        Ok(0)
    }
}

fn features() -> anyhow::Result<Value> {
    let version = berth_cgroup::detect().map_or(0, |layout| layout.version());
    let filters = json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE"
        ],
        "archs": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        "knownFlags": SECCOMP_FLAGS.map(|(name, _)| name),
        "supportedFlags": supported_flags(),
    });
    Ok(json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": berth_spec::VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ],
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities()?,
            "cgroup": {
                "v1": version == 1, "v2": version == 2, "systemd": true, "systemdUser": true, "rdma": true
            },
            "seccomp": filters,
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_LOCAL"
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
            },
        },
        "annotations": { "berth.version": env!("CARGO_PKG_VERSION") },
    }))
}

/// The flags that config.json may give a filter, with their bits for the kernel: TSYNC is taken, and changes nothing.
const SECCOMP_FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", seccomp::FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", seccomp::FLAG_LOG),
    // Never alone: it is for listeners.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", seccomp::FLAG_WAIT_KILLABLE_RECV | seccomp::FLAG_NEW_LISTENER),
];

fn supported_flags() -> Vec<&'static str> {
    let supported = |&(name, bits): &(&'static str, u32)| seccomp::knows(bits).then_some(name);
    SECCOMP_FLAGS.iter().filter_map(supported).collect()
}

/// The names that config.json may use, as this machine's kernel knows them.
fn capabilities() -> anyhow::Result<Value> {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").context("read cap_last_cap")?;
    let last: u32 = text.trim().parse().context("cap_last_cap")?;
    let known = u64::MAX >> (63 - last.min(63));
    serde_json::to_value(berth_spec::defaults::all_capabilities(known)).context("capabilities")
}

/// The options that are attributes or propagation, not data of a file system (config.md, "Mounts").
fn mount_options() -> Vec<&'static str> {
    vec![
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "remount",
        "rexec",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_listed_mount_option_is_understood() {
        for option in super::mount_options() {
            let spec = serde_json::json!({
                "ociVersion": "1.2.0",
                "root": { "path": "rootfs" },
                "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["x"] },
                "mounts": [{ "destination": "/x", "type": "tmpfs", "source": "/x", "options": [option] }],
                "linux": { "namespaces": [{ "type": "mount" }] }
            });
            let context = berth_spec::CompileContext {
                bundle: "/bundle".into(),
                rootless: false,
                cgroup: berth_spec::CgroupMounts::None,
                cgroup_path: "/x".into(),
                known_capabilities: None,
                selinux: false,
            };
            let plan = berth_spec::compile(&serde_json::from_value(spec).unwrap(), &context);
            let plan = plan.unwrap_or_else(|error| panic!("{option}: {error}"));
            let as_data =
                plan.steps.iter().any(|step| format!("{step:?}").contains(&format!("key: {option:?}")));
            assert!(!as_data, "{option} was taken for data of the file system");
        }
    }
}
