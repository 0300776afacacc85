//! What containers and pods use, a container's limits, and its log's file.

use std::path::PathBuf;
use std::sync::Arc;

use berth_runtime_client::bundle;
use berth_runtime_client::protocol::{Stats, files};
use berth_spec::oci;
use jiff::Timestamp;

use super::hooks::ContainerMoment;
use super::model::PodResources;
use super::namespaces::{Pin, Pins};
use super::record::{ContainerPhase, ContainerView};
use super::registry::PodContainer;
use super::spec::resources;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// What a container uses.
#[derive(Debug, Clone)]
pub struct PodUsage {
    /// Whose it is.
    pub container: ContainerView,
    /// When it was read.
    pub at: Timestamp,
    /// Its cgroup's counters; none when it does not run.
    pub stats: Option<Stats>,
    /// Bytes and files of its writable layer.
    pub writable: (u64, u64),
}

/// How many of what a container's processes have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Processes.
    pub processes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Sockets among them.
    pub sockets: u64,
}

/// What has gone through one interface of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub received: u64,
    /// Errors while receiving.
    pub receive_errors: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Errors while sending.
    pub send_errors: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Received packets that were dropped.
    pub receive_dropped: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets to be sent that were dropped.
    pub send_dropped: u64,
}

/// What the store of images and containers' writable layers uses.
#[derive(Debug, Clone)]
pub struct StoreUsage {
    /// A directory on the file system.
    pub mountpoint: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// Files of the whole file system: to count only our own would take a walk through all layers.
    pub inodes: u64,
}

/// The writable layer of a container is measured at most so often.
const SCAN: std::time::Duration = std::time::Duration::from_secs(10);

impl Engine {
    /// What one container uses.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod_usage(self: &Arc<Self>, id: &str) -> Result<PodUsage> {
        let container = self.pods.container(id)?;
        self.usage_of(&container).await
    }

    /// What all these containers use; one that ends meanwhile is left out.
    pub async fn pod_usages(self: &Arc<Self>, wanted: impl Fn(&ContainerView) -> bool) -> Vec<PodUsage> {
        let containers = self.pods.containers();
        let running = containers.iter().filter(|container| {
            container.phase() == ContainerPhase::Running && wanted(&ContainerView::from(&container.record()))
        });
        let usages = futures_util::future::join_all(running.map(|container| self.usage_of(container))).await;
        usages.into_iter().filter_map(Result::ok).collect()
    }

    async fn usage_of(self: &Arc<Self>, container: &Arc<PodContainer>) -> Result<PodUsage> {
        let stats = match container.shim() {
            Ok(shim) => shim.stats().await.ok(),
            Err(_) => None,
        };
        let at = Timestamp::now();
        let writable = match container.measured(SCAN) {
            Some(known) => known,
            None => {
                let id = container.id.clone();
                let found = self.blocking(move |engine| engine.writable_layer(&id)).await?;
                container.measure(found);
                found
            }
        };
        Ok(PodUsage { container: (&container.record()).into(), at, stats, writable })
    }

    /// What a container's processes have open; nothing of one that does not run.
    pub async fn pod_processes(self: &Arc<Self>, id: &str) -> ProcessCounts {
        let pids = match self.pods.container(id).and_then(|container| container.shim()) {
            Ok(shim) => shim.pids().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        self.blocking(move |_| Ok(count(&pids))).await.unwrap_or_default()
    }

    fn writable_layer(&self, id: &str) -> Result<(u64, u64)> {
        let Some(snapshot) = self.store.snapshots().get(id)? else { return Ok((0, 0)) };
        Ok(crate::fsutil::tree_usage(&snapshot.upper))
    }

    /// What has gone through a pod's interfaces; none on the host's network.
    pub async fn pod_interfaces(self: &Arc<Self>, sandbox: &str) -> Vec<InterfaceUsage> {
        let pins = self.pins(sandbox);
        self.blocking(move |_| Ok(interfaces_of(&pins))).await.unwrap_or_default()
    }
    /// What images and containers use together.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn pod_store_usage(self: &Arc<Self>) -> Result<StoreUsage> {
        self.blocking(|engine| {
            let root = &engine.config.root;
            let whole = nix::sys::statvfs::statvfs(root).during("look at the file system of", root)?;
            Ok(StoreUsage {
                mountpoint: root.clone(),
                bytes: engine.store.counted() + engine.store.snapshots().total_size()?,
                inodes: whole.files().saturating_sub(whole.files_free()),
            })
        })
        .await
    }

    /// Changes a container's limits; before its start as well.
    ///
    /// # Errors
    /// When there is no such container, it has ended, or the kernel refuses a value: then nothing has changed.
    pub async fn update_pod_container(self: &Arc<Self>, id: &str, change: PodResources) -> Result<()> {
        let container = self.pods.container(id)?;
        // Before the container is locked: plugins change other containers.
        let change = self.ask_about_update(&container, change).await?;
        self.change_limits(&container.id, change).await?;
        self.container_moment_told(ContainerMoment::Updated, &container).await;
        Ok(())
    }

    /// The same, and nobody is asked: plugins themselves want it.
    ///
    /// # Errors
    /// As above.
    pub async fn change_limits(self: &Arc<Self>, id: &str, change: PodResources) -> Result<()> {
        let container = self.pods.container(id)?;
        let engine = Arc::clone(self);
        self.detached(async move {
            let _operation = container.operation.lock().await;
            let record = container.record();
            let merged = merged(&record.spec.resources, change);
            match record.status.phase {
                ContainerPhase::Exited => {
                    return Err(EngineError::conflict(format!("container {} has ended", container.id)));
                }
                ContainerPhase::Running => container.shim()?.update(resources(&merged)).await?,
                ContainerPhase::Created => {}
            }
            engine.rewrite_limits(&container, &merged)?;
            container.change(&engine.db, |record| {
                Arc::make_mut(&mut record.spec).resources = merged;
            })
        })
        .await
    }

    fn rewrite_limits(&self, container: &PodContainer, limits: &PodResources) -> Result<()> {
        let dir = self.pod_run_dir(&container.sandbox, &container.id);
        let path = dir.join(files::CONFIG);
        let text = std::fs::read(&path).during("read", &path)?;
        let mut spec: oci::Spec = serde_json::from_slice(&text)
            .map_err(|error| EngineError::internal(format!("{}: {error}", path.display())))?;
        if let Some(linux) = spec.linux_mut() {
            let devices = linux.resources().as_ref().and_then(|all| all.devices().clone());
            let mut limits = resources(limits);
            limits.set_devices(devices);
            linux.set_resources(Some(limits));
        }
        Ok(bundle::write(&dir, &spec)?)
    }

    /// The log's file was moved away: the container goes on in a new one.
    ///
    /// # Errors
    /// When there is no such container, it does not run, or the file cannot be made.
    pub async fn reopen_pod_log(&self, id: &str) -> Result<()> {
        Ok(self.pods.container(id)?.shim()?.reopen_log().await?)
    }
}

