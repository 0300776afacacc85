//! Containers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth_api::{
    Filters,
    archive::PathStat,
    container::{
        ContainerInspect, ContainerSummary, CreateRequest, CreateResponse, FilesystemChange,
        PruneContainersResponse, TopResponse, UpdateRequest, UpdateResponse, WaitResponse,
    },
    options::{
        Attach, ListContainers, Logs, PutArchive, RemoveContainer, Stats, StopContainer, Tail, WaitCondition,
    },
    stats::ContainerStats,
};
use http::{HeaderMap, Method};

use crate::{
    ByteStream, Client, Error, Hijacked, Json, JsonStream, OutputStream, Result, Upload,
    query::{Query, segment},
    request::{Answer, Call},
};

/// A wait that the daemon has registered.
pub struct Wait {
    client: Client,
    answer: Answer,
}

impl Wait {
    /// The exit, when it comes.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn exit(self) -> Result<WaitResponse> {
        let (operation, bytes) = self.client.collect(self.answer).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Protocol { operation, reason: error.to_string() })
    }
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wait")
    }
}

fn at(container: &str, what: &str) -> String {
    format!("/containers/{}{what}", segment(container))
}

fn path_stat(headers: &HeaderMap, operation: &str) -> Result<PathStat> {
    let protocol = |reason: String| Error::Protocol { operation: operation.to_owned(), reason };
    let text =
        headers.get("x-docker-container-path-stat").ok_or_else(|| protocol("no path stat".to_owned()))?;
    let json = STANDARD.decode(text.as_bytes()).map_err(|error| protocol(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| protocol(error.to_string()))
}

/// Containers. Every call fails with [`Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Creates a container; an empty name lets the daemon choose one.
    pub async fn container_create(
        &self,
        name: &str,
        platform: &str,
        request: &CreateRequest,
    ) -> Result<CreateResponse> {
        let query = Query::new().text("name", name).text("platform", platform);
        self.fetch(Call::post("/containers/create", &query).json(request)).await
    }

    /// Lists containers.
    pub async fn container_list(&self, options: &ListContainers) -> Result<Vec<ContainerSummary>> {
        self.container_list_json(options).await?.read()
    }

    /// Lists containers, as the daemon has written it.
    pub async fn container_list_json(&self, options: &ListContainers) -> Result<Json> {
        let query = Query::new()
            .flag("all", options.all)
            .nonzero("limit", options.limit)
            .flag("size", options.size)
            .filters(&options.filters);
        self.fetch_json(Call::get("/containers/json", &query)).await
    }

    /// Shows a container; with its size if asked.
    pub async fn container_inspect(&self, container: &str, size: bool) -> Result<ContainerInspect> {
        self.fetch(Call::get(at(container, "/json"), &Query::new().flag("size", size))).await
    }

    /// The same as the daemon sent it.
    pub async fn container_inspect_raw(&self, container: &str, size: bool) -> Result<serde_json::Value> {
        self.fetch(Call::get(at(container, "/json"), &Query::new().flag("size", size))).await
    }

    /// Starts a container; false if it ran already.
    pub async fn container_start(&self, container: &str, detach_keys: &str) -> Result<bool> {
        let query = Query::new().text("detachKeys", detach_keys);
        Ok(!self.run(Call::post(at(container, "/start"), &query)).await?)
    }

    /// Stops a container; false if it did not run.
    pub async fn container_stop(&self, container: &str, options: &StopContainer) -> Result<bool> {
        Ok(!self.run(Call::post(at(container, "/stop"), &stop_query(options))).await?)
    }

    /// Stops and starts a container.
    pub async fn container_restart(&self, container: &str, options: &StopContainer) -> Result<()> {
        self.run(Call::post(at(container, "/restart"), &stop_query(options))).await.map(drop)
    }

    /// Sends a signal; empty is SIGKILL.
    pub async fn container_kill(&self, container: &str, signal: &str) -> Result<()> {
        self.run(Call::post(at(container, "/kill"), &Query::new().text("signal", signal))).await.map(drop)
    }

    /// Freezes a container.
    pub async fn container_pause(&self, container: &str) -> Result<()> {
        self.run(Call::post(at(container, "/pause"), &Query::new())).await.map(drop)
    }

    /// Thaws a container.
    pub async fn container_unpause(&self, container: &str) -> Result<()> {
        self.run(Call::post(at(container, "/unpause"), &Query::new())).await.map(drop)
    }

    /// Renames a container.
    pub async fn container_rename(&self, container: &str, name: &str) -> Result<()> {
        self.run(Call::post(at(container, "/rename"), &Query::new().with("name", name))).await.map(drop)
    }

    /// Removes a container.
    pub async fn container_remove(&self, container: &str, options: RemoveContainer) -> Result<()> {
        let query =
            Query::new().flag("v", options.volumes).flag("force", options.force).flag("link", options.link);
        self.run(Call::delete(at(container, ""), &query)).await.map(drop)
    }

    /// Registers a wait. When this returns the daemon has it, so that an exit after that is not missed.
    pub async fn container_wait(&self, container: &str, condition: WaitCondition) -> Result<Wait> {
        let query = Query::new().with("condition", condition.as_str());
        let answer = self.send(Call::post(at(container, "/wait"), &query)).await?;
        Ok(Wait { client: self.clone(), answer })
    }

    /// Changes limits and the restart policy.
    pub async fn container_update(&self, container: &str, request: &UpdateRequest) -> Result<UpdateResponse> {
        self.fetch(Call::post(at(container, "/update"), &Query::new()).json(request)).await
    }

    /// Lists processes; `ps_args` are ps(1)'s options.
    pub async fn container_top(&self, container: &str, ps_args: &str) -> Result<TopResponse> {
        self.fetch(Call::get(at(container, "/top"), &Query::new().text("ps_args", ps_args))).await
    }

    /// Lists what the container has changed in its image's files.
    pub async fn container_changes(&self, container: &str) -> Result<Vec<FilesystemChange>> {
        let changes: Option<_> = self.fetch(Call::get(at(container, "/changes"), &Query::new())).await?;
        Ok(changes.unwrap_or_default())
    }

    /// Sets the terminal's size.
    pub async fn container_resize(&self, container: &str, rows: u16, columns: u16) -> Result<()> {
        let query = Query::new().number("h", rows).number("w", columns);
        self.run(Call::post(at(container, "/resize"), &query)).await.map(drop)
    }

    /// Attaches to a container; `tty` is its configuration's.
    pub async fn container_attach(&self, container: &str, options: &Attach, tty: bool) -> Result<Hijacked> {
        let query = Query::new()
            .text("detachKeys", options.detach_keys.as_deref().unwrap_or_default())
            .flag("logs", options.logs)
            .flag("stream", options.stream)
            .flag("stdin", options.stdin)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr);
        self.hijack(Call::post(at(container, "/attach"), &query), tty).await
    }

    /// Reads a container's log; `tty` is its configuration's.
    pub async fn container_logs(&self, container: &str, options: &Logs, tty: bool) -> Result<OutputStream> {
        let tail = match options.tail {
            Tail::All => "all".to_owned(),
            Tail::Lines(lines) => lines.to_string(),
        };
        let query = Query::new()
            .flag("follow", options.follow)
            .flag("stdout", options.stdout)
            .flag("stderr", options.stderr)
            .flag("timestamps", options.timestamps)
            .flag("details", options.details)
            .when("since", options.since)
            .when("until", options.until)
            .with("tail", tail);
        Ok(OutputStream::new(self.send(Call::get(at(container, "/logs"), &query)).await?, tty))
    }

    /// Samples a container's use of resources.
    pub async fn container_stats(
        &self,
        container: &str,
        options: Stats,
    ) -> Result<JsonStream<ContainerStats>> {
        let query = Query::new()
            .with("stream", if options.stream { "1" } else { "0" })
            .flag("one-shot", options.one_shot);
        Ok(JsonStream::new(self.send(Call::get(at(container, "/stats"), &query)).await?))
    }

    /// The container's whole root as a tar archive.
    pub async fn container_export(&self, container: &str) -> Result<ByteStream> {
        Ok(ByteStream::new(self.send(Call::get(at(container, "/export"), &Query::new())).await?))
    }

    /// What a path in a container is.
    pub async fn container_path_stat(&self, container: &str, path: &str) -> Result<PathStat> {
        let query = Query::new().with("path", path);
        let call = Call::new(Method::HEAD, at(container, "/archive"), &query);
        let operation = call.operation();
        let answer = self.send(call).await?;
        let stat = path_stat(answer.response.headers(), &operation);
        self.collect(answer).await?;
        stat
    }

    /// A path in a container as a tar archive.
    pub async fn container_archive_get(&self, container: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let answer =
            self.send(Call::get(at(container, "/archive"), &Query::new().with("path", path))).await?;
        let stat = path_stat(answer.response.headers(), &answer.operation)?;
        Ok((stat, ByteStream::new(answer)))
    }

    /// Unpacks a tar archive (maybe compressed) in a container's directory.
    pub async fn container_archive_put(
        &self,
        container: &str,
        options: &PutArchive,
        tar: Upload,
    ) -> Result<()> {
        let query = Query::new()
            .with("path", &options.path)
            .flag("noOverwriteDirNonDir", options.no_overwrite_dir_non_dir)
            .flag("copyUIDGID", options.copy_uid_gid);
        let call = Call::new(Method::PUT, at(container, "/archive"), &query);
        self.run(call.upload("application/x-tar", tar)).await.map(drop)
    }

    /// Removes stopped containers.
    pub async fn container_prune(&self, filters: &Filters) -> Result<PruneContainersResponse> {
        self.fetch(Call::post("/containers/prune", &Query::new().filters(filters))).await
    }
}

fn stop_query(options: &StopContainer) -> Query {
    let query = Query::new().text("signal", options.signal.as_deref().unwrap_or_default());
    match options.timeout {
        Some(seconds) => query.number("t", seconds),
        None => query,
    }
}
