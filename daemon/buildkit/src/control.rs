//! The control service: builds, what they tell, the cache.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use berth_api::build::BuildCacheRecord;
use berth_api::options::DiskUsageKinds;
use berth_api::{Filters, Time};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::bridge::is_dockerfile;
use crate::build::only_dockerfiles;
use crate::jobs::{Job, Made, Opened};
use crate::protocol::control::control_server::Control as ControlService;
use crate::protocol::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, Exporter,
    InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UsageRecord,
};
use crate::serve::Shared;
use crate::session::Hello;
use crate::tunnel;
use crate::{build, capabilities, export, failure};

/// The service.
pub(crate) struct Control {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        Self { shared, stop }
    }

    /// What is to be exported: the result of the Dockerfile that the request names itself, or what the client returns.
    async fn wanted(&self, request: &SolveRequest, opened: &mut Opened) -> Result<Option<Arc<Made>>, Status> {
        let job = &opened.job;
        if request.frontend.is_empty() {
            let ended = || Status::cancelled("the build has ended without a result");
            return (&mut opened.wanted).await.map_err(|_| ended())?;
        }
        if !is_dockerfile(&request.frontend, &request.frontend_attrs) {
            return Err(only_dockerfiles());
        }
        let made = build::build(&self.shared, job, &request.frontend_attrs, &job.inputs).await?;
        Ok(Some(Arc::new(made)))
    }

    async fn export(
        &self,
        request: &SolveRequest,
        job: &Arc<Job>,
        made: &Made,
    ) -> Result<SolveResponse, Status> {
        let exporters = exporters(request);
        let session = match exporters.is_empty() {
            true => None,
            false => Some(self.shared.sessions.get(&job.session).await?),
        };
        let mut response = SolveResponse::default();
        for (index, exporter) in exporters.iter().enumerate() {
            let session = session.as_ref().expect("there is an exporter");
            let told = export::export(&self.shared, job, session, made, index, exporter).await?;
            response.exporter_response.extend(told);
        }
        for cache in &job.cache_exports {
            export::cache(job, made, cache).await?;
        }
        made.work.publish(&made.built);
        Ok(response)
    }

    async fn cache(&self) -> Result<Vec<BuildCacheRecord>, Status> {
        let kinds = DiskUsageKinds { containers: false, images: false, volumes: false, build_cache: true };
        let usage = self.shared.engine.disk_usage(kinds).await.map_err(|error| failure::of_engine(&error))?;
        Ok(usage.build_cache.unwrap_or_default())
    }
}

/// Clients of before said only one.
fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    if !request.exporters.is_empty() || request.exporter_deprecated.is_empty() {
        return request.exporters.clone();
    }
    let (r#type, attrs) = (request.exporter_deprecated.clone(), request.exporter_attrs_deprecated.clone());
    vec![Exporter { r#type, attrs }]
}

#[tonic::async_trait]
impl ControlService for Control {
    type PruneStream = Replies<UsageRecord>;
    type StatusStream = Replies<StatusResponse>;
    type SessionStream = tunnel::Outgoing;
    type ListenBuildHistoryStream = Replies<BuildHistoryEvent>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        if request.definition.as_ref().is_some_and(|graph| !graph.def.is_empty()) {
            return Err(only_dockerfiles());
        }
        // Dropped when the client goes: whatever is under way ends.
        let mut opened = self.shared.jobs.open(&request)?;
        let wanted = self.wanted(&request, &mut opened).await?;
        let response = match wanted {
            Some(made) => self.export(&request, &opened.job, &made).await?,
            None => SolveResponse::default(),
        };
        Ok(Response::new(response))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let job = self.shared.jobs.get(&request.into_inner().r#ref).await?;
        let news = futures_util::stream::unfold(Arc::clone(&job.board), |board| async move {
            let news = board.next().await?;
            Some((Ok(news), board))
        });
        Ok(Response::new(Box::pin(news)))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let hello = Hello::read(&request.metadata().clone().into_headers());
        let hello = hello.ok_or_else(|| Status::invalid_argument("the session has no name"))?;
        let (io, outgoing) = tunnel::open(request.into_inner());
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        tokio::spawn(async move { shared.sessions.run(io, hello, stop).await });
        Ok(Response::new(outgoing))
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        let record = self.cache().await?.iter().map(usage).collect();
        Ok(Response::new(DiskUsageResponse { record }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let before = self.cache().await?;
        let mut filters = Filters::default();
        if request.keep_duration > 0 {
            let age = Duration::from_nanos(request.keep_duration.unsigned_abs());
            filters.add("until", format!("{}s", age.as_secs()));
        }
        for filter in request.filter.iter().filter(|filter| !filter.is_empty()) {
            let (key, value) =
                filter.split_once("==").or_else(|| filter.split_once('=')).unwrap_or((filter, ""));
            filters.add(key, value);
        }
        let keep = request.reserved_space.max(request.max_used_space);
        let pruned =
            self.shared.engine.prune_build_cache(request.all, keep, request.min_free_space, &filters);
        let pruned = pruned.await.map_err(|error| failure::of_engine(&error))?;
        let gone = pruned.caches_deleted.unwrap_or_default();
        let mut records: Vec<_> =
            before.iter().filter(|record| gone.contains(&record.id)).map(usage).collect();
        let bytes = if filters.is_empty() { self.shared.prune_contexts().await } else { 0 };
        if bytes > 0 {
            records.push(UsageRecord {
                id: "contexts".to_owned(),
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
                description: "build contexts of clients".to_owned(),
                record_type: "source.local".to_owned(),
                ..UsageRecord::default()
            });
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(records.into_iter().map(Ok)))))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let engine = &self.shared.engine;
        let gateway = engine.host_gateway().map(|address| address.to_string());
        let record = vec![capabilities::worker(engine.id(), gateway.as_deref())];
        Ok(Response::new(ListWorkersResponse { record }))
    }

    /// The engine keeps its own record of builds, with what became of each step and why.
    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented(
            "the history of builds is not told in BuildKit's terms: see berth builder history, logs and inspect",
        ))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(capabilities::version()) }))
    }
}

fn usage(record: &BuildCacheRecord) -> UsageRecord {
    let time = |time: &Time| SystemTime::from(time.0).into();
    UsageRecord {
        id: record.id.clone(),
        in_use: record.in_use,
        shared: record.shared,
        size: record.size,
        created_at: Some(time(&record.created_at)),
        last_used_at: record.last_used_at.as_ref().map(time),
        usage_count: record.usage_count,
        description: record.description.clone(),
        record_type: record.kind.clone(),
        ..UsageRecord::default()
    }
}
