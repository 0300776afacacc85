//! A client of a daemon's CRI socket, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::v1;
use berth_cri::v1::image_service_client::ImageServiceClient;
use berth_cri::v1::runtime_service_client::RuntimeServiceClient;
use berth_tests::daemon::Daemon;
use berth_tests::host::Host;
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A daemon with the image `busybox`, and a client of its CRI.
pub(crate) struct Cri {
    pub(crate) daemon: Daemon,
    channel: Channel,
    logs: PathBuf,
}

fn channel(socket: PathBuf) -> Channel {
    // The engine's socket is there a moment before this one.
    let begin = std::time::Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(60),
            "nobody listens on {}",
            socket.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://cri").connect_with_connector_lazy(connect)
}

/// The pod that tests ask for unless they say otherwise.
pub(crate) fn pod(name: &str, logs: &Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
            namespace: "tests".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.display().to_string(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs this in a shell.
pub(crate) fn container(name: &str, script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "busybox".to_owned(), ..Default::default() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Cri {
    /// One daemon, on networks without CNI.
    pub(crate) fn start() -> Self {
        Self::with_arguments(&[])
    }

    /// One with these arguments.
    pub(crate) fn with_arguments(arguments: &[&str]) -> Self {
        Self::of(Daemon::with_arguments(&[&["--cni-conf-dir", "/nonexistent"], arguments].concat()))
    }

    /// One on a host of its own, with CNI configurations in this directory and plugins in `bin` below it.
    pub(crate) fn on(host: &Host, configurations: &Path) -> Self {
        let own = configurations.join("bin").display().to_string();
        let configurations = configurations.display().to_string();
        let plugins = ["--cni-bin-dir", &own, "--cni-bin-dir", "/usr/lib/cni"];
        let arguments = [["--cni-conf-dir", &configurations].as_slice(), &plugins].concat();
        Self::of(Daemon::on_with_arguments(host, &arguments))
    }

    fn of(daemon: Daemon) -> Self {
        daemon.cli(berth_tests::cli::Frontend::Berth).import_busybox("busybox");
        let logs = daemon.scratch("logs");
        let channel = channel(daemon.run_root().join("cri.sock"));
        Self { daemon, channel, logs }
    }

    /// Kills the daemon.
    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts the daemon again, and a client of it.
    pub(crate) fn start_again(&mut self) {
        self.daemon.start_again();
        self.channel = channel(self.daemon.run_root().join("cri.sock"));
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }

    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    pub(crate) async fn run(&self, config: v1::PodSandboxConfig) -> Result<String, Status> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn create(&self, pod: &str, config: v1::ContainerConfig) -> Result<String, Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.runtime().create_container(request).await?.into_inner().container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Status> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        self.runtime().start_container(request).await.map(drop)
    }

    /// A container that runs.
    pub(crate) async fn running(&self, pod: &str, name: &str, script: &str) -> String {
        let id = self.create(pod, container(name, script)).await.expect("create a container");
        self.start_container(&id).await.expect("start a container");
        id
    }

    pub(crate) async fn stop_container(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout };
        self.runtime().stop_container(request).await.map(drop)
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.runtime().remove_container(request).await.map(drop)
    }

    pub(crate) async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        self.runtime()
            .stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() })
            .await
            .map(drop)
    }

    pub(crate) async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        self.runtime().remove_pod_sandbox(request).await.map(drop)
    }

    pub(crate) async fn status(&self, id: &str) -> Result<v1::ContainerStatus, Status> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.runtime().container_status(request).await?.into_inner().status.expect("a status"))
    }

    pub(crate) async fn pod_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Status> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Ok(self.runtime().pod_sandbox_status(request).await?.into_inner().status.expect("a status"))
    }

    /// Waits until a container has ended.
    pub(crate) async fn ended(&self, id: &str) -> v1::ContainerStatus {
        let ended = async {
            loop {
                let status = self.status(id).await.expect("the status of a container");
                if status.state() == v1::ContainerState::ContainerExited {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the container's end")
    }

    pub(crate) async fn exec(
        &self,
        id: &str,
        script: &str,
        timeout: i64,
    ) -> Result<v1::ExecSyncResponse, Status> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.runtime().exec_sync(request).await.map(tonic::Response::into_inner)
    }

    /// What a command writes to its standard output.
    pub(crate) async fn says(&self, id: &str, script: &str) -> String {
        let output = self.exec(id, script, 60).await.expect("exec");
        assert_eq!(output.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// The texts of a log's lines, each behind its stream and tag.
    pub(crate) fn log(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.logs.join(file)).expect("a log");
        let tail = |line: &str| {
            let (time, tail) = line.split_once(' ').expect("a time and more");
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time} is no time");
            tail.to_owned()
        };
        text.lines().map(tail).collect()
    }
}

/// Waits until something is so; a busy machine may take its time.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
