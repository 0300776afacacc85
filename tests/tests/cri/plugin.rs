//! A plugin of the Node Resource Interface, written from the protocol's description: one thread that reads the trunk and
//! answers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_nri::api;
use prost::Message;

/// What the plugin says to a request.
pub(crate) enum Reply {
    /// A message.
    Message(Vec<u8>),
    /// No, and why.
    Refusal(&'static str),
    /// Nothing, ever.
    Silence,
}

impl Reply {
    pub(crate) fn message(message: &impl Message) -> Self {
        Self::Message(message.encode_to_vec())
    }

    /// The empty message, which all others are when nothing is wanted.
    pub(crate) fn nothing() -> Self {
        Self::Message(Vec::new())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// A plugin that has joined.
pub(crate) struct Plugin {
    stream: UnixStream,
    seen: Arc<Mutex<Vec<String>>>,
    answers: Receiver<Response>,
    reader: Option<JoinHandle<()>>,
}

fn send(mut stream: &UnixStream, connection: u32, kind: u8, id: u32, body: &[u8]) {
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut frame = connection.to_be_bytes().to_vec();
    frame.extend(length(10 + body.len()));
    frame.extend(length(body.len()));
    frame.extend(id.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(body);
    // The daemon may have dropped us: then nobody is there to be told.
    drop(stream.write_all(&frame));
}

/// The next whole message of one of the two connections: connection, stream, body. None: the trunk has ended.
fn receive(mut stream: &UnixStream, parts: &mut [Vec<u8>; 2]) -> Option<(u32, u32, Vec<u8>)> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    loop {
        for (at, part) in parts.iter_mut().enumerate() {
            if part.len() >= 10 && part.len() >= 10 + number(&part[..4]) as usize {
                let end = 10 + number(&part[..4]) as usize;
                let (id, body) = (number(&part[4..8]), part[10..end].to_vec());
                part.drain(..end);
                return Some((u32::try_from(at).unwrap() + 1, id, body));
            }
        }
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let mut frame = vec![0; number(&head[4..]) as usize];
        stream.read_exact(&mut frame).ok()?;
        parts[number(&head[..4]) as usize - 1].extend(frame);
    }
}

impl Plugin {
    /// Joins the daemon with this socket. `answer` says what the plugin says to a method and its request.
    pub(crate) fn join(
        socket: &Path,
        index: &str,
        name: &str,
        events: &[api::Event],
        mut answer: impl FnMut(&str, &[u8]) -> Reply + Send + 'static,
    ) -> Self {
        let stream = UnixStream::connect(socket).expect("the NRI socket");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (told, answers) = mpsc::channel();
        let (ready, joined) = mpsc::channel();
        let events = events.iter().map(|event| 1 << (*event as i32 - 1)).sum();
        let (its, noted) = (stream.try_clone().unwrap(), Arc::clone(&seen));
        let reader = std::thread::spawn(move || {
            let mut parts = [Vec::new(), Vec::new()];
            while let Some((connection, id, body)) = receive(&its, &mut parts) {
                if connection == 2 {
                    drop(told.send(Response::decode(body.as_slice()).unwrap()));
                    continue;
                }
                let request = Request::decode(body.as_slice()).unwrap();
                assert_eq!(request.service, "nri.pkg.api.v1alpha1.Plugin");
                noted.lock().unwrap().push(request.method.clone());
                let reply = match request.method.as_str() {
                    "Configure" => Reply::message(&api::ConfigureResponse { events }),
                    method => answer(method, &request.payload),
                };
                let response = match reply {
                    Reply::Message(payload) => Response { status: None, payload },
                    Reply::Refusal(why) => {
                        let status = Status { code: 2, message: why.to_owned() };
                        Response { status: Some(status), payload: Vec::new() }
                    }
                    Reply::Silence => continue,
                };
                send(&its, 1, 2, id, &response.encode_to_vec());
                if request.method == "Synchronize" {
                    ready.send(()).ok();
                }
            }
        });
        let plugin = Self { stream, seen, answers, reader: Some(reader) };
        let register = api::RegisterPluginRequest {
            plugin_name: name.to_owned(),
            plugin_idx: index.to_owned(),
            nri_version: String::new(),
        };
        let response = plugin.call("RegisterPlugin", &register);
        assert_eq!(response.status, None);
        // From now on pods wait until the daemon has taken our answer.
        joined.recv_timeout(Duration::from_secs(60)).expect("a synchronization");
        plugin
    }

    /// Calls the daemon.
    fn call(&self, method: &str, request: &impl Message) -> Response {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Runtime".to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
        };
        send(&self.stream, 2, 1, 1, &request.encode_to_vec());
        self.answers.recv_timeout(Duration::from_secs(60)).expect("an answer")
    }

    /// Changes and evicts containers; those that could not be changed.
    pub(crate) fn update(&self, request: &api::UpdateContainersRequest) -> Vec<api::ContainerUpdate> {
        let response = self.call("UpdateContainers", request);
        assert_eq!(response.status, None);
        api::UpdateContainersResponse::decode(response.payload.as_slice()).unwrap().failed
    }

    /// What it was asked and told, in order.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the daemon has closed the connection.
    pub(crate) fn dropped(mut self) {
        self.reader.take().unwrap().join().expect("the plugin's thread");
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }
}
