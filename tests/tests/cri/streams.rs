//! Exec and attach over a websocket, as crictl and kubectl speak it.

use berth_cri::v1;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Cri, container, pod};

/// A websocket at a URL of the streaming server.
pub(crate) async fn connect(url: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an http URL");
    let stream = TcpStream::connect(address).await.expect("the streaming server");
    let mut request = url.replace("http://", "ws://").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().expect("a header"));
    let (socket, response) =
        tokio_tungstenite::client_async(request, stream).await.map_err(|error| error.to_string())?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    Ok(socket)
}

/// All that comes on each channel until the end.
async fn read(mut socket: WebSocketStream<TcpStream>) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    channels
}

#[tokio::test]
async fn exec_over_a_websocket() {
    let cri = Cri::start();
    let id = cri.run(pod("ws", cri.logs())).await.unwrap();
    let box_ = cri.running(&id, "box", "exec sleep 1000").await;
    let url = async |script: &str, stdin: bool, tty: bool| {
        let request = v1::ExecRequest {
            container_id: box_.clone(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            tty,
            stdin,
            stdout: true,
            stderr: !tty,
        };
        cri.runtime().exec(request).await.unwrap().into_inner().url
    };
    let once = url("echo out; echo err >&2; exit 4", false, false).await;
    let [_, out, err, end] = read(connect(&once, "v5.channel.k8s.io").await.unwrap()).await;
    assert_eq!((&out[..], &err[..]), (&b"out\n"[..], &b"err\n"[..]));
    let end: serde_json::Value = serde_json::from_slice(&end).unwrap();
    assert_eq!(end["details"]["causes"][0]["message"], "4");
    assert!(connect(&once, "v5.channel.k8s.io").await.is_err(), "a URL is good once");

    // Standard input ends when the client says so.
    let mut socket = connect(&url("cat; echo end", true, false).await, "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(b"\x00typed\n".to_vec().into())).await.unwrap();
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let [_, out, _, end] = read(socket).await;
    assert_eq!(String::from_utf8(out).unwrap(), "typed\nend\n");
    assert!(String::from_utf8(end).unwrap().contains("Success"));

    let script = "while [ \"$(stty size)\" != '17 91' ]; do sleep 0.05; done; read x; echo end $x";
    let mut socket = connect(&url(script, true, true).await, "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary([&[4][..], br#"{"Width":91,"Height":17}"#].concat().into())).await.unwrap();
    socket.send(Message::Binary(b"\x00go\n".to_vec().into())).await.unwrap();
    let [_, out, ..] = read(socket).await;
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with("end go\r\n"), "{out:?}");
    cri.remove_pod(&id).await.unwrap();
}

#[tokio::test]
async fn attach_over_a_websocket() {
    let cri = Cri::start();
    let id = cri.run(pod("attach", cri.logs())).await.unwrap();
    let config = v1::ContainerConfig { stdin: true, stdin_once: true, ..container("echo", "cat; echo over") };
    let echo = cri.create(&id, config).await.unwrap();
    let request = v1::AttachRequest {
        container_id: echo.clone(),
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    assert!(cri.runtime().attach(request.clone()).await.is_err(), "it does not run yet");
    cri.start_container(&echo).await.unwrap();
    let url = cri.runtime().attach(request).await.unwrap().into_inner().url;
    let mut socket = connect(&url, "v5.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(b"\x00hello\n".to_vec().into())).await.unwrap();
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let [_, out, ..] = read(socket).await;
    assert_eq!(String::from_utf8(out).unwrap(), "hello\nover\n");
    assert_eq!(cri.ended(&echo).await.exit_code, 0);
    assert_eq!(cri.log("echo.log"), ["stdout F hello", "stdout F over"]);
    cri.remove_pod(&id).await.unwrap();
}
