//! Commands at moments of a container's life.

use berth_client::api::exec::{ExecConfig, ExecStartRequest};

use super::Engine;
use crate::{
    Result,
    error::{Context, Error},
    logs::Lines,
    model::{Hook, Service},
};

impl Engine {
    /// Runs a hook in a container, to its end.
    pub(crate) async fn run_hook(
        &self,
        name: &str,
        container: &str,
        source: &str,
        service: Option<&Service>,
        hook: &Hook,
    ) -> Result<()> {
        if self.dry {
            let words = hook.command.0.clone().unwrap_or_default().0.join(" ");
            self.done(&format!("Container {source}"), &format!("Would run {words}"));
            return Ok(());
        }
        let during = || format!("running a hook of service {name}");
        let tty = service.is_some_and(|service| service.tty);
        let environment = hook.environment.iter().map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        });
        let config = ExecConfig {
            user: hook.user.clone(),
            privileged: hook.privileged,
            tty,
            attach_stdout: true,
            attach_stderr: true,
            env: Some(environment.collect()),
            working_dir: hook.working_dir.clone(),
            cmd: Some(hook.command.0.clone().unwrap_or_default().0),
            ..ExecConfig::default()
        };
        let id = self.client.exec_create(container, &config).await.during(during)?;
        let start = ExecStartRequest { detach: false, tty, console_size: None };
        let mut streams = self.client.exec_start(&id, &start).await.during(during)?;
        let mut lines = Lines::default();
        let tell = |line: &str| {
            if let Some(listener) = &self.listener {
                listener.line(&format!("{source} ->"), line);
            }
        };
        while let Some((_, bytes)) = streams.output.next_output().await.during(during)? {
            lines.push(&bytes, tell);
        }
        lines.end(tell);
        match self.client.exec_inspect(&id).await.during(during)?.exit_code {
            None | Some(0) => Ok(()),
            Some(code) => Err(Error::Hook { service: name.to_owned(), code }),
        }
    }
}
