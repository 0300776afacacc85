//! info, version, disk usage: what the daemon and its host are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_api::options::{DiskUsageKinds, ListContainers, ListImages};
use berth_api::system::{
    Component, DiskUsage, FirewallInfo, IndexInfo, PluginsInfo, RegistryServiceConfig, RuntimeInfo,
    SwarmInfo, SystemInfo, Version,
};
use berth_api::{ApiVersion, Time};

use crate::config::BUILT_IN;
use crate::containers::DRIVER;
use crate::engine::Engine;
use crate::error::Result;

/// Version of the daemon.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The kernel's release, `6.1.0-13-amd64`.
pub(crate) fn kernel() -> String {
    read("/proc/sys/kernel/osrelease")
}

/// The first two numbers of the kernel's release.
pub(crate) fn kernel_numbers() -> (u32, u32) {
    let release = kernel();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The host's name.
pub(crate) fn hostname() -> String {
    read("/proc/sys/kernel/hostname")
}

/// Bytes of memory.
pub(crate) fn memory() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// CPUs that are online.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether all controllers are in the unified hierarchy.
pub(crate) fn is_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether huge pages can be limited: by the unified hierarchy, when it has the controller.
pub(crate) fn limits_huge_pages() -> bool {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    controllers.split_whitespace().any(|controller| controller == "hugetlb")
}

/// Name and version of the distribution, from os-release(5).
fn distribution() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let name =
        Some(value("PRETTY_NAME")).filter(|name| !name.is_empty()).unwrap_or_else(|| "Linux".to_owned());
    (name, value("VERSION_ID"))
}

/// The file system that the engine's data are on, by docker's names.
fn file_system(root: &Path) -> String {
    use nix::sys::statfs::{
        BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    };
    let name = nix::sys::statfs::statfs(root).map(|found| match found.filesystem_type() {
        BTRFS_SUPER_MAGIC => "btrfs",
        EXT4_SUPER_MAGIC => "extfs",
        OVERLAYFS_SUPER_MAGIC => "overlayfs",
        TMPFS_MAGIC => "tmpfs",
        XFS_SUPER_MAGIC => "xfs",
        _ => "<unknown>",
    });
    name.unwrap_or("<unknown>").to_owned()
}

