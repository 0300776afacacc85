//! A client of BuildKit's protocol: it offers directories, secrets and an agent over a session, and asks for builds as
//! docker buildx does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use berth_buildkit::protocol::control::control_client::ControlClient;
use berth_buildkit::protocol::control::{Exporter, SolveRequest, StatusRequest, Vertex};
use berth_buildkit::protocol::filesync::BytesMessage;
use berth_buildkit::protocol::filesync::file_send_server::{FileSend, FileSendServer};
use berth_buildkit::protocol::filesync::file_sync_server::{FileSync, FileSyncServer};
use berth_buildkit::protocol::frontend::llb_bridge_client::LlbBridgeClient;
use berth_buildkit::protocol::frontend::result::Result as Found;
use berth_buildkit::protocol::frontend::{
    PingRequest, ReadFileRequest, ReturnRequest, RpcStatus, SolveRequest as BridgeSolve,
    SolveResponse as BridgeSolved, StatFileRequest,
};
use berth_buildkit::protocol::fsutil::types::packet::PacketType;
use berth_buildkit::protocol::fsutil::types::{Packet, Stat};
use berth_buildkit::protocol::pb;
use berth_buildkit::protocol::secrets::secrets_server::{Secrets, SecretsServer};
use berth_buildkit::protocol::secrets::{GetSecretRequest, GetSecretResponse};
use berth_buildkit::protocol::sshforward::ssh_server::{Ssh, SshServer};
use berth_buildkit::protocol::sshforward::{self, CheckAgentRequest, CheckAgentResponse};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Go's bit for directories.
const DIR: u32 = 1 << 31;
/// Go's bit for symlinks.
const SYMLINK: u32 = 1 << 27;

/// What a client offers.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Directories by the names that builds use.
    pub directories: HashMap<String, PathBuf>,
    /// Secrets by their id.
    pub secrets: HashMap<String, String>,
    /// Whether there is an agent `default`, which says everything again.
    pub agent: bool,
    /// What the client calls its context, from one build to the next.
    pub shared_key: String,
    /// Contents that the engine asked for, by path.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Bytes of the results that came.
    pub received: Arc<Mutex<Vec<u8>>>,
}

impl Offer {
    /// One directory with everything.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let both = ["context", "dockerfile"].map(|name| (name.to_owned(), directory.to_owned()));
        Self { directories: both.into(), shared_key: directory.display().to_string(), ..Self::default() }
    }

    /// What was asked for since the last time, sorted.
    ///
    /// # Panics
    /// If a test failed meanwhile.
    #[must_use]
    pub fn take_asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("no test failed here"));
        asked.sort();
        asked
    }
}

/// A session. Ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    /// What builds call it.
    pub id: String,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What became of a build.
#[derive(Debug)]
pub struct Built {
    /// What the engine says of the result.
    pub result: Result<HashMap<String, String>, Status>,
    /// Steps that have ended.
    pub vertexes: Vec<Vertex>,
    /// What they printed.
    pub output: String,
}

impl Built {
    /// Whether the step that begins so (behind its number) was cached.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn cached(&self, text: &str) -> bool {
        let step = self.vertexes.iter().find(|vertex| vertex.name.contains(text));
        step.unwrap_or_else(|| panic!("no step {text}: {:?}", self.vertexes)).cached
    }

    /// The image's id.
    ///
    /// # Panics
    /// If the build failed.
    #[track_caller]
    pub fn image(&self) -> String {
        let told = self.result.as_ref().unwrap_or_else(|error| panic!("{error:?}\n{}", self.output));
        told["containerimage.config.digest"].clone()
    }
}

/// A client.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    channel: Channel,
}

