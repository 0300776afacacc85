//! Builds of clients that speak BuildKit's `session` beside `POST /build?version=2`, as dockerode and testcontainers do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use berth_buildkit::protocol::filesync::auth_server::{Auth, AuthServer};
use berth_buildkit::protocol::filesync::{CredentialsRequest, CredentialsResponse};
use berth_tests::base;
use berth_tests::cli::{Frontend, finish};
use berth_tests::daemon::Daemon;
use berth_tests::registry::Registry;
use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status};

/// What a client serves: the credentials it has, and a list of the hosts it was asked for.
#[derive(Clone, Default)]
struct Login {
    asked: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Auth for Login {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        self.asked.lock().expect("the list").push(request.into_inner().host);
        Ok(Response::new(CredentialsResponse { username: "captain".to_owned(), secret: "ahoy".to_owned() }))
    }
}

/// Sends the head of a request, and gives the connection with the head of the answer.
fn request(daemon: &Daemon, head: &str, body: &[u8]) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(daemon.host().trim_start_matches("unix://")).expect("connect");
    let text = format!("{head}\r\nHost: berth\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(text.as_bytes()).expect("send the head");
    stream.write_all(body).expect("send the body");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the answer's head");
        answer.push(byte[0]);
    }
    (stream, String::from_utf8(answer).expect("text"))
}

fn open_session(daemon: &Daemon, id: &str, protocol: &str) -> (UnixStream, String) {
    let head = format!(
        "POST /v1.51/session HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         X-Docker-Expose-Session-Uuid: {id}"
    );
    request(daemon, &head, b"")
}

/// A context that holds this Dockerfile only.
fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).expect("a file");
    tar.into_inner().expect("a tar archive")
}

/// Builds with BuildKit's version of the endpoint, and gives what was told.
fn build(daemon: &Daemon, query: &str, dockerfile: &str) -> String {
    let head = format!(
        "POST /v1.51/build?version=2&{query} HTTP/1.1\r\nContent-Type: application/x-tar\r\nConnection: close"
    );
    let (mut stream, answer) = request(daemon, &head, &context(dockerfile));
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("progress");
    answer + &told
}

#[test]
fn a_build_asks_its_client_for_credentials() {
    let daemon = Daemon::with_busybox();
    let dir = daemon.scratch("config");
    let registry = Registry::with_login(&dir);
    let (image, server) = (registry.name("base:1"), format!("localhost:{}", registry.port()));
    let run = |args: &[&str], input: &[u8]| {
        let mut command = daemon.cli(Frontend::Docker).command(args);
        command.env("DOCKER_CONFIG", &dir);
        finish(command, input, args.join(" ")).success()
    };
    run(&["login", "-u", "captain", "--password-stdin", &server], b"ahoy\n");
    run(&["import", "-", &image], &base::busybox_tar());
    run(&["push", "-q", &image], b"");
    run(&["rmi", &image], b"");

    let dockerfile = format!("FROM {image}\nCOPY <<text /made\nmade\ntext\n");
    let told = build(&daemon, "t=none", &dockerfile);
    assert!(told.contains("\"error\"") && told.contains("base"), "without credentials: {told}");

    let (stream, answer) = open_session(&daemon, "one", "h2c");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Upgrade: h2c"), "{answer}");
    stream.set_nonblocking(true).expect("a socket for tokio");
    let client = Login::default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let served = client.clone();
    runtime.spawn(async move {
        let stream = tokio::net::UnixStream::from_std(stream).expect("a socket of tokio");
        let incoming = stream::iter([Ok::<_, std::io::Error>(stream)]).chain(stream::pending());
        tonic::transport::Server::builder()
            .add_service(AuthServer::new(served))
            .serve_with_incoming(incoming)
            .await
    });
    let told = build(&daemon, "t=app&session=one", &dockerfile);
    assert!(told.contains("Successfully tagged app:latest"), "{told}");
    assert!(told.contains(r#""id":"moby.image.id""#) && told.contains(r#""aux":{"ID":"sha256:"#), "{told}");
    assert_eq!(*client.asked.lock().expect("the list"), [server]);
    assert_eq!(daemon.cli(Frontend::Docker).ok(&["run", "--rm", "app", "cat", "/made"]), "made");
}

#[test]
fn what_a_session_cannot_do_is_said() {
    let daemon = Daemon::start();
    let refused = |head: &str, text: &str| {
        let (mut stream, answer) = request(&daemon, &format!("{head}\r\nConnection: close"), b"");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400 ") && told.contains(text), "{head}: {answer}{told}");
    };
    refused("POST /v1.51/build?version=2&remote=client-session&session=x HTTP/1.1", "DOCKER_BUILDKIT=0");
    // What needs no credentials needs no session.
    let told = build(&daemon, "t=app&session=nobody", "FROM scratch\nCOPY Dockerfile /\n");
    assert!(told.contains("Successfully tagged app:latest"), "{told}");
}
