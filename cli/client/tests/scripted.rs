//! The client against a daemon that speaks from a script: every byte on the wire is known.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread::JoinHandle,
};

use berth_client::{
    Client, Error, Host, SPOKEN, Upload,
    api::{
        ApiVersion,
        options::{Attach, Logs, PutArchive, WaitCondition},
        stdcopy::Stream as Channel,
    },
};
use tokio::io::AsyncWriteExt as _;

const PING: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nOstype: linux\r\nBuilder-Version: 1\r\nContent-Length: 0\r\n\r\n";

/// What the daemon does for one request.
enum Act {
    Say(&'static str),
    /// Pieces apart in time, so that they arrive apart.
    Pieces(Vec<Vec<u8>>),
    /// Says something, then echoes what comes until the client's end of input, then says a last word.
    Echo(&'static str, &'static [u8]),
    /// Says something and closes the connection.
    SayAndClose(&'static str),
}

struct Daemon {
    _dir: tempfile::TempDir,
    path: PathBuf,
    thread: JoinHandle<Vec<String>>,
}

impl Daemon {
    /// Answers one request per act; gives the requests' first lines in the end.
    fn script(acts: Vec<Act>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let mut lines = Vec::new();
            let mut kept: Option<UnixStream> = None;
            for act in acts {
                let (mut socket, head) = next_request(&listener, &mut kept);
                lines.push(head.lines().next().unwrap_or_default().to_owned());
                kept = act.perform(&mut socket).then_some(socket);
            }
            lines
        });
        Self { _dir: dir, path, thread }
    }

    /// A client that speaks 1.41 from the beginning.
    fn client(&self) -> Client {
        Client::with_version(Host::Unix(self.path.clone()), ApiVersion::new(1, 41))
    }

