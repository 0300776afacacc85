//! Execs.

use berth_api::{
    IdResponse,
    exec::{ExecConfig, ExecInspect, ExecStartRequest},
};

use crate::{
    Client, Hijacked, Result,
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
