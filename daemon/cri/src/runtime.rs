//! The runtime service.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_engine::{CgroupDriver, ContainerPhase, ContainerView, Engine, PodChange, PodEvent, Streams};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::convert::{filter, nanoseconds, request, view};
use crate::failure::{missing, status};
use crate::metrics;
use crate::serve::{Chunks, chunks};
use crate::stats::{self, Rates};
use crate::streaming::{Streaming, Task};
use crate::v1;
use crate::v1::runtime_service_server::RuntimeService;

/// The runtime's name; a part of the id of every container that an orchestrator knows, so it never changes.
const NAME: &str = "berth";

/// The version of the interface that the kubelet asks for.
const KUBELET_API: &str = "0.1.0";

type Answer<T> = Result<Response<T>, Status>;

/// The runtime service over the engine's pods.
#[derive(Debug)]
pub(crate) struct Runtime {
    engine: Arc<Engine>,
    rates: Rates,
    streaming: Arc<Streaming>,
}

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

impl Runtime {
    /// `stop` ends streaming sessions.
    pub(crate) fn new(engine: Arc<Engine>, stop: CancellationToken) -> Self {
        let streaming = Arc::new(Streaming::new(Arc::clone(&engine), stop));
        Self { engine, rates: Rates::default(), streaming }
    }

    fn sandbox_items(&self, filter: Option<&v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let all = self.engine.sandboxes();
        all.iter().filter(|one| filter::sandbox(filter, one)).map(view::sandbox_item).collect()
    }

    fn container_items(&self, filter: Option<&v1::ContainerFilter>) -> Vec<v1::Container> {
        let all = self.engine.pod_containers();
        all.iter().filter(|one| filter::container(filter, one)).map(view::container_item).collect()
    }

    fn mountpoint(&self) -> String {
        self.engine.root().display().to_string()
    }

    async fn container_stats_of(&self, filter: Option<&v1::ContainerStatsFilter>) -> Vec<v1::ContainerStats> {
        let usages = self.engine.pod_usages(|container| filter::stats(filter, container)).await;
        let mountpoint = self.mountpoint();
        usages.iter().map(|usage| stats::container(usage, &self.rates, &mountpoint)).collect()
    }

    async fn sandbox_stats_of(&self, sandboxes: Vec<berth_engine::SandboxView>) -> Vec<v1::PodSandboxStats> {
        let mountpoint = self.mountpoint();
        let mut all = Vec::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            let usages = self.engine.pod_usages(|container| container.sandbox == sandbox.id).await;
            let interfaces = self.engine.pod_interfaces(&sandbox.id).await;
            all.push(stats::sandbox(&sandbox, &usages, &interfaces, &self.rates, &mountpoint));
        }
        all
    }

    async fn sandbox_stats_by(&self, filter: Option<&v1::PodSandboxStatsFilter>) -> Vec<v1::PodSandboxStats> {
        let all = self.engine.sandboxes();
        let wanted = all.into_iter().filter(|one| one.ready && filter::sandbox_stats(filter, one)).collect();
        self.sandbox_stats_of(wanted).await
    }

    async fn metrics(&self) -> Vec<v1::PodSandboxMetrics> {
        let disk = self.disk();
        let mut all = Vec::new();
        for sandbox in self.engine.sandboxes().into_iter().filter(|sandbox| sandbox.ready) {
            let mut containers = Vec::new();
            for usage in self.engine.pod_usages(|container| container.sandbox == sandbox.id).await {
                let processes = self.engine.pod_processes(&usage.container.id).await;
                containers.push((usage, processes));
            }
            let interfaces = self.engine.pod_interfaces(&sandbox.id).await;
            all.push(metrics::sandbox(&sandbox, &containers, &interfaces, &disk));
        }
        all
    }

    fn disk(&self) -> metrics::Disk {
        let path = self.mountpoint();
        match nix::sys::statvfs::statvfs(self.engine.root()) {
            Ok(found) => metrics::Disk {
                size: found.blocks() * found.fragment_size(),
                inodes: found.files(),
                inodes_free: found.files_free(),
                path,
            },
            Err(_) => metrics::Disk { path, ..metrics::Disk::default() },
        }
    }

    /// A container that a client can be joined to.
    fn running(&self, id: &str) -> Result<ContainerView, Status> {
        let container = self.engine.pod_container(id).map_err(status)?;
        if container.status.phase == ContainerPhase::Running {
            return Ok(container);
        }
        let state = view::container_state(&container).as_str_name();
        Err(Status::failed_precondition(format!("container is in {state} state")))
    }

    async fn network_condition(&self) -> v1::RuntimeCondition {
        let (status, reason, message) = match self.engine.pod_network_status().await {
            Ok(message) => (true, "", message),
            Err(error) => (false, "NetworkPluginNotReady", error.to_string()),
        };
        v1::RuntimeCondition { r#type: "NetworkReady".to_owned(), status, reason: reason.to_owned(), message }
    }
}

