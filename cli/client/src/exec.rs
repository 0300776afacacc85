//! Execs.

use berth_api::{
    IdResponse,
    exec::{ExecConfig, ExecInspect, ExecStartRequest, RUN, RUN_ID},
};
use http::StatusCode;

use crate::{
    Client, Error, Hijacked, Result, hijack,
    query::{Query, segment},
    request::Call,
};

/// Execs. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Prepares a process in a running container; answers its id.
    pub async fn exec_create(&self, container: &str, config: &ExecConfig) -> Result<String> {
        let path = format!("/containers/{}/exec", segment(container));
        let created: IdResponse = self.fetch(Call::post(path, &Query::new()).json(config)).await?;
        Ok(created.id)
    }

    /// Prepares and starts it with its streams attached; its id and the streams. An engine that knows how does that in one
    /// exchange, and tells the exit code as well ([`crate::HijackReader::exit_code`]); others are asked one after the other.
    pub async fn exec_run(&self, container: &str, config: &ExecConfig) -> Result<(String, Hijacked)> {
        let path = format!("/containers/{}/exec", segment(container));
        let call = Call::post(path, &Query::new()).json(config).header("connection", "Upgrade");
        let answer = self.send(call.header("upgrade", RUN)).await?;
        if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let IdResponse { id, .. } = self.json(answer).await?.read()?;
            let start =
                ExecStartRequest { detach: false, tty: config.tty, console_size: config.console_size };
            let streams = self.exec_start(&id, &start).await?;
            return Ok((id, streams));
        }
        let id = answer.response.headers().get(RUN_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let id = id.ok_or_else(|| Error::Protocol {
            operation: answer.operation.clone(),
            reason: "the exec has no name".to_owned(),
        })?;
        Ok((id, hijack::take_over(answer, config.tty).await?))
    }

    /// Starts it with its streams attached; `request.tty` must be what create said.
    pub async fn exec_start(&self, exec: &str, request: &ExecStartRequest) -> Result<Hijacked> {
        let request = ExecStartRequest { detach: false, ..request.clone() };
        let path = format!("/exec/{}/start", segment(exec));
        self.hijack(Call::post(path, &Query::new()).json(&request), request.tty).await
    }

    /// Starts it and lets it run.
    pub async fn exec_start_detached(&self, exec: &str, request: &ExecStartRequest) -> Result<()> {
        let request = ExecStartRequest { detach: true, ..request.clone() };
        let path = format!("/exec/{}/start", segment(exec));
        self.run(Call::post(path, &Query::new()).json(&request)).await.map(drop)
    }

    /// Sets its terminal's size.
    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let path = format!("/exec/{}/resize", segment(exec));
        let query = Query::new().number("h", rows).number("w", columns);
        self.run(Call::post(path, &query)).await.map(drop)
    }

    /// Shows it; the exit code is there once it has ended.
    pub async fn exec_inspect(&self, exec: &str) -> Result<ExecInspect> {
        self.fetch(Call::get(format!("/exec/{}/json", segment(exec)), &Query::new())).await
    }
}
