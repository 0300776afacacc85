//! Port-forward through a websocket: SPDY in binary messages, by a client of as few lines as possible.

use berth_cri::v1;
use flate2::{Compress, Compression, FlushCompress};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Cri, pod};
use crate::streams::connect;

/// A SPDY client that opens streams, sends and collects.
struct Spdy {
    socket: WebSocketStream<TcpStream>,
    pack: Compress,
    buffer: Vec<u8>,
}

impl Spdy {
    async fn send(&mut self, bytes: Vec<u8>) {
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// Without the dictionary, which a client need not use.
    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        self.pack.compress_vec(&plain, &mut packed, FlushCompress::Sync).unwrap();
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend((packed.len() as u32 + 10).to_be_bytes());
        frame.extend(id.to_be_bytes());
        frame.extend([0; 6]);
        frame.extend(packed);
        self.send(frame).await;
    }

    async fn data(&mut self, id: u32, bytes: &[u8], last: bool) {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend((u32::from(last) << 24 | bytes.len() as u32).to_be_bytes());
        frame.extend(bytes);
        self.send(frame).await;
    }

    /// All data of a stream until it is closed.
    async fn collect(&mut self, id: u32) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            while self.buffer.len() >= 8 {
                let length = u32::from_be_bytes([0, self.buffer[5], self.buffer[6], self.buffer[7]]) as usize;
                if self.buffer.len() < 8 + length {
                    break;
                }
                let frame: Vec<u8> = self.buffer.drain(..8 + length).collect();
                if frame[..4] == id.to_be_bytes() {
                    data.extend_from_slice(&frame[8..]);
                    if frame[4] & 1 == 1 {
                        return data;
                    }
                }
                // RST_STREAM of this stream.
                if frame[..4] == [0x80, 3, 0, 3] && frame[8..12] == id.to_be_bytes() {
                    return data;
                }
            }
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => self.buffer.extend_from_slice(&bytes),
                Some(Ok(_)) => {}
                _ => return data,
            }
        }
    }
}

#[tokio::test]
async fn a_port_of_a_pod_is_reached_through_a_websocket() {
    let cri = Cri::start();
    let id = cri.run(pod("ports", cri.logs())).await.unwrap();
    let script = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let server = cri.running(&id, "server", script).await;
    let listens = "while ! netstat -ltn | grep -q 127.0.0.1:8080; do sleep 0.05; done";
    cri.exec(&server, listens, 60).await.unwrap();
    let request = v1::PortForwardRequest { pod_sandbox_id: id.clone(), port: vec![] };
    let url = cri.runtime().port_forward(request).await.unwrap().into_inner().url;
    let socket = connect(&url, "SPDY/3.1+portforward.k8s.io").await.unwrap();
    let mut spdy = Spdy { socket, pack: Compress::new(Compression::fast(), true), buffer: Vec::new() };
    let stream = |kind, port, request| [("streamtype", kind), ("port", port), ("requestid", request)];
    // Nobody listens there: that is told, and the session goes on.
    spdy.open(1, &stream("error", "9", "0")).await;
    spdy.open(3, &stream("data", "9", "0")).await;
    let error = String::from_utf8(spdy.collect(1).await).unwrap();
    assert!(error.contains("error forwarding port 9") && error.contains("refused"), "{error}");
    spdy.open(5, &stream("error", "8080", "1")).await;
    spdy.open(7, &stream("data", "8080", "1")).await;
    spdy.data(7, b"GET / HTTP/1.0\r\n\r\n", false).await;
    let answer = String::from_utf8(spdy.collect(7).await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("served\n"), "{answer}");
    assert_eq!(spdy.collect(5).await, b"", "no error");
    drop(spdy);
    cri.remove_pod(&id).await.unwrap();
}