/// Descriptors of processes, one of which may end meanwhile.
fn count(pids: &[i32]) -> ProcessCounts {
    let mut counts = ProcessCounts { processes: pids.len() as u64, ..ProcessCounts::default() };
    for pid in pids {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            counts.descriptors += 1;
            let is_socket =
                |link: &std::path::Path| link.as_os_str().as_encoded_bytes().starts_with(b"socket:");
            counts.sockets += u64::from(std::fs::read_link(entry.path()).is_ok_and(|link| is_socket(&link)));
        }
    }
    counts
}

/// What is given replaces what was there.
fn merged(old: &PodResources, new: PodResources) -> PodResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: String| if new.is_empty() { old.clone() } else { new };
    PodResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        cpuset_cpus: text(&old.cpuset_cpus, new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, new.cpuset_mems),
        memory: number(old.memory, new.memory),
        memory_swap: number(old.memory_swap, new.memory_swap),
        memory_reservation: number(old.memory_reservation, new.memory_reservation),
        pids: number(old.pids, new.pids),
        oom_score_adj: old.oom_score_adj,
        hugepages: old.hugepages.clone().into_iter().chain(new.hugepages).collect(),
        unified: old.unified.clone().into_iter().chain(new.unified).collect(),
    }
}

fn interfaces_of(pins: &Pins) -> Vec<InterfaceUsage> {
    if !pins.holds(Pin::Network) {
        return Vec::new();
    }
    let table = pins.open(Pin::Network).map(|netns| {
        let read = move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            std::fs::read_to_string("/proc/thread-self/net/dev").ok()
        };
        // A thread of its own: it changes its namespace and ends.
        std::thread::spawn(read).join().ok().flatten().unwrap_or_default()
    });
    table.map(|table| interfaces(&table)).unwrap_or_default()
}

/// /proc/net/dev: two lines of heads, then `name: rx bytes packets errs drop fifo frame compressed multicast | tx …`.
fn interfaces(table: &str) -> Vec<InterfaceUsage> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        Some(InterfaceUsage {
            name: name.trim().to_owned(),
            received: at(0),
            packets_received: at(1),
            receive_errors: at(2),
            receive_dropped: at(3),
            sent: at(8),
            packets_sent: at(9),
            send_errors: at(10),
            send_dropped: at(11),
        })
    };
    table.lines().skip(2).filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_but_not_loopback() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
             eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let found = interfaces(table);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].received, found[0].sent), ("eth0", 10, 50));
        assert_eq!((found[0].receive_errors, found[0].send_dropped), (3, 8));
    }

    #[test]
    fn an_update_changes_only_what_it_names() {
        let old = PodResources { cpu_shares: 10, memory: 5, ..PodResources::default() };
        let new = PodResources { memory: 7, cpuset_cpus: "0".into(), ..PodResources::default() };
        let merged = merged(&old, new);
        assert_eq!((merged.cpu_shares, merged.memory, merged.cpuset_cpus.as_str()), (10, 7, "0"));
    }
}
