//! From a client's request to an image: its directories, secrets and agents are fetched, then the builder does the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use berth_builder::{BuildRequest, Context, DockerfileSource};
use berth_dockerfile_parser::instruction::Kind;
use berth_dockerfile_parser::mount::{self, MountType};
use berth_dockerfile_parser::{Program, ignore};
use berth_engine::Build;
use berth_oci::Reference;
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::attributes::{self, Asked, Place};
use crate::auth::SessionLogins;
use crate::filesync::{self, Files, Mirror, Selection};
use crate::jobs::{Job, Made};
use crate::progress::{self, Task};
use crate::protocol::pb;
use crate::protocol::upload::BytesMessage;
use crate::protocol::upload::upload_client::UploadClient;
use crate::serve::Shared;
use crate::session::Session;
use crate::ssh::Agent;
use crate::steps::Steps;
use crate::{MAX_MESSAGE, failure, secrets, ssh};

/// Names an image that was built here in the little graphs that go to the client and come back.
pub(crate) const BUILT: &str = "berth-image://";
/// Messages about pulls and pushes under way.
const BACKLOG: usize = 1024;
/// A context as it is.
const EVERYTHING: &[u8] = b"FROM scratch\nCOPY . /\n";
/// Secrets that a repository may be fetched with.
const TOKEN: &str = "GIT_AUTH_TOKEN";

/// Builds. Ends when the job is cancelled, or the client's session is gone.
pub(crate) async fn build(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    attributes: &HashMap<String, String>,
    inputs: &HashMap<String, pb::Definition>,
) -> Result<Made, Status> {
    let asked = attributes::read(attributes)?;
    let session = shared.sessions.get(&job.session).await?;
    let inputs = inputs.iter().map(|(name, input)| Ok((name.clone(), place_of(input)?)));
    let inputs: HashMap<String, Place> = inputs.collect::<Result<_, Status>>()?;
    let gone = session.gone.clone();
    let work = Work { shared, job, session, inputs, mirrors: Vec::new(), agents: Vec::new() };
    tokio::select! {
        made = work.run(asked, None) => made,
        () = job.cancel.cancelled() => Err(Status::cancelled("build cancelled")),
        () = gone.cancelled() => Err(Status::cancelled("the client has closed its session")),
    }
}

/// The Dockerfile that a client would have built, and the patterns of what its context leaves out.
pub(crate) async fn dockerfile(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    asked: &Asked,
) -> Result<(Bytes, Vec<String>), Status> {
    let session = shared.sessions.get(&job.session).await?;
    let work = Work { shared, job, session, inputs: HashMap::new(), mirrors: Vec::new(), agents: Vec::new() };
    if !matches!(asked.context, Place::Local(_)) && !asked.dockerfile_is_local {
        return Err(Status::unimplemented(
            "a Dockerfile that lies in a remote context is not checked: check it in a copy of its own",
        ));
    }
    let task = Task::begin(&job.board, format!("[internal] load build definition from {}", asked.filename));
    let dockerfile = work.dockerfile(asked, &asked.context, &task).await;
    let dockerfile = task.end(dockerfile)?;
    Ok((dockerfile.text, ignore::read(&dockerfile.ignore.unwrap_or_default())))
}

/// Fetches what a client wants to look into before it builds from it: a repository or an archive. buildx does so to see
/// whether a rule for the build stands beside its Dockerfile.
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    job: &Arc<Job>,
    graph: &pb::Definition,
) -> Result<Made, Status> {
    let Place::Url(url) = place_of(graph)? else { return Err(only_dockerfiles()) };
    let asked = Asked { context: Place::Url(url), filename: "Dockerfile".to_owned(), ..Asked::default() };
    let session = shared.sessions.get(&job.session).await?;
    let gone = session.gone.clone();
    let work = Work { shared, job, session, inputs: HashMap::new(), mirrors: Vec::new(), agents: Vec::new() };
    let all = Dockerfile { text: Bytes::from_static(EVERYTHING), ignore: Some(String::new()) };
    let made = tokio::select! {
        made = work.run(asked, Some(all)) => made?,
        () = job.cancel.cancelled() => return Err(Status::cancelled("build cancelled")),
        () = gone.cancelled() => return Err(Status::cancelled("the client has closed its session")),
    };
    let (image, work, over) = (made.built.id.clone(), Arc::clone(&made.work), job.cancel.clone());
    tokio::spawn(async move {
        over.cancelled().await;
        work.forget(&image).await;
    });
    Ok(made)
}

