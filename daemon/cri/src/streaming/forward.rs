//! Forwarded ports: for each connection the client opens a stream of data and one for an error.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Streaming;
use super::spdy::{Connection, Stream};

/// After the pod has closed its side, what the client still sends is awaited for so long.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that is being asked for.
#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Serves a client until it has gone. One connection's failure is told on its error stream and ends no other.
pub(super) async fn run(server: &Arc<Streaming>, sandbox: &str, mut connection: Connection) {
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            () = server.stop.cancelled() => None,
        };
        let Some(stream) = stream else { return };
        let header = |name: &str| stream.headers.get(name).cloned().unwrap_or_default();
        // Clients from before request ids open streams in order, the error first.
        let request = match header("requestid") {
            id if id.is_empty() => header("port"),
            id => id,
        };
        let pair = pairs.entry(request.clone()).or_default();
        match header("streamtype").as_str() {
            "data" => pair.data = Some(stream),
            "error" => pair.error = Some(stream),
            _ => {
                stream.output.reset().await;
                continue;
            }
        }
        if let Some(Pair { data: Some(_), error: Some(_) }) = pairs.get(&request)
            && let Some(Pair { data: Some(data), error: Some(error) }) = pairs.remove(&request)
        {
            tokio::spawn(forward(Arc::clone(server), sandbox.to_owned(), data, error));
        }
    }
}

async fn forward(server: Arc<Streaming>, sandbox: String, data: Stream, error: Stream) {
    let port = data.headers.get("port").and_then(|port| port.parse().ok()).filter(|port: &u16| *port != 0);
    let connected = match port {
        Some(port) => server.engine.connect_in_pod(&sandbox, port).await.map_err(|error| error.to_string()),
        None => Err(format!("{:?} is no port", data.headers.get("port").cloned().unwrap_or_default())),
    };
    match connected.and_then(|stream| TcpStream::from_std(stream).map_err(|error| error.to_string())) {
        Ok(stream) => {
            let forwarded = tokio::select! {
                forwarded = carry(stream, data) => forwarded,
                () = server.stop.cancelled() => Ok(()),
            };
            if let Err(problem) = forwarded {
                tracing::debug!(sandbox, error = %problem, "a forwarded connection");
            }
        }
        Err(problem) => {
            let text = format!("error forwarding port {} to pod {sandbox}: {problem}", port.unwrap_or(0));
            // The client may have gone.
            error.output.send(Bytes::from(text)).await;
            data.output.reset().await;
        }
    }
    error.output.close().await;
}

/// Both ways until both sides have closed, or the pod has and the client does not within a moment.
async fn carry(stream: TcpStream, data: Stream) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let Stream { mut input, output, .. } = data;
    let from_client = async move {
        while let Some(bytes) = input.recv().await {
            writer.write_all(&bytes).await?;
        }
        writer.shutdown().await
    };
    let from_pod = async {
        let mut piece = vec![0; 32 << 10];
        let ended = loop {
            match reader.read(&mut piece).await {
                Ok(0) => break Ok(()),
                Ok(read) if output.send(Bytes::copy_from_slice(&piece[..read])).await => {}
                // The client has gone.
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match ended {
            Ok(()) => output.close().await,
            Err(_) => output.reset().await,
        }
        ended
    };
    let from_client = tokio::spawn(from_client);
    let ended = from_pod.await;
    let abort = from_client.abort_handle();
    if tokio::time::timeout(LINGER, from_client).await.is_err() {
        abort.abort();
    }
    ended
}
