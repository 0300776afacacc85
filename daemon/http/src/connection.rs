//! One client's connection: hyper until the end, or until a handler takes it over.

use std::{convert::Infallible, future::poll_fn, time::Duration};

use http::{Request, Response, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use crate::{
    body::Body,
    request_line::{Begins, Encoded},
    takeover::{Socket, TakeOver, Taken},
};

/// How long a connection may be idle between two requests; dockerd's time.
const IDLE: Duration = Duration::from_secs(300);

/// Serves one connection to its end. `answer` gets each request and a way to take the connection over; having
/// taken it over it must never return.
pub(crate) async fn serve<F, A>(socket: Socket, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>, TakeOver) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let (take_over, mut wanted) = TakeOver::new();
    let begins = Begins::default();
    let service = service_fn(|request: Request<Incoming>| {
        if ends_with_its_head(&request) {
            begins.next();
        }
        let answer = answer(request, take_over.clone());
        Box::pin(async move { Ok::<_, Infallible>(answer.await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(Encoded::new(socket, begins.clone())), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            Some(reply) = wanted.recv() => {
                let parts = connection.into_parts();
                let (socket, held) = parts.io.into_inner().into_parts();
                let ahead = [parts.read_buf, held].concat().into();
                let taken = Taken { socket, ahead };
                // A handler that has gone meanwhile has closed its end; the socket closes with it.
                reply.send(taken).ok();
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

/// Whether what follows on the connection can only be another request: no body, and no input of a container.
fn ends_with_its_head(request: &Request<Incoming>) -> bool {
    let may_be_taken_over = request.headers().contains_key(header::UPGRADE)
        || request.uri().path().ends_with("/attach")
        || request.uri().path().ends_with("/start");
    request.body().is_end_stream() && !may_be_taken_over
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;
    use crate::body;

    /// Answers `/plain` with text, `/refuse` before the body has come; on `/take` takes over, says a head and what had been read ahead, then echoes.
    async fn answer(request: Request<Incoming>, take_over: TakeOver) -> Response<Body> {
        if request.uri().path() == "/plain" {
            return body::text(StatusCode::OK, "hello".to_owned());
        }
        if request.uri().path() == "/refuse" {
            body::forget(request.into_body());
            return body::text(StatusCode::SERVICE_UNAVAILABLE, "no".to_owned());
        }
        tokio::spawn(async move {
            let mut taken = take_over.take().await.unwrap();
            let ahead = taken.ahead.clone();
            taken.write(b"HEAD").await.unwrap();
            taken.write(&ahead).await.unwrap();
            let mut rest = Vec::new();
            taken.socket.read_to_end(&mut rest).await.unwrap();
            taken.write(&rest).await.unwrap();
        });
        std::future::pending().await
    }

    fn connect() -> (UnixStream, CancellationToken) {
        let (client, server) = UnixStream::pair().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(Socket::Unix(server), stop.clone(), answer));
        (client, stop)
    }

    #[tokio::test]
    async fn a_handler_takes_the_socket_with_what_was_read_ahead() {
        let (mut client, _stop) = connect();
        // An ordinary request first: the connection is reused. Input follows the second one in the same write.
        client.write_all(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].ends_with(b"hello"));
        client.write_all(b"POST /take HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\n\r\nahead ").await.unwrap();
        client.write_all(b"later").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "HEADahead later");
    }

    #[tokio::test]
    async fn quotes_in_a_query_are_taken_as_they_are() {
        let (mut client, _stop) = connect();
        let mut buffer = vec![0; 4096];
        for _ in 0..3 {
            client
                .write_all(b"GET /plain?filters={\"a\":[\"b\"]} HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let length = client.read(&mut buffer).await.unwrap();
            assert!(
                buffer[..length].starts_with(b"HTTP/1.1 200 "),
                "{:?}",
                buffer[..length].utf8_chunks().next()
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_is_refused_can_still_write_what_it_had_to_say() {
        let (mut client, _stop) = connect();
        let mut buffer = vec![0; 4096];
        client.write_all(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n").await.unwrap();
        let length = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 503 "));
        client.write_all(b"bodyGET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let length = client.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].ends_with(b"hello"));
    }

    #[tokio::test]
    async fn an_idle_connection_ends_with_the_server() {
        let (mut client, stop) = connect();
        client.write_all(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 4096];
        assert_ne!(client.read(&mut buffer).await.unwrap(), 0);
        stop.cancel();
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn headers_are_written_as_docker_writes_them() {
        let (mut client, _stop) = connect();
        client.write_all(b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert!(all.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{all}");
    }
}
