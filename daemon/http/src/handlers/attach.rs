//! Attach: the client's socket goes to the shim.
//!
//! The head is written here, by hand: docker answers an attach by `101 UPGRADED` to who asks for an upgrade, by a
//! bare `200` to who does not, and reports failures in plain text on the connection it has already taken.

use std::{fs::File, io::Write as _, os::fd::OwnedFd};

use berth_api::{ApiVersion, options::Attach, stdcopy};
use http::StatusCode;

use crate::{
    body,
    context::Context,
    error::{ApiError, ApiResult},
    handlers::Reply,
    takeover::Taken,
};

pub(super) const RAW: &str = "application/vnd.docker.raw-stream";
pub(super) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// How the output is called. It is framed whenever there is no terminal; since 1.42 the name says so, too.
pub(super) fn content_type(version: ApiVersion, tty: bool) -> &'static str {
    if !tty && version.at_least(42) { MULTIPLEXED } else { RAW }
}

/// The head of a connection taken over, with these further lines.
pub(super) fn head(version: ApiVersion, tty: bool, upgrade: bool, further: &str) -> String {
    if upgrade {
        let kind = content_type(version, tty);
        format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{further}\r\n"
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n{further}\r\n")
    }
}

pub(super) async fn attach(mut context: Context) -> ApiResult<Reply> {
    // A body would be no input: docker never passes it on.
    body::drain(context.take_body()).await?;
    let query = &context.query;
    let keys = query.get("detachKeys");
    let options = Attach {
        detach_keys: (!keys.is_empty()).then(|| keys.to_owned()),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let prepared = context.engine().prepare_attach(context.name(), options).await.map_err(ApiError::from);
    let mut taken = context.take_over.clone().take().await.map_err(client_gone)?;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            refuse(&mut taken, &error).await;
            return Ok(Reply::TakenOver);
        }
    };
    let tty = prepared.tty();
    let upgrade = context.headers.contains_key("upgrade");
    let greeting = head(context.version, tty, upgrade, "");
    let (socket, ahead) = taken.into_parts().map_err(client_gone)?;
    let errors = socket.try_clone().map_err(client_gone)?;
    if let Err(error) = prepared.attach(socket, greeting.into_bytes(), ahead.to_vec()).await {
        report(errors, tty, &error.to_string());
    }
    Ok(Reply::TakenOver)
}

/// Docker's plain text refusal on a connection already taken.
async fn refuse(taken: &mut Taken, error: &ApiError) {
    let status = error.status();
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let text = format!("HTTP/1.1 {code} {reason}\r\nContent-Type: {RAW}\r\n\r\n{}\r\n", error.message());
    if let Err(error) = taken.write(text.as_bytes()).await {
        tracing::debug!(%error, "telling a client why it cannot attach");
    }
}

/// Tells a failure on the stream itself, as part of stdout.
pub(super) fn report(socket: OwnedFd, tty: bool, message: &str) {
    let text = format!("{message}\r\n");
    let mut bytes = Vec::new();
    if tty {
        bytes.extend_from_slice(text.as_bytes());
    } else {
        stdcopy::encode(stdcopy::Stream::Stdout, text.as_bytes(), &mut bytes);
    }
    if let Err(error) = File::from(socket).write_all(&bytes) {
        tracing::debug!(%error, "telling a client of a failure");
    }
}

pub(super) fn client_gone(error: std::io::Error) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("hijacking the connection: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_dockers_to_the_byte() {
        let v = |minor| ApiVersion::new(1, minor);
        assert_eq!(
            head(v(50), false, true, ""),
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        assert_eq!(content_type(v(41), false), RAW);
        assert_eq!(content_type(v(50), true), RAW);
        assert_eq!(
            head(v(50), false, false, ""),
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
        );
    }
}