/// What a graph of one source says. Others are BuildKit's own, which is not here.
fn place_of(input: &pb::Definition) -> Result<Place, Status> {
    let mut sources = Vec::new();
    for op in &input.def {
        let op = pb::Op::decode(op.as_ref()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        sources.extend(op.source.map(address));
    }
    let [source] = sources.as_slice() else { return Err(only_dockerfiles()) };
    match source.split_once("://") {
        Some(("docker-image", image)) => Ok(Place::Image(image.to_owned())),
        Some(("local", directory)) => Ok(Place::Local(directory.to_owned())),
        Some(("git" | "http" | "https" | "ssh", _)) => Ok(Place::Url(source.clone())),
        _ => match source.strip_prefix(BUILT) {
            Some(image) => Ok(Place::Image(image.to_owned())),
            None => Err(only_dockerfiles()),
        },
    }
}

/// Where a source is. A repository's name is the same for every protocol; the address stands beside it.
fn address(source: pb::SourceOp) -> String {
    let Some(url) = source.attrs.get("git.fullurl") else { return source.identifier };
    match source.identifier.split_once('#') {
        Some((_, fragment)) => format!("{url}#{fragment}"),
        None => url.clone(),
    }
}

/// The answer to graphs of BuildKit's solver.
pub(crate) fn only_dockerfiles() -> Status {
    Status::unimplemented(
        "Berth builds Dockerfiles only (frontend dockerfile.v0): it runs no graphs (LLB) and no frontend images. \
         Build such with a BuildKit of its own (docker buildx create --use)",
    )
}

/// A build and what it holds as long as it runs.
struct Work<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Arc<Job>,
    session: Arc<Session>,
    inputs: HashMap<String, Place>,
    mirrors: Vec<Arc<Mirror>>,
    agents: Vec<Agent>,
}

/// A Dockerfile as the client has it.
struct Dockerfile {
    text: Bytes,
    /// Its own `.dockerignore`.
    ignore: Option<String>,
}