/// Takes a connection over from HTTP/1.
async fn upgrade(socket: &Path, path: &str, headers: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    Ok(stream)
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Client {
    /// Connects to the daemon with this socket.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn connect(socket: PathBuf) -> Self {
        let to = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = to.clone();
            async move { upgrade(&socket, "/grpc", "").await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        Self { socket, channel: channel.expect("the engine speaks BuildKit's protocol") }
    }

    /// Opens a session over a connection of its own.
    ///
    /// # Panics
    /// If the engine refuses it.
    pub async fn session(&self, offer: &Offer) -> Session {
        let id = unique();
        let mut headers = format!(
            "X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Sharedkey: {}\r\n",
            offer.shared_key
        );
        for method in METHODS {
            headers += &format!("X-Docker-Expose-Session-Grpc-Method: {method}\r\n");
        }
        let stream = upgrade(&self.socket, "/session", &headers).await.expect("a session");
        let task = tokio::spawn(serve(stream, offer.clone()));
        Session { id, task }
    }

    /// Opens a session inside of a call.
    ///
    /// # Panics
    /// If the engine refuses it.
    pub async fn session_in_call(&self, offer: &Offer) -> Session {
        use berth_buildkit::protocol::control::BytesMessage;
        let id = unique();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let (sender, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        let metadata = request.metadata_mut();
        metadata.insert("x-docker-expose-session-uuid", id.parse().expect("ASCII"));
        metadata.insert("x-docker-expose-session-sharedkey", offer.shared_key.parse().expect("ASCII"));
        for method in METHODS {
            metadata.append("x-docker-expose-session-grpc-method", method.parse().expect("ASCII"));
        }
        let mut control = ControlClient::new(self.channel.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 14];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                let data = buffer[..length].to_vec().into();
                if sender.send(BytesMessage { data }).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            let mut answers = control.session(request).await.expect("a session").into_inner();
            while let Ok(Some(message)) = answers.message().await {
                if writer.write_all(&message.data).await.is_err() {
                    return;
                }
            }
        });
        let task = tokio::spawn(serve(ours, offer.clone()));
        Session { id, task }
    }

    /// Asks for a build as buildx does: the frontend is called over the bridge, its result is returned.
    pub async fn build(
        &self,
        session: &Session,
        attributes: &[(&str, &str)],
        exporter: Option<(&str, &[(&str, &str)])>,
    ) -> Built {
        let attributes = map(attributes);
        let request = SolveRequest {
            r#ref: unique(),
            session: session.id.clone(),
            exporters: exporter
                .map(|(kind, attrs)| Exporter { r#type: kind.to_owned(), attrs: map(attrs) })
                .into_iter()
                .collect(),
            entitlements: vec!["network.host".to_owned()],
            ..SolveRequest::default()
        };
        let name = request.r#ref.clone();
        let mut control = ControlClient::new(self.channel.clone());
        let solve = control.solve(request);
        let (result, _, (vertexes, output)) =
            tokio::join!(solve, self.frontend(&name, attributes), self.status(&name));
        let result = result.map(|answer| answer.into_inner().exporter_response);
        Built { result, vertexes, output }
    }

    /// What the client does inside of a build.
    async fn frontend(&self, name: &str, attributes: HashMap<String, String>) {
        let mut bridge = LlbBridgeClient::new(self.channel.clone());
        bridge.ping(of_build(name, PingRequest {})).await.expect("the bridge answers");
        let request = BridgeSolve {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: attributes,
            ..BridgeSolve::default()
        };
        let returned = match bridge.solve(of_build(name, request)).await {
            Ok(solved) => {
                let BridgeSolved { result, .. } = solved.into_inner();
                ReturnRequest { result, error: None }
            }
            Err(status) => {
                let whole: RpcStatus = prost::Message::decode(status.details()).unwrap_or_default();
                let (code, message) = (status.code() as i32, status.message().to_owned());
                ReturnRequest { result: None, error: Some(RpcStatus { code, message, ..whole }) }
            }
        };
        // Who has gone is not answered.
        bridge.r#return(of_build(name, returned)).await.ok();
    }

    /// Looks at files of a source before anything is built from it, as buildx does: their contents, or why there are none.
    pub async fn look(
        &self,
        session: &Session,
        source: &str,
        paths: &[&str],
    ) -> Vec<Result<Vec<u8>, Status>> {
        let name = unique();
        let request =
            SolveRequest { r#ref: name.clone(), session: session.id.clone(), ..SolveRequest::default() };
        let mut control = self.control();
        let opened = tokio::spawn(async move { control.solve(request).await.map(drop) });
        let mut bridge = LlbBridgeClient::new(self.channel.clone());
        bridge.ping(of_build(&name, PingRequest {})).await.expect("the bridge answers");
        let source = pb::SourceOp { identifier: source.to_owned(), ..pb::SourceOp::default() };
        let op = prost::Message::encode_to_vec(&pb::Op { source: Some(source), ..pb::Op::default() });
        let definition = Some(pb::Definition { def: vec![op.into()], ..pb::Definition::default() });
        let solve = BridgeSolve { definition, ..BridgeSolve::default() };
        let solved = bridge.solve(of_build(&name, solve)).await.expect("the source is fetched").into_inner();
        let Some(Found::Ref(found)) = solved.result.and_then(|result| result.result) else {
            panic!("a source is one result")
        };
        let mut contents = Vec::new();
        for path in paths {
            let stat = StatFileRequest { r#ref: found.id.clone(), path: (*path).to_owned() };
            let file_path = (*path).to_owned();
            let read = ReadFileRequest { r#ref: found.id.clone(), file_path, range: None };
            contents.push(match bridge.stat_file(of_build(&name, stat)).await {
                Ok(_) => {
                    bridge.read_file(of_build(&name, read)).await.map(|file| file.into_inner().data.into())
                }
                Err(status) => Err(status),
            });
        }
        opened.abort();
        contents
    }

    async fn status(&self, name: &str) -> (Vec<Vertex>, String) {
        let mut control = ControlClient::new(self.channel.clone());
        let (mut ended, mut output) = (Vec::new(), String::new());
        let news = control.status(StatusRequest { r#ref: name.to_owned() }).await;
        let mut news = news.expect("the build tells how it goes").into_inner();
        while let Ok(Some(news)) = news.message().await {
            ended.extend(news.vertexes.into_iter().filter(|vertex| vertex.completed.is_some()));
            for log in news.logs {
                output += &String::from_utf8_lossy(&log.msg);
            }
        }
        (ended, output)
    }

    /// The control service itself.
    #[must_use]
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn of_build<T>(name: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", name.parse().expect("names are ASCII"));
    request
}

const METHODS: [&str; 5] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];

async fn serve<IO>(stream: IO, offer: Offer)
where
    IO: tokio::io::AsyncRead
        + tokio::io::AsyncWrite
        + tonic::transport::server::Connected
        + Unpin
        + Send
        + 'static,
{
    let server = Server::builder()
        .add_service(FileSyncServer::new(offer.clone()))
        .add_service(FileSendServer::new(offer.clone()))
        .add_service(SecretsServer::new(offer.clone()))
        .add_service(SshServer::new(offer));
    // The one connection, then none: the server ends with it.
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(stream));
    server.serve_with_incoming(incoming).await.ok();
}

/// A directory's files in the order in which they are named.
fn walk(directory: &Path, below: &Path, leave_out: &dyn Fn(&str) -> bool, found: &mut Vec<Stat>) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let mut entries: Vec<_> =
        std::fs::read_dir(directory.join(below)).expect("a directory").flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let name = path.to_str().expect("names are UTF-8").to_owned();
        if leave_out(&name) {
            continue;
        }
        let meta = entry.metadata().expect("metadata");
        let kind = if meta.is_dir() {
            DIR
        } else if meta.is_symlink() {
            SYMLINK
        } else {
            0
        };
        let linkname =
            std::fs::read_link(entry.path()).map(|to| to.display().to_string()).unwrap_or_default();
        found.push(Stat {
            path: name,
            mode: kind | meta.permissions().mode() & 0o777,
            size: i64::try_from(meta.size()).expect("files are small"),
            mod_time: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            linkname,
            ..Stat::default()
        });
        if meta.is_dir() {
            walk(directory, &path, leave_out, found);
        }
    }
}

#[tonic::async_trait]
impl FileSync for Offer {
    type DiffCopyStream = Replies<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Replies<Packet>>, Status> {
        let values = |name: &str| -> Vec<String> {
            let values = request.metadata().get_all(name).into_iter();
            values.map(|value| value.to_str().expect("ASCII").to_owned()).collect()
        };
        let name = values("dir-name").remove(0);
        let directory = self.directories.get(&name).cloned().ok_or_else(|| Status::not_found(name))?;
        let (exclude, only) = (values("exclude-patterns"), values("followpaths"));
        let leave_out = |path: &str| {
            exclude.iter().any(|pattern| path == pattern || path.starts_with(&format!("{pattern}/")))
                || !only.is_empty() && !only.iter().any(|wanted| wanted == path)
        };
        let mut files = Vec::new();
        walk(&directory, Path::new(""), &leave_out, &mut files);
        let (sender, receiver) = mpsc::channel(16);
        let asked = Arc::clone(&self.asked);
        // What is fetched beside the context is asked for each time.
        let counts = only.is_empty();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let packet = |kind: PacketType, id, data: Vec<u8>| {
                Ok(Packet { r#type: kind.into(), id, data: data.into(), ..Packet::default() })
            };
            for stat in &files {
                let named = Packet { stat: Some(stat.clone()), ..Packet::default() };
                sender.send(Ok(named)).await.ok();
            }
            sender.send(Ok(Packet::default())).await.ok();
            while let Ok(Some(request)) = requests.message().await {
                match request.r#type() {
                    PacketType::PacketReq => {
                        let stat = &files[request.id as usize];
                        if counts {
                            asked.lock().expect("no test failed here").push(stat.path.clone());
                        }
                        let data = std::fs::read(directory.join(&stat.path)).expect("a file");
                        for piece in data.chunks(1 << 14) {
                            sender
                                .send(packet(PacketType::PacketData, request.id, piece.to_vec()))
                                .await
                                .ok();
                        }
                        sender.send(packet(PacketType::PacketData, request.id, Vec::new())).await.ok();
                    }
                    PacketType::PacketFin => {
                        sender.send(packet(PacketType::PacketFin, 0, Vec::new())).await.ok();
                        return;
                    }
                    _ => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl FileSend for Offer {
    type DiffCopyStream = Replies<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Replies<BytesMessage>>, Status> {
        let mut pieces = request.into_inner();
        while let Some(piece) = pieces.message().await? {
            self.received.lock().expect("no test failed here").extend_from_slice(&piece.data);
        }
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

#[tonic::async_trait]
impl Secrets for Offer {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let data = self.secrets.get(&id).ok_or_else(|| Status::not_found(id))?;
        Ok(Response::new(GetSecretResponse { data: data.clone().into_bytes().into() }))
    }
}

#[tonic::async_trait]
impl Ssh for Offer {
    type ForwardAgentStream = Replies<sshforward::BytesMessage>;

    async fn check_agent(
        &self,
        _: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        match self.agent {
            true => Ok(Response::new(CheckAgentResponse {})),
            false => Err(Status::not_found("no agent")),
        }
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<sshforward::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let said = request.into_inner().map(|message| {
            message.map(|message| {
                let data = [b"agent: ", message.data.as_ref()].concat().into();
                sshforward::BytesMessage { data }
            })
        });
        Ok(Response::new(Box::pin(said)))
    }
}
