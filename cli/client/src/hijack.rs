//! Connections taken over: attach and exec. Both ways raw bytes; what comes may be framed.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use berth_api::stdcopy::{Decoder, Stream as Channel};
use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

use crate::{
    Client, Error, Result,
    connection::Socket,
    request::{Answer, Call},
};

/// A connection taken over.
#[derive(Debug)]
pub struct Hijacked {
    /// What the container prints.
    pub output: HijackReader,
    /// What the container reads.
    pub input: HijackWriter,
}

/// What the container prints.
#[derive(Debug)]
pub struct HijackReader {
    socket: ReadHalf<Socket>,
    ahead: Bytes,
    buffer: BytesMut,
    decoder: Option<Decoder>,
    exit_code: Option<i32>,
}

/// What the container reads; shutting it down tells the end of the input.
#[derive(Debug)]
pub struct HijackWriter {
    socket: WriteHalf<Socket>,
}

impl Client {
    /// Sends a request that takes the connection over. `tty` tells that the output is not framed.
    pub(crate) async fn hijack(&self, call: Call, tty: bool) -> Result<Hijacked> {
        let call = call.header("connection", "Upgrade").header("upgrade", "tcp");
        let answer = self.send(call).await?;
        let status = answer.response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("status {status} instead of 101");
            return Err(Error::Protocol { operation: answer.operation, reason });
        }
        take_over(answer, tty).await
    }
}

pub(crate) async fn take_over(answer: Answer, tty: bool) -> Result<Hijacked> {
    let Answer { operation, response, .. } = answer;
    // Since API 1.42 the daemon says itself whether the output is framed.
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let framed = kind == Some("application/vnd.docker.multiplexed-stream") || !tty;
    let upgraded = match hyper::upgrade::on(response).await {
        Ok(upgraded) => upgraded,
        Err(source) => return Err(Error::Transport { operation, source }),
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<Socket>>() else {
        return Err(Error::Protocol { operation, reason: "the connection is of another kind".to_owned() });
    };
    let (read, write) = tokio::io::split(parts.io.into_inner());
    Ok(Hijacked {
        output: HijackReader {
            socket: read,
            ahead: parts.read_buf,
            buffer: BytesMut::with_capacity(32 << 10),
            decoder: framed.then(Decoder::new),
            exit_code: None,
        },
        input: HijackWriter { socket: write },
    })
}

impl HijackReader {
    /// The next piece with its channel (a terminal has but stdout); `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Io`] if the connection breaks or the frames are none.
    pub async fn next_output(&mut self) -> Result<Option<(Channel, Bytes)>> {
        loop {
            if let Some(decoder) = &mut self.decoder
                && let Some((channel, bytes)) = decoder.next_frame().map_err(io::Error::other)?
            {
                if channel == Channel::Exit {
                    self.exit_code = bytes.try_into().ok().map(i32::from_be_bytes);
                    return Ok(None);
                }
                return Ok(Some((channel, bytes.into())));
            }
            let bytes = self.read().await?;
            match &mut self.decoder {
                _ if bytes.is_empty() => return Ok(None),
                Some(decoder) => decoder.push(&bytes),
                None => return Ok(Some((Channel::Stdout, bytes))),
            }
        }
    }

    /// The exit code, if it came behind the output: [`Client::exec_run`].
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        self.buffer.reserve(16 << 10);
        match self.socket.read_buf(&mut self.buffer).await {
            Ok(_) => Ok(self.buffer.split().freeze()),
            // A daemon that ends abruptly ends the stream all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Bytes::new()),
            Err(error) => Err(error),
        }
    }
}

impl AsyncWrite for HijackWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
