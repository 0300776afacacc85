//! Asks a daemon's CRI for a pod inside a virtual machine (`tests/vm`), and looks at the cgroups that it gets.
//!
//!     vm_pods SOCKET cgroupfs|systemd make|again|end
//!
//! A phase for each life of the daemon; what one has made is found by the next. Results go to standard output, as `ok`
//! and `not ok`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use berth_cri::v1;
use berth_cri::v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

/// A kubelet's names for a pod of the class "burstable": of its slice, and of the slice's place.
const SLICE: [&str; 2] = [
    "kubepods-burstable-podvm.slice",
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podvm.slice",
];
/// The same without systemd.
const PATH: [&str; 2] = ["/kubepods/burstable/podvm", "kubepods/burstable/podvm"];

const MIB: i64 = 1 << 20;

struct Guest {
    runtime: RuntimeServiceClient<Channel>,
    systemd: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, driver, phase] = arguments.as_slice() else { bail!("vm_pods SOCKET DRIVER PHASE") };
    let socket = PathBuf::from(socket);
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://cri").connect_with_connector_lazy(connect);
    let mut guest = Guest { runtime: RuntimeServiceClient::new(channel), systemd: driver == "systemd" };
    match phase.as_str() {
        "make" => guest.make().await,
        "again" => guest.again().await,
        "end" => guest.end().await,
        other => bail!("no phase {other:?}"),
    }
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) {
    if found == wanted {
        println!("ok pods: {what}");
    } else {
        println!("not ok pods: {what}: {found:?} instead of {wanted:?}");
    }
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Waits; the machine is slow.
async fn until(mut so: impl FnMut() -> bool) -> bool {
    for _ in 0..600 {
        if so() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

fn container(name: &str, limits: v1::LinuxContainerResources) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "base".to_owned(), ..Default::default() }),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        linux: Some(v1::LinuxContainerConfig { resources: Some(limits), ..Default::default() }),
        ..Default::default()
    }
}

impl Guest {
    fn parent(&self) -> [&'static str; 2] {
        if self.systemd { SLICE } else { PATH }
    }

    /// The cgroup of a pod's init or of a container.
    fn group(&self, id: &str) -> PathBuf {
        let name = if self.systemd { format!("berth-{id}.scope") } else { id.to_owned() };
        PathBuf::from("/sys/fs/cgroup").join(self.parent()[1]).join(name)
    }

    /// Control files, on one line.
    fn files(&self, id: &str, names: &[&str]) -> String {
        let read = |name: &&str| {
            let text = std::fs::read_to_string(self.group(id).join(name));
            text.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
        };
        names.iter().map(read).collect::<Vec<_>>().join(" ")
    }

    /// What systemd says of a scope.
    fn properties(&self, id: &str, names: &[&str]) -> String {
        let unit = format!("berth-{id}.scope");
        let value = |name: &&str| command("systemctl", &["show", "--property", name, "--value", &unit]);
        names.iter().map(value).collect::<Vec<_>>().join(" ")
    }