/// Go's name of the architecture.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Engine {
    /// Facts about daemon and host.
    ///
    /// # Errors
    /// When the image store cannot be read.
    pub async fn info(self: &Arc<Self>) -> Result<SystemInfo> {
        self.blocking(|engine| engine.collect_info()).await
    }

    fn collect_info(&self) -> Result<SystemInfo> {
        let containers = self.containers.all();
        let count = |test: &dyn Fn(&str) -> bool| {
            containers.iter().filter(|container| test(container.phase().as_str())).count() as i64
        };
        let (running, paused) = (count(&|state| state == "running"), count(&|state| state == "paused"));
        let (operating_system, os_version) = distribution();
        let v1 =
            |controller: &str| Path::new("/sys/fs/cgroup").join(controller).exists() || self.facts.cgroup_v2;
        let swap =
            self.facts.cgroup_v2 || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
        let entries = |path: &str| std::fs::read_dir(path).map_or(0, |entries| entries.count() as i64);
        let mut warnings: Vec<String> =
            self.network.warnings().into_iter().map(|warning| format!("WARNING: {warning}")).collect();
        if !self.facts.cgroup_v2 {
            warnings.push("WARNING: cgroup v1 is in use: limits per container are complete, but the kernel drops it one day".to_owned());
        }
        Ok(SystemInfo {
            id: self.id.clone(),
            containers: containers.len() as i64,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: containers.len() as i64 - running - paused,
            images: self.store.images().list(false)?.len() as i64,
            driver: DRIVER.to_owned(),
            driver_status: vec![
                ["Backing Filesystem".to_owned(), file_system(&self.config.root)],
                ["Supports d_type".to_owned(), "true".to_owned()],
                ["Using metacopy".to_owned(), "false".to_owned()],
                ["Native Overlay Diff".to_owned(), "true".to_owned()],
                ["userxattr".to_owned(), "false".to_owned()],
            ],
            plugins: plugins(),
            memory_limit: v1("memory"),
            swap_limit: swap,
            cpu_cfs_period: v1("cpu"),
            cpu_cfs_quota: v1("cpu"),
            cpu_shares: v1("cpu"),
            cpu_set: v1("cpuset"),
            pids_limit: v1("pids"),
            ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward") == "1",
            debug: self.config.debug,
            n_fd: entries("/proc/self/fd"),
            oom_kill_disable: !self.facts.cgroup_v2,
            n_goroutines: entries("/proc/self/task"),
            system_time: Time::now(),
            logging_driver: self.config.defaults.log_driver.clone(),
            cgroup_driver: self.config.cgroup_driver.as_str().to_owned(),
            cgroup_version: if self.facts.cgroup_v2 { "2" } else { "1" }.to_owned(),
            n_events_listener: self.events.listeners() as i64,
            kernel_version: kernel(),
            operating_system,
            os_version,
            os_type: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: self.registries(),
            n_cpu: self.facts.cpus as i64,
            mem_total: i64::try_from(memory()).unwrap_or(i64::MAX),
            docker_root_dir: self.config.root.display().to_string(),
            name: hostname(),
            labels: self.config.labels.clone(),
            server_version: VERSION.to_owned(),
            runtimes: self.runtimes(),
            default_runtime: self.config.defaults.runtime.clone(),
            cdi_spec_dirs: self.config.cdi.0.iter().map(|dir| dir.display().to_string()).collect(),
            init_binary: "docker-init".to_owned(),
            swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
            live_restore_enabled: true,
            security_options: ["name=seccomp,profile=builtin"]
                .into_iter()
                .chain(self.config.userns_remap.map(|_| "name=userns"))
                .map(str::to_owned)
                .collect(),
            firewall_backend: Some(FirewallInfo { driver: "nftables".to_owned(), info: Vec::new() }),
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            ..SystemInfo::default()
        })
    }

    fn runtimes(&self) -> BTreeMap<String, RuntimeInfo> {
        let own = RuntimeInfo { path: "berth-shim".to_owned(), ..RuntimeInfo::default() };
        let others = self.config.runtimes.iter().map(|(name, runtime)| {
            let path = runtime.path.display().to_string();
            (name.clone(), RuntimeInfo { path, ..RuntimeInfo::default() })
        });
        others.chain([(BUILT_IN.to_owned(), own)]).collect()
    }

    fn registries(&self) -> RegistryServiceConfig {
        let hub =
            IndexInfo { name: "docker.io".to_owned(), mirrors: Vec::new(), secure: true, official: true };
        let insecure = self.config.insecure_registries.iter().map(|name| {
            let index = IndexInfo { name: name.clone(), ..IndexInfo::default() };
            (name.clone(), index)
        });
        RegistryServiceConfig {
            insecure_registry_cidrs: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            index_configs: [("docker.io".to_owned(), hub)].into_iter().chain(insecure).collect(),
            mirrors: None,
        }
    }

    /// Versions.
    #[must_use]
    pub fn version(&self) -> Version {
        let (newest, oldest) = (ApiVersion::MAX.to_string(), ApiVersion::MIN.to_string());
        let details = [
            ("ApiVersion", newest.clone()),
            ("Arch", go_arch().to_owned()),
            ("Experimental", "false".to_owned()),
            ("KernelVersion", kernel()),
            ("MinAPIVersion", oldest.clone()),
            ("Os", "linux".to_owned()),
        ];
        let details = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Version {
            platform: berth_api::system::PlatformName { name: "Berth".to_owned() },
            components: vec![Component {
                name: "Engine".to_owned(),
                version: VERSION.to_owned(),
                details: Some(details),
            }],
            version: VERSION.to_owned(),
            api_version: newest,
            min_api_version: oldest,
            os: "linux".to_owned(),
            arch: go_arch().to_owned(),
            kernel_version: kernel(),
            ..Version::default()
        }
    }

    /// What takes how much of the disk.
    ///
    /// # Errors
    /// When the image store cannot be read.
    pub async fn disk_usage(self: &Arc<Self>, kinds: DiskUsageKinds) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if kinds.images {
            let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let sizes =
                self.blocking(|engine| Ok((engine.store.image_layers_size()?, engine.store.blobs_size()?)));
            let (layers, blobs) = sizes.await?;
            (usage.layers_size, usage.blobs_size) = (number(layers), Some(number(blobs)));
            let options = ListImages { shared_size: true, ..ListImages::default() };
            usage.images = Some(self.list_images(&options).await?);
        }
        if kinds.containers {
            let options = ListContainers { all: true, size: true, health: true, ..ListContainers::default() };
            usage.containers = Some(self.list_containers(&options).await?);
        }
        if kinds.volumes {
            usage.volumes = Some(self.volumes_with_usage().await?);
        }
        if kinds.build_cache {
            usage.build_cache = Some(self.build_cache().await?);
        }
        Ok(usage)
    }
}

fn plugins() -> PluginsInfo {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    PluginsInfo {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "null"]),
        authorization: None,
        log: list(&crate::logs::DRIVERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_known() {
        assert!(kernel_numbers().0 >= 5);
        assert!(memory() > 1 << 20);
        assert!(cpus() > 0);
        assert!(!distribution().0.is_empty());
    }
}