/// A time limit; 0: none.
fn seconds(timeout: i64) -> Option<Duration> {
    u64::try_from(timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// The streams of a client: at least one, and with a terminal no standard error.
fn streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<Streams, Status> {
    if tty && stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid_argument("one of stdin, stdout or stderr must be true"));
    }
    Ok(Streams { stdin, stdout, stderr })
}

fn event(event: &PodEvent) -> v1::ContainerEventResponse {
    let kind = match event.change {
        PodChange::Created => v1::ContainerEventType::ContainerCreatedEvent,
        PodChange::Started => v1::ContainerEventType::ContainerStartedEvent,
        PodChange::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
        PodChange::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
    };
    v1::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind as i32,
        created_at: nanoseconds(Some(event.at)),
        pod_sandbox_status: event.sandbox.as_ref().map(view::sandbox_status),
        containers_statuses: event.containers.iter().map(view::container_status).collect(),
    }
}

/// What only people look at.
fn info(verbose: bool, value: impl FnOnce() -> serde_json::Value) -> HashMap<String, String> {
    if verbose { HashMap::from([("info".to_owned(), value().to_string())]) } else { HashMap::new() }
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer(v1::VersionResponse {
            version: KUBELET_API.to_owned(),
            runtime_name: NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let ready =
            v1::RuntimeCondition { r#type: "RuntimeReady".to_owned(), status: true, ..Default::default() };
        let conditions = vec![ready, self.network_condition().await];
        let features = v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true };
        let handler = |name: &str| v1::RuntimeHandler { name: name.to_owned(), features: Some(features) };
        answer(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info: info(
                request.into_inner().verbose,
                || serde_json::json!({"root": self.mountpoint(), "version": env!("CARGO_PKG_VERSION")}),
            ),
            runtime_handlers: request::HANDLERS.map(handler).to_vec(),
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        })
    }

    async fn runtime_config(
        &self,
        _: Request<v1::RuntimeConfigRequest>,
    ) -> Answer<v1::RuntimeConfigResponse> {
        let driver = match self.engine.cgroup_driver() {
            CgroupDriver::Cgroupfs => v1::CgroupDriver::Cgroupfs,
            CgroupDriver::Systemd => v1::CgroupDriver::Systemd,
        };
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: driver as i32 };
        answer(v1::RuntimeConfigResponse { linux: Some(linux) })
    }

    /// The pod network's range is the CNI configuration's business.
    async fn update_runtime_config(
        &self,
        _: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        answer(v1::UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Answer<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let spec = request::sandbox(config, request.runtime_handler)?;
        let pod_sandbox_id = self.engine.run_sandbox(spec).await.map_err(status)?;
        answer(v1::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        self.engine.stop_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        answer(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        self.engine.remove_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        answer(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.engine.sandbox(&request.pod_sandbox_id).map_err(status)?;
        let containers = self.engine.pod_containers();
        let own = containers.iter().filter(|container| container.sandbox == sandbox.id);
        answer(v1::PodSandboxStatusResponse {
            status: Some(view::sandbox_status(&sandbox)),
            info: info(request.verbose, || serde_json::json!({"networkNamespace": sandbox.network})),
            containers_statuses: own.map(view::container_status).collect(),
            timestamp: nanoseconds(Some(jiff::Timestamp::now())),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let items = self.sandbox_items(request.into_inner().filter.as_ref());
        answer(v1::ListPodSandboxResponse { items })
    }

    type StreamPodSandboxesStream = Chunks<v1::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = self.sandbox_items(request.into_inner().filter.as_ref());
        Ok(chunks(items, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| missing("config"))?;
        let spec = request::container(config)?;
        let made = self.engine.create_pod_container(&request.pod_sandbox_id, spec).await;
        answer(v1::CreateContainerResponse { container_id: made.map_err(status)? })
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Answer<v1::StartContainerResponse> {
        self.engine.start_pod_container(&request.into_inner().container_id).await.map_err(status)?;
        answer(v1::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        let patience = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.engine.stop_pod_container(&request.container_id, patience).await.map_err(status)?;
        answer(v1::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        self.engine.remove_pod_container(&request.into_inner().container_id).await.map_err(status)?;
        answer(v1::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Answer<v1::ListContainersResponse> {
        let containers = self.container_items(request.into_inner().filter.as_ref());
        answer(v1::ListContainersResponse { containers })
    }

    type StreamContainersStream = Chunks<v1::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let items = self.container_items(request.into_inner().filter.as_ref());
        Ok(chunks(items, |containers| v1::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.engine.pod_container(&request.container_id).map_err(status)?;
        answer(v1::ContainerStatusResponse {
            status: Some(view::container_status(&container)),
            info: info(
                request.verbose,
                || serde_json::json!({"sandboxID": container.sandbox, "pid": container.status.pid}),
            ),
        })
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let limits = request::resources(request.linux.unwrap_or_default());
        self.engine.update_pod_container(&request.container_id, limits).await.map_err(status)?;
        answer(v1::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.engine.reopen_pod_log(&request.into_inner().container_id).await.map_err(status)?;
        answer(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let limit = seconds(request.timeout);
        let output = self.engine.exec_sync_in_pod(&request.container_id, request.cmd, limit).await;
        let output = output.map_err(status)?;
        answer(v1::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let request = request.into_inner();
        let streams = streams(request.tty, request.stdin, request.stdout, request.stderr)?;
        let container = self.running(&request.container_id)?;
        let task = Task::Exec { container: container.id, command: request.cmd, tty: request.tty, streams };
        answer(v1::ExecResponse { url: self.streaming.url(task).await? })
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let request = request.into_inner();
        let streams = streams(request.tty, request.stdin, request.stdout, request.stderr)?;
        let container = self.running(&request.container_id)?;
        let task = Task::Attach { container: container.id, tty: request.tty, streams };
        answer(v1::AttachResponse { url: self.streaming.url(task).await? })
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Answer<v1::PortForwardResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id).map_err(status)?;
        if !sandbox.ready {
            return Err(Status::failed_precondition(format!("sandbox {} is not running", sandbox.id)));
        }
        answer(v1::PortForwardResponse {
            url: self.streaming.url(Task::Forward { sandbox: sandbox.id }).await?,
        })
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Answer<v1::ContainerStatsResponse> {
        let usage = self.engine.pod_usage(&request.into_inner().container_id).await.map_err(status)?;
        let stats = stats::container(&usage, &self.rates, &self.mountpoint());
        answer(v1::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        let stats = self.container_stats_of(request.into_inner().filter.as_ref()).await;
        answer(v1::ListContainerStatsResponse { stats })
    }

    type StreamContainerStatsStream = Chunks<v1::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let stats = self.container_stats_of(request.into_inner().filter.as_ref()).await;
        Ok(chunks(stats, |container_stats| v1::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let sandbox = self.engine.sandbox(&request.into_inner().pod_sandbox_id).map_err(status)?;
        let stats = self.sandbox_stats_of(vec![sandbox]).await.pop();
        answer(v1::PodSandboxStatsResponse { stats })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        let stats = self.sandbox_stats_by(request.into_inner().filter.as_ref()).await;
        answer(v1::ListPodSandboxStatsResponse { stats })
    }

    type StreamPodSandboxStatsStream = Chunks<v1::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let stats = self.sandbox_stats_by(request.into_inner().filter.as_ref()).await;
        Ok(chunks(stats, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn checkpoint_container(
        &self,
        request: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        let request = request.into_inner();
        let location = Path::new(&request.location);
        let limit = seconds(request.timeout);
        self.engine.checkpoint_pod_container(&request.container_id, location, limit).await.map_err(status)?;
        answer(v1::CheckpointContainerResponse {})
    }

    type GetContainerEventsStream = Chunks<v1::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        // What a slow reader has missed is told by its next list.
        let events = BroadcastStream::new(self.engine.pod_events()).filter_map(Result::ok);
        Ok(Response::new(Box::pin(events.map(|one| Ok(event(&one))))))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        answer(v1::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        answer(v1::ListPodSandboxMetricsResponse { pod_metrics: self.metrics().await })
    }

    type StreamPodSandboxMetricsStream = Chunks<v1::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let metrics = self.metrics().await;
        Ok(chunks(metrics, |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
    }

    /// The pod's cgroup is the orchestrator's, which has changed it already.
    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        self.engine.update_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        answer(v1::UpdatePodSandboxResourcesResponse {})
    }
}