impl Work<'_> {
    /// Builds what was asked for, by this Dockerfile if there is one, else by the client's.
    async fn run(mut self, asked: Asked, given: Option<Dockerfile>) -> Result<Made, Status> {
        let loading =
            Task::begin(&self.job.board, format!("[internal] load build definition from {}", asked.filename));
        let main = self.input(asked.context.clone())?;
        let dockerfile = match (&main, asked.dockerfile_is_local) {
            _ if given.is_some() => given,
            (Place::Local(_), _) | (_, true) => {
                let dockerfile = self.dockerfile(&asked, &main, &loading).await;
                Some(dockerfile.inspect_err(|error| {
                    tracing::debug!(%error, "loading a Dockerfile");
                })?)
            }
            _ => None,
        };
        let text = dockerfile.as_ref().map(|dockerfile| dockerfile.text.clone()).unwrap_or_default();
        let source = pb::SourceInfo {
            filename: asked.filename.clone(),
            data: text.clone(),
            language: "Dockerfile".to_owned(),
        };
        let program = berth_dockerfile_parser::read(&String::from_utf8_lossy(&text));
        let steps = Arc::new(Steps::new(&self.job.board, &loading, source.clone(), program.stages.len() > 1));
        loading.end(Ok::<(), Status>(()))?;
        let ignored = dockerfile.as_ref().and_then(|dockerfile| dockerfile.ignore.clone());
        let context = self.context(&asked, main, ignored.as_deref()).await?;
        let (work, request) = self.request(&asked, context, &program).await?;
        let dockerfile = match dockerfile {
            None => DockerfileSource::Path(asked.filename.clone()),
            Some(Dockerfile { text, ignore }) => {
                DockerfileSource::Given { name: asked.filename.clone(), text: text.to_vec(), ignore }
            }
        };
        let request = BuildRequest { dockerfile, ..request };
        let events = Arc::clone(&steps);
        let sink = Arc::new(move |event: berth_builder::Event| events.tell(event));
        let built = work.run(request, sink, self.job.cancel.child_token()).await;
        steps.end();
        let known = (!source.data.is_empty()).then_some(&source);
        let built = built.map_err(|error| failure::of_build(&error, known))?;
        Ok(Made { built, work })
    }

    /// What the client handed over under this name.
    fn input(&self, place: Place) -> Result<Place, Status> {
        let Place::Input(name) = &place else { return Ok(place) };
        let missing = || Status::invalid_argument(format!("the request has no input {name}"));
        self.inputs
            .get(name)
            .or_else(|| self.inputs.get(name.split("::").next()?))
            .cloned()
            .ok_or_else(missing)
    }

    /// The session that has a directory.
    async fn session_of(&self, asked: &Asked, directory: &str) -> Result<Arc<Session>, Status> {
        match asked.sessions.get(directory) {
            Some(id) => self.shared.sessions.get(id).await,
            None => Ok(Arc::clone(&self.session)),
        }
    }

    async fn small(&self, asked: &Asked, directory: &str, only: Vec<String>) -> Result<Files, Status> {
        let session = self.session_of(asked, directory).await?;
        let selection = Selection { directory: directory.to_owned(), only, ..Selection::default() };
        filesync::small(&session, &selection).await
    }

    async fn dockerfile(&self, asked: &Asked, main: &Place, task: &Task) -> Result<Dockerfile, Status> {
        let name = &asked.filename;
        let ignore_name = format!("{name}.dockerignore");
        let mut names = vec![name.clone(), ignore_name.clone()];
        let small_name = name.strip_suffix("Dockerfile").map(|directory| format!("{directory}dockerfile"));
        names.extend(small_name.clone());
        let files = self.small(asked, &asked.dockerfile_directory, names);
        let context_ignore = async {
            match main {
                Place::Local(directory) => {
                    self.small(asked, directory, vec![".dockerignore".to_owned()]).await
                }
                _ => Ok(Files::default()),
            }
        };
        let (files, context_ignore) = tokio::try_join!(files, context_ignore)?;
        let text = files.get(name).or_else(|| files.get(&small_name?));
        let text = text.cloned().ok_or_else(|| {
            Status::unknown(format!("failed to read dockerfile: open {name}: no such file or directory"))
        })?;
        task.part("transferring dockerfile:", text.len() as u64, 0, true);
        let ignore = files.get(&ignore_name).or_else(|| context_ignore.get(".dockerignore"));
        let of_text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let known = matches!(main, Place::Local(_));
        Ok(Dockerfile { text, ignore: ignore.map(of_text).or_else(|| known.then(String::new)) })
    }

    /// The main context.
    async fn context(
        &mut self,
        asked: &Asked,
        place: Place,
        ignored: Option<&str>,
    ) -> Result<Context, Status> {
        match place {
            Place::Local(directory) => {
                let patterns = ignore::read(ignored.unwrap_or_default());
                self.directory(asked, &directory, patterns, "[internal] load build context").await
            }
            place => self.elsewhere(place).await,
        }
    }

    /// A context that is no directory of the client's.
    async fn elsewhere(&self, place: Place) -> Result<Context, Status> {
        match place {
            Place::Url(url) => Ok(Context::Url(url)),
            Place::Image(image) => Ok(Context::Image(image)),
            Place::Upload(url) => self.upload(&url).await,
            Place::Local(name) | Place::Input(name) => {
                Err(Status::invalid_argument(format!("{name} cannot be a context")))
            }
        }
    }

    /// A directory of the client's, by its mirror.
    async fn directory(
        &mut self,
        asked: &Asked,
        directory: &str,
        exclude: Vec<String>,
        name: &str,
    ) -> Result<Context, Status> {
        let task = Task::begin(&self.job.board, name);
        let session = self.session_of(asked, directory).await?;
        let key = match asked.shared_keys.get(directory) {
            Some(key) => format!("{key} {directory}"),
            None => format!("{} {directory}", session.shared_key()),
        };
        let mirrors = Arc::clone(&self.shared.mirrors);
        let mirror = tokio::task::spawn_blocking(move || mirrors.claim(&key)).await;
        let mirror = mirror.map_err(|error| Status::internal(error.to_string()))?;
        let failed = |error| Status::internal(format!("a place for the build context: {error}"));
        let mirror = Arc::new(mirror.map_err(failed)?);
        self.mirrors.push(Arc::clone(&mirror));
        let selection = Selection { directory: directory.to_owned(), exclude, only: Vec::new() };
        let path = mirror.tree_path();
        let received = filesync::receive(&session, &selection, mirror, &task).await;
        task.end(received)?;
        Ok(Context::Directory(path))
    }

    /// An archive from the client's standard input.
    async fn upload(&self, url: &str) -> Result<Context, Status> {
        let task = Task::begin(&self.job.board, "[internal] load remote build context");
        let (sender, receiver) = mpsc::channel::<BytesMessage>(1);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let path = url.strip_prefix("http://buildkit-session").unwrap_or(url);
        let invalid = |_| Status::invalid_argument("the name of an upload");
        request.metadata_mut().insert("urlpath", MetadataValue::try_from(path).map_err(invalid)?);
        request.metadata_mut().insert("urlhost", MetadataValue::from_static("buildkit-session"));
        let mut client = UploadClient::with_origin(self.session.channel.clone(), Session::origin())
            .max_decoding_message_size(MAX_MESSAGE);
        let mut pieces = client.pull(request).await?.into_inner();
        let failed =
            |error: std::io::Error| Status::internal(format!("receiving the build context: {error}"));
        let mut file: File = tempfile::tempfile_in(self.shared.engine.root()).map_err(failed)?;
        while let Some(piece) = pieces.message().await? {
            file.write_all(&piece.data).map_err(failed)?;
        }
        drop(sender);
        file.rewind().map_err(failed)?;
        task.end(Ok::<(), Status>(()))?;
        Ok(Context::Tar(file))
    }

    /// Everything but the Dockerfile.
    async fn request(
        &mut self,
        asked: &Asked,
        context: Context,
        program: &Program,
    ) -> Result<(Arc<Build>, BuildRequest), Status> {
        let (progress, said) = mpsc::channel(BACKLOG);
        tokio::spawn(progress::transfers(Arc::clone(&self.job.board), said));
        let logins = Arc::new(SessionLogins(Arc::clone(&self.session)));
        let work = Arc::new(self.shared.engine.new_build(logins, progress));
        let allow = &self.job.entitlements;
        let request = Build::request(asked.options.clone(), context, allow);
        let mut request = request.map_err(|error| failure::of_engine(&error))?;
        request.no_cache_filter.clone_from(&asked.no_cache_filter);
        request.name = Some(format!("{} {}", self.session.shared_key(), asked.options.target));
        request.inline_cache = self.job.cache_exports.iter().any(|cache| cache.r#type == "inline");
        request.rewrite_timestamp = self.job.rewrite_timestamp;
        let wanted = Wanted::of(program);
        for id in &wanted.secrets {
            if let Some(secret) = secrets::get(&self.session, id).await? {
                request.secrets.insert(id.clone(), secret);
            }
        }
        for id in &wanted.agents {
            let dir = self.shared.engine.run_root().join("builds");
            if let Some(agent) = ssh::open(&self.session, id, &dir).await? {
                request.ssh.insert(id.clone(), agent.socket.clone());
                self.agents.push(agent);
            }
        }
        request.named_contexts = self.named(asked).await?;
        self.take_caches(asked, &work).await;
        Ok((work, request))
    }

    async fn named(&mut self, asked: &Asked) -> Result<BTreeMap<String, Context>, Status> {
        let mut named = BTreeMap::new();
        for (name, place) in &asked.named {
            let context = match self.input(place.clone())? {
                Place::Local(directory) => {
                    let files = self.small(asked, &directory, vec![".dockerignore".to_owned()]).await?;
                    let text =
                        files.get(".dockerignore").map(|text| String::from_utf8_lossy(text).into_owned());
                    let patterns = ignore::read(&text.unwrap_or_default());
                    let title = format!("[context {name}] load from client");
                    self.directory(asked, &directory, patterns, &title).await?
                }
                place => self.elsewhere(place).await?,
            };
            named.insert(name.clone(), context);
        }
        Ok(named)
    }

    /// One that is not there is no failure: the first build has none.
    async fn take_caches(&self, asked: &Asked, work: &Build) {
        for cache in &asked.cache_imports {
            let name = cache.attrs.get("ref").map_or("", String::as_str);
            let task = Task::begin(&self.job.board, format!("importing cache from {} {name}", cache.r#type));
            let taken = match (cache.r#type.as_str(), Reference::parse(name)) {
                ("registry", Ok(reference)) => {
                    work.take_cache(&reference).await.map(drop).map_err(|error| error.to_string())
                }
                ("registry", Err(error)) => Err(format!("{name}: {error}")),
                (other, _) => {
                    Err(format!("caches of type {other} are not known here; use registry or inline"))
                }
            };
            if let Err(error) = &taken {
                tracing::debug!(name, error, "importing a cache");
            }
            task.end(taken).ok();
        }
    }
}

/// What the Dockerfile's steps ask the client for.
#[derive(Debug, Default)]
struct Wanted {
    secrets: BTreeSet<String>,
    agents: BTreeSet<String>,
}

impl Wanted {
    fn of(program: &Program) -> Self {
        let mut wanted = Self::default();
        for instruction in program.stages.iter().flat_map(|stage| &stage.instructions) {
            match &instruction.kind {
                Kind::Run(run) => run.mounts.iter().for_each(|raw| wanted.mount(&raw.text)),
                // It may be a repository.
                Kind::Add(_) => {
                    wanted.secrets.insert(TOKEN.to_owned());
                    wanted.agents.insert("default".to_owned());
                }
                _ => {}
            }
        }
        wanted
    }

    fn mount(&mut self, raw: &str) {
        let Ok(mount) = mount::parse(raw, |text| Ok(text.to_owned())) else { return };
        match mount.kind {
            MountType::Secret => {
                let target = PathBuf::from(&mount.target);
                let of_target = target.file_name().map(|name| name.to_string_lossy().into_owned());
                let given = [mount.id, mount.source].into_iter().find(|id| !id.is_empty());
                self.secrets.extend(given.or(of_target));
            }
            MountType::Ssh => {
                let id = if mount.id.is_empty() { "default".to_owned() } else { mount.id };
                self.agents.insert(id);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steps_ask_for_is_known_before() {
        let program = berth_dockerfile_parser::read(
            "FROM x\nRUN --mount=type=secret,id=a --mount=type=secret,target=/run/b cat\nRUN --mount=type=ssh ssh\n",
        );
        let wanted = Wanted::of(&program);
        assert_eq!(wanted.secrets, ["a", "b"].map(str::to_owned).into());
        assert_eq!(wanted.agents, ["default".to_owned()].into());
    }

    #[test]
    fn only_sources_are_inputs() {
        let op = |identifier: &str| {
            let source = pb::SourceOp { identifier: identifier.into(), ..Default::default() };
            Bytes::from(pb::Op { source: Some(source), ..Default::default() }.encode_to_vec())
        };
        let definition = |def| pb::Definition { def, ..Default::default() };
        let place =
            place_of(&definition(vec![op("docker-image://docker.io/library/busybox:latest")])).unwrap();
        assert_eq!(place, Place::Image("docker.io/library/busybox:latest".into()));
        let place = place_of(&definition(vec![op("berth-image://sha256:ab"), Bytes::new()])).unwrap();
        assert_eq!(place, Place::Image("sha256:ab".into()));
        assert!(place_of(&definition(Vec::new())).is_err());
        assert!(place_of(&definition(vec![op("local://a"), op("local://b")])).is_err());
    }
}
