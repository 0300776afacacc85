//! The bridge: what a client does inside of a build. It has the Dockerfile built, and says what it wants of the results.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::build::{self, BUILT, only_dockerfiles};
use crate::jobs::{Job, Made};
use crate::protocol::frontend::llb_bridge_server::LlbBridge;
use crate::protocol::frontend::{
    EvaluateRequest, EvaluateResponse, InputsRequest, InputsResponse, PingRequest, PongResponse,
    ReadFileRequest, ReadFileResponse, Ref, RefMap, Result as Solved, ReturnRequest, ReturnResponse,
    SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse, result,
};
use crate::protocol::pb;
use crate::serve::Shared;
use crate::{capabilities, failure, files, lint};

/// The service.
pub(crate) struct Bridge {
    shared: Arc<Shared>,
}

impl Bridge {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The job that a call belongs to.
    async fn job(&self, metadata: &MetadataMap) -> Result<Arc<Job>, Status> {
        let name = metadata.get("buildkit-controlapi-buildid").and_then(|name| name.to_str().ok());
        let name = name.ok_or_else(|| Status::invalid_argument("the call belongs to no build"))?;
        self.shared.jobs.get(name).await
    }
}

/// The frontend of Dockerfiles. `gateway.v0` with the image of that frontend means the same.
pub(crate) fn is_dockerfile(frontend: &str, attributes: &HashMap<String, String>) -> bool {
    let source = attributes.get("source").map_or("", String::as_str);
    let name = source.rsplit_once('@').map_or(source, |(name, _)| name);
    let name = name.trim_start_matches("docker.io/").split(':').next().unwrap_or_default();
    frontend == "dockerfile.v0"
        || frontend == "gateway.v0" && matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// What the client gets of an image: a name for it, and a graph that it may hand to other builds.
pub(crate) fn result_of(job: &Job, made: Made) -> Result<Solved, Status> {
    let images = made.built.images.clone();
    let config = |image| made.work.config(image).map(Bytes::from).map_err(|error| failure::of_engine(&error));
    let mut metadata = HashMap::new();
    if let [(_, image)] = images.as_slice() {
        metadata.insert("containerimage.config".to_owned(), config(image)?);
    }
    for (platform, image) in images.iter().filter(|_| images.len() > 1) {
        metadata.insert(format!("containerimage.config/{platform}"), config(image)?);
    }
    let id = job.keep(made);
    let reference =
        |image: &berth_oci::Digest| Ref { id: id.clone(), def: Some(graph(&format!("{BUILT}{image}"))) };
    let result = match images.as_slice() {
        [(_, image)] => result::Result::Ref(reference(image)),
        several => {
            let refs = several.iter().map(|(platform, image)| (platform.to_string(), reference(image)));
            result::Result::Refs(RefMap { refs: refs.collect() })
        }
    };
    Ok(Solved { result: Some(result), metadata })
}

/// A source and its end, as BuildKit writes graphs.
fn graph(identifier: &str) -> pb::Definition {
    let source = pb::SourceOp { identifier: identifier.to_owned(), ..pb::SourceOp::default() };
    let source = pb::Op { source: Some(source), ..pb::Op::default() }.encode_to_vec();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&source)));
    let input = pb::Input { digest: digest.clone(), index: 0 };
    let end = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
    pb::Definition {
        def: vec![source.into(), end.into()],
        metadata: HashMap::from([(digest, pb::OpMetadata::default())]),
    }
}

#[tonic::async_trait]
impl LlbBridge for Bridge {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.job(request.metadata()).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: capabilities::of_the_bridge(),
            llb_caps: capabilities::of_graphs(),
            workers: Vec::new(),
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let request = request.into_inner();
        if let (true, Some(graph)) = (request.frontend.is_empty(), &request.definition) {
            let made = build::fetch(&self.shared, &job, graph).await?;
            let result = Some(result_of(&job, made)?);
            return Ok(Response::new(SolveResponse { result, ..SolveResponse::default() }));
        }
        if !is_dockerfile(&request.frontend, &request.frontend_opt) {
            return Err(only_dockerfiles());
        }
        match request.frontend_opt.get("requestid").map(String::as_str) {
            None => {}
            Some(lint::REQUEST) => {
                let result = Some(lint::check(&self.shared, &job, &request.frontend_opt).await?);
                return Ok(Response::new(SolveResponse { result, ..SolveResponse::default() }));
            }
            Some(other) => {
                return Err(Status::unimplemented(format!(
                    "unsupported request {other}: builds and checks (--check) are offered here"
                )));
            }
        }
        let made = build::build(&self.shared, &job, &request.frontend_opt, &request.frontend_inputs).await?;
        Ok(Response::new(SolveResponse { result: Some(result_of(&job, made)?), ..SolveResponse::default() }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let request = request.into_inner();
        let wanted = match request.error {
            Some(error) if error.code != 0 => Err(failure::returned(error)),
            _ => job.of_result(request.result),
        };
        job.want(wanted);
        Ok(Response::new(ReturnResponse {}))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let request = request.into_inner();
        let file = files::open(&job, &request.r#ref, &request.file_path).await?;
        let data = files::read(file, request.range.unwrap_or_default()).await?.into();
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let request = request.into_inner();
        let file = files::open(&job, &request.r#ref, &request.path).await?;
        let stat = Some(files::stat(&file, &request.path)?);
        Ok(Response::new(StatFileResponse { stat }))
    }

    /// Images are built when they are asked for; there is nothing left to do.
    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let id = request.into_inner().r#ref;
        match id.is_empty() || job.made(&id).is_some() {
            true => Ok(Response::new(EvaluateResponse {})),
            false => Err(Status::not_found(format!("this build has no result {id}"))),
        }
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        Ok(Response::new(InputsResponse { definitions: job.inputs.clone() }))
    }

    /// Warnings that the client has made itself.
    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let job = self.job(request.metadata()).await?;
        let request = request.into_inner();
        let line = request.ranges.first().and_then(|range| range.start).map(|start| start.line);
        let text = String::from_utf8_lossy(&request.short).into_owned();
        let vertex = job.board.vertex("warnings", String::new());
        job.board.warn(&vertex, &text, line, &request.info.unwrap_or_default());
        Ok(Response::new(WarnResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfiles_frontend_by_either_name() {
        let image = |name: &str| HashMap::from([("source".to_owned(), name.to_owned())]);
        assert!(is_dockerfile("dockerfile.v0", &HashMap::new()));
        assert!(is_dockerfile("gateway.v0", &image("docker/dockerfile:1")));
        assert!(is_dockerfile("gateway.v0", &image("docker.io/docker/dockerfile:1.4@sha256:ab")));
        assert!(!is_dockerfile("gateway.v0", &image("me/frontend")));
        assert!(!is_dockerfile("", &HashMap::new()));
    }
}