    async fn running(&mut self, pod: &str, config: v1::ContainerConfig) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        let id = self.runtime.create_container(request).await?.into_inner().container_id;
        self.runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await?;
        Ok(id)
    }

    async fn limit(&mut self, id: &str, mebibytes: i64) -> Result<()> {
        let linux =
            v1::LinuxContainerResources { memory_limit_in_bytes: mebibytes * MIB, ..Default::default() };
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        self.runtime.update_container_resources(request).await?;
        Ok(())
    }

    async fn make(&mut self) -> Result<()> {
        let config = self.runtime.runtime_config(v1::RuntimeConfigRequest::default()).await?.into_inner();
        let driver = if self.systemd { v1::CgroupDriver::Systemd } else { v1::CgroupDriver::Cgroupfs };
        check("the driver is told", config.linux.unwrap_or_default().cgroup_driver(), driver);
        let linux =
            v1::LinuxPodSandboxConfig { cgroup_parent: self.parent()[0].to_owned(), ..Default::default() };
        let pod = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "vm".to_owned(),
                uid: "vm".to_owned(),
                namespace: "vm".to_owned(),
                attempt: 0,
            }),
            linux: Some(linux),
            ..Default::default()
        };
        let request = v1::RunPodSandboxRequest { config: Some(pod), runtime_handler: String::new() };
        let pod = self.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        check(
            "the pod's init has a cgroup below the pod's",
            self.files(&pod, &["pids.current"]),
            "1".to_owned(),
        );
        let limits = v1::LinuxContainerResources {
            memory_limit_in_bytes: 64 * MIB,
            cpu_shares: 2048,
            cpu_quota: 20_000,
            cpu_period: 50_000,
            cpuset_cpus: "0".to_owned(),
            unified: [("memory.high".to_owned(), (48 * MIB).to_string())].into(),
            ..Default::default()
        };
        let id = self.running(&pod, container("limited", limits)).await?;
        let names = ["memory.max", "memory.high", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.current"];
        check("limits", self.files(&id, &names), "67108864 50331648 174 20000 50000 0 1".to_owned());
        if self.systemd {
            let names =
                ["ActiveState", "Slice", "MemoryMax", "CPUWeight", "CPUQuotaPerSecUSec", "AllowedCPUs"];
            let wanted = format!("active {} 67108864 174 400ms 0", SLICE[0]);
            check("systemd knows them", self.properties(&id, &names), wanted);
        }
        let cmd = ["cat", "/proc/self/cgroup"].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 0 };
        let output = self.runtime.exec_sync(request).await?.into_inner();
        check(
            "exec is in the container's",
            String::from_utf8_lossy(&output.stdout).into_owned(),
            "0::/\n".to_owned(),
        );
        let request = v1::ContainerStatsRequest { container_id: id.clone() };
        let stats = self.runtime.container_stats(request).await?.into_inner().stats.unwrap_or_default();
        let used = stats.memory.and_then(|memory| memory.usage_bytes).is_some_and(|bytes| bytes.value > 0);
        check("use is counted", used, true);
        self.limit(&id, 96).await?;
        if self.systemd {
            command("systemctl", &["daemon-reload"]);
            check("systemd knows a change", self.properties(&id, &["MemoryMax"]), "100663296".to_owned());
        }
        check("a limit is changed", self.files(&id, &["memory.max"]), "100663296".to_owned());
        self.lose_a_shim(&pod).await
    }

    /// What a shim that was killed leaves is swept up.
    async fn lose_a_shim(&mut self, pod: &str) -> Result<()> {
        let id = self.running(pod, container("lost", v1::LinuxContainerResources::default())).await?;
        let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let info = self.runtime.container_status(request.clone()).await?.into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"])?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", info["pid"]))?;
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
        command("kill", &["-KILL", shim.trim()]);
        check("a killed shim's cgroup goes", until(|| !self.group(&id).exists()).await, true);
        for _ in 0..600 {
            let status = self.runtime.container_status(request.clone()).await?.into_inner().status;
            let status = status.unwrap_or_default();
            if status.state() == v1::ContainerState::ContainerExited {
                check(
                    "its container has ended",
                    (status.exit_code, status.reason.as_str()),
                    (255, "Unknown"),
                );
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("a container whose shim was killed goes on")
    }

    /// The pod and its container that goes on.
    async fn found(&mut self) -> Result<(v1::PodSandbox, v1::Container)> {
        let pods =
            self.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items;
        let pod = pods.into_iter().next().context("the pod is gone")?;
        let list = self.runtime.list_containers(v1::ListContainersRequest::default()).await?.into_inner();
        let is = |one: &v1::Container| one.metadata.as_ref().is_some_and(|own| own.name == "limited");
        Ok((pod, list.containers.into_iter().find(is).context("the container is gone")?))
    }

    async fn again(&mut self) -> Result<()> {
        let (pod, one) = self.found().await?;
        let states = (pod.state(), one.state());
        let wanted = (v1::PodSandboxState::SandboxReady, v1::ContainerState::ContainerRunning);
        check("pods outlive the daemon", states, wanted);
        self.limit(&one.id, 128).await?;
        check(
            "and their limits can be changed",
            self.files(&one.id, &["memory.max"]),
            "134217728".to_owned(),
        );
        if self.systemd {
            check("which systemd knows", self.properties(&one.id, &["MemoryMax"]), "134217728".to_owned());
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        let (pod, one) = self.found().await?;
        let id = pod.id.clone();
        self.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
        self.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
        let gone = [&pod.id, &one.id].map(|id| self.group(id)).iter().all(|group| !group.exists());
        check("cgroups go with the pod", gone, true);
        let parent = PathBuf::from("/sys/fs/cgroup").join(self.parent()[1]);
        if self.systemd {
            let list = ["list-units", "--all", "--plain", "--no-legend", "berth-*.scope"];
            check("and units", command("systemctl", &list), String::new());
            command("systemctl", &["stop", SLICE[0]]);
            check("the pod's slice can be stopped", until(|| !parent.exists()).await, true);
        } else {
            // rmdir(2) takes empty groups only.
            check("the pod's cgroup can be removed", std::fs::remove_dir(&parent).is_ok(), true);
        }
        Ok(())
    }
}