    fn requests(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

/// The next request, on the connection that was kept or on a new one.
fn next_request(listener: &UnixListener, kept: &mut Option<UnixStream>) -> (UnixStream, String) {
    if let Some(mut socket) = kept.take()
        && let Some(head) = read_head(&mut socket)
    {
        return (socket, head);
    }
    let (mut socket, _) = listener.accept().unwrap();
    let head = read_head(&mut socket).expect("a request");
    (socket, head)
}

fn read_head(socket: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .to_ascii_lowercase()
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse().unwrap());
    socket.read_exact(&mut vec![0; length]).unwrap();
    Some(head)
}

impl Act {
    /// Tells whether the connection stays for the next request.
    fn perform(self, socket: &mut UnixStream) -> bool {
        match self {
            Self::Say(text) => socket.write_all(text.as_bytes()).is_ok(),
            Self::SayAndClose(text) => {
                socket.write_all(text.as_bytes()).unwrap();
                false
            }
            Self::Pieces(pieces) => {
                for piece in pieces {
                    socket.write_all(&piece).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                false
            }
            Self::Echo(text, last) => {
                socket.write_all(text.as_bytes()).unwrap();
                let mut buffer = [0; 64];
                loop {
                    match socket.read(&mut buffer).unwrap() {
                        0 => break,
                        n => {
                            let mut frame = vec![1, 0, 0, 0, 0, 0, 0, n as u8];
                            frame.extend_from_slice(&buffer[..n]);
                            socket.write_all(&frame).unwrap();
                        }
                    }
                }
                socket.write_all(last).unwrap();
                false
            }
        }
    }
}

/// What a daemon of API 1.41 answers to what is newer.
const TOO_NEW: &str = "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\nContent-Length: 97\r\n\r\n\
    {\"message\":\"client version 1.51 is too new. Maximum supported API version is 1.41, says dockerd\"}";

#[tokio::test]
async fn the_version_is_negotiated_once_and_the_connection_reused() {
    let newest = SPOKEN;
    let told = "HTTP/1.1 200 OK\r\nApi-Version: 1.99\r\nContent-Length: 2\r\n\r\n[]";
    let daemon = Daemon::script(vec![Act::Say(told), Act::Say("HTTP/1.1 304 Not Modified\r\n\r\n")]);
    let client = Client::connect(Host::Unix(daemon.path.clone())).await.unwrap();
    assert!(client.container_list(&Default::default()).await.unwrap().is_empty());
    assert!(!client.container_start("a b", "").await.unwrap());
    assert_eq!(client.version_spoken().await.unwrap(), newest);
    assert_eq!(
        daemon.requests(),
        [
            format!("GET /v{newest}/containers/json HTTP/1.1"),
            format!("POST /v{newest}/containers/a%20b/start HTTP/1.1"),
        ],
        "nothing is asked of a daemon that knows our version"
    );
}

#[tokio::test]
async fn an_older_daemon_is_told_again_in_its_own_version() {
    let daemon = Daemon::script(vec![
        Act::Say(TOO_NEW),
        Act::Say("HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"i\"}"),
        Act::Say("HTTP/1.1 400 Bad Request\r\nContent-Length: 19\r\n\r\n{\"message\":\"other\"}"),
    ]);
    let client = Client::new(Host::Unix(daemon.path.clone()));
    assert_eq!(client.exec_create("c", &Default::default()).await.unwrap(), "i");
    assert_eq!(client.container_start("c", "").await.unwrap_err().to_string(), "other");
    assert_eq!(
        daemon.requests(),
        [
            format!("POST /v{}/containers/c/exec HTTP/1.1", SPOKEN),
            "POST /v1.41/containers/c/exec HTTP/1.1".to_owned(),
            "POST /v1.41/containers/c/start HTTP/1.1".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_daemon_that_names_no_version_is_asked_when_it_refuses() {
    let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\n{\"message\":\"what\"}";
    let list = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
    let daemon = Daemon::script(vec![Act::Say(refused), Act::Say(PING), Act::Say(list)]);
    let client = Client::new(Host::Unix(daemon.path.clone()));
    assert!(client.container_list(&Default::default()).await.unwrap().is_empty());
    let requests = daemon.requests();
    assert_eq!(requests[1..], ["HEAD /_ping HTTP/1.1", "GET /v1.41/containers/json HTTP/1.1"]);
}

#[tokio::test]
async fn what_can_be_sent_but_once_is_sent_in_the_version_that_was_asked_for() {
    let daemon = Daemon::script(vec![Act::Say(PING), Act::SayAndClose("HTTP/1.1 200 OK\r\n\r\n")]);
    let client = Client::new(Host::Unix(daemon.path.clone()));
    let options = PutArchive { path: "/".to_owned(), no_overwrite_dir_non_dir: false, copy_uid_gid: false };
    // This daemon hangs up without reading the archive: whether the client hears of that first is open.
    client.container_archive_put("c", &options, Upload::from_reader(&b"tar"[..])).await.ok();
    assert!(daemon.requests()[1].starts_with("PUT /v1.41/containers/c/archive?"));
}

#[tokio::test]
async fn an_exec_runs_in_one_exchange_where_the_engine_knows_how() {
    let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
                Connection: Upgrade\r\nUpgrade: berth-exec\r\nBerth-Exec-Id: e\r\n\r\n\
                \x01\0\0\0\0\0\0\x03hi\n\x04\0\0\0\0\0\0\x04\0\0\0\x03";
    let daemon = Daemon::script(vec![Act::SayAndClose(head)]);
    let client = Client::new(Host::Unix(daemon.path.clone()));
    let (id, mut session) = client.exec_run("c", &Default::default()).await.unwrap();
    assert_eq!(id, "e");
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stdout, "hi\n".into())));
    assert_eq!((session.output.next_output().await.unwrap(), session.output.exit_code()), (None, Some(3)));
    assert_eq!(daemon.requests(), [format!("POST /v{}/containers/c/exec HTTP/1.1", SPOKEN)]);
}

#[tokio::test]
async fn an_exec_is_created_and_started_where_the_engine_does_not() {
    let created = "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"i\"}";
    let started = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                   Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0\x03hi\n";
    let daemon = Daemon::script(vec![Act::Say(created), Act::SayAndClose(started)]);
    let (id, mut session) = daemon.client().exec_run("c", &Default::default()).await.unwrap();
    assert_eq!(id, "i");
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stdout, "hi\n".into())));
    assert_eq!((session.output.next_output().await.unwrap(), session.output.exit_code()), (None, None));
    assert_eq!(daemon.requests()[1], "POST /v1.41/exec/i/start HTTP/1.1");
}

#[tokio::test]
async fn refusals_carry_the_daemons_words() {
    let daemon = Daemon::script(vec![
        Act::Say(
            "HTTP/1.1 404 Not Found\r\nContent-Length: 37\r\n\r\n{\"message\":\"No such container: nope\"}",
        ),
        Act::SayAndClose("HTTP/1.1 409 Conflict\r\nContent-Type: text/plain\r\n\r\nplain words\r\n"),
    ]);
    let client = daemon.client();
    let error = client.container_inspect("nope", false).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "No such container: nope");
    let error = client.container_attach("nope", &Attach::default(), false).await.unwrap_err();
    assert!(error.is_conflict());
    assert_eq!(error.to_string(), "plain words");
    daemon.requests();
}

#[tokio::test]
async fn nobody_there() {
    let client = Client::new("unix:///nonexistent/berth.sock".parse().unwrap());
    let error = client.info().await.unwrap_err();
    assert!(error.is_unreachable());
    assert!(error.to_string().contains("unix:///nonexistent/berth.sock"), "{error}");
}

#[tokio::test]
async fn progress_arrives_in_any_pieces() {
    let body = "{\"status\":\"a\"}\r\n{\"status\":\"b\"}\r\n{\"error\":\"x\",\"errorDetail\":{\"message\":\"x\"}}\r\n";
    for size in [1, 7, 1000] {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_bytes().to_vec();
        let pieces = std::iter::once(head).chain(body.as_bytes().chunks(size).map(<[u8]>::to_vec)).collect();
        let daemon = Daemon::script(vec![Act::Pieces(pieces)]);
        let mut stream = daemon.client().image_push("x", "1", &Default::default(), None).await.unwrap();
        let mut texts = Vec::new();
        while let Some(message) = stream.next().await.unwrap() {
            texts.push(message.status.or(message.error).unwrap());
        }
        assert_eq!(texts, ["a", "b", "x"], "pieces of {size}");
        assert_eq!(daemon.requests()[0], "POST /v1.41/images/x/push?tag=1 HTTP/1.1");
    }
}

#[tokio::test]
async fn logs_are_taken_out_of_their_frames() {
    let frames = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err".to_vec();
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    let daemon = Daemon::script(vec![Act::Pieces(vec![head, frames[..5].into(), frames[5..].into()])]);
    let options = Logs { stdout: true, stderr: true, ..Logs::default() };
    let mut logs = daemon.client().container_logs("c", &options, false).await.unwrap();
    assert_eq!(logs.next_output().await.unwrap(), Some((Channel::Stdout, "out".into())));
    assert_eq!(logs.next_output().await.unwrap(), Some((Channel::Stderr, "err".into())));
    assert_eq!(logs.next_output().await.unwrap(), None);
    assert_eq!(daemon.requests()[0], "GET /v1.41/containers/c/logs?stdout=1&stderr=1&tail=all HTTP/1.1");
}

#[tokio::test]
async fn attach_half_closes() {
    // The first frame comes with the head, before the client has taken the connection over.
    let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0\x03hi\n";
    let daemon = Daemon::script(vec![Act::Echo(head, b"\x02\0\0\0\0\0\0\x04last")]);
    let options = Attach { stream: true, stdin: true, stdout: true, stderr: true, ..Attach::default() };
    let mut session = daemon.client().container_attach("c", &options, false).await.unwrap();
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stdout, "hi\n".into())));
    session.input.write_all(b"ping").await.unwrap();
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stdout, "ping".into())));
    session.input.shutdown().await.unwrap();
    assert_eq!(session.output.next_output().await.unwrap(), Some((Channel::Stderr, "last".into())));
    assert_eq!(session.output.next_output().await.unwrap(), None);
    let line = &daemon.requests()[0];
    assert_eq!(line, "POST /v1.41/containers/c/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1");
}

#[tokio::test]
async fn a_wait_is_registered_before_it_ends() {
    let pieces = vec![
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        b"11\r\n{\"StatusCode\":7}\n\r\n0\r\n\r\n".to_vec(),
    ];
    let daemon = Daemon::script(vec![Act::Pieces(pieces)]);
    let wait = daemon.client().container_wait("c", WaitCondition::NextExit).await.unwrap();
    assert_eq!(wait.exit().await.unwrap().status_code, 7);
    daemon.requests();
}

#[tokio::test]
async fn a_broken_answer_is_an_error() {
    let daemon =
        Daemon::script(vec![Act::SayAndClose("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ID\":")]);
    let error = daemon.client().info().await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    daemon.requests();
}
