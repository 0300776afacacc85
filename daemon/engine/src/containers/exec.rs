//! Execs: further processes in a container. They are remembered until their container ends, so that a client can
//! ask how one ended.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_api::exec::{ExecConfig, ExecInspect, ExecProcessConfig};
use berth_runtime_client::Shim;
use berth_runtime_client::protocol::{self, ExecRecord, FailureKind, Framing, WindowSize};
use berth_spec::oci;
use tokio::sync::watch;

use super::Container;
use super::attach::{detach_keys, head_is_read_soon, head_was_read, write_all};
use super::exec_keep::Kept;
use super::machine::Phase;
use super::start::bare;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};
use crate::ids;
use crate::spec::user::Accounts;
use crate::spec::{self, env};

/// Docker's words before the runtime's.
const EXEC_FAILED: &str = "OCI runtime exec failed: exec failed: unable to start container process";
/// The code of an exec of which nothing is known: its container ended with it.
const UNKNOWN_CODE: i32 = 137;
/// So many execs of one container are remembered after their end.
const REMEMBERED: usize = 256;

/// How long an event may take from the shim to the exec's state.
const EVENT_PATIENCE: Duration = Duration::from_secs(1);

/// Who runs an exec and reads its output.
#[derive(Debug)]
pub struct ExecClient {
    /// Its connection.
    pub stream: OwnedFd,
    /// What is written there first, also before an error is returned.
    pub greeting: Vec<u8>,
    /// What it has sent already: the beginning of the input.
    pub ahead: Vec<u8>,
    /// How it reads.
    pub reads: ExecReader,
}

/// How a client reads an exec's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecReader {
    /// As it is: there is a terminal.
    Raw,
    /// In frames.
    Framed,
    /// In frames, the last of which tells the exit code. Such a client reads with care: it does not lose what comes with the
    /// greeting.
    ToTheExitCode,
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    id: String,
    container: String,
    config: ExecConfig,
    keys: Vec<u8>,
    /// It is a health check: nobody will ask for it.
    check: bool,
    state: Mutex<State>,
    /// Its exit code, once it has one.
    code: watch::Sender<Option<i32>>,
}

#[derive(Debug, Default, Clone)]
struct State {
    begun: bool,
    running: bool,
    pid: i32,
    exit_code: Option<i32>,
    /// When it ended; of one that ended before the daemon began, nobody knows.
    ended: Option<Instant>,
}

impl Exec {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn is_check(&self) -> bool {
        self.check
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// What is written down of it.
    pub(super) fn kept(&self) -> Kept {
        Kept { config: self.config.clone() }
    }

    /// As it was written down; `pid` if it runs, `exit_code` if it has ended.
    pub(super) fn restore(
        id: String,
        container: &str,
        kept: Kept,
        keys: Vec<u8>,
        pid: Option<i32>,
        exit_code: Option<i32>,
    ) -> Self {
        let state = State {
            begun: pid.is_some() || exit_code.is_some(),
            running: pid.is_some(),
            pid: pid.unwrap_or(0),
            exit_code,
            ended: None,
        };
        Self {
            id,
            container: container.to_owned(),
            code: watch::Sender::new(exit_code),
            config: kept.config,
            keys,
            check: false,
            state: Mutex::new(state),
        }
    }

    /// Notes its end.
    fn end(&self, code: i32) {
        let mut state = self.state();
        state.running = false;
        state.exit_code.get_or_insert(code);
        state.ended.get_or_insert_with(Instant::now);
        drop(state);
        self.code.send_replace(Some(code));
    }

    /// Its exit code, as soon as it has one.
    pub(crate) async fn ended(&self) -> i32 {
        let mut code = self.code.subscribe();
        let known = code.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        known.unwrap_or(UNKNOWN_CODE)
    }

    fn command(&self) -> String {
        self.config.cmd.as_deref().unwrap_or_default().join(" ")
    }
}

impl Engine {
    fn find_exec(&self, id: &str) -> Result<Arc<Exec>> {
        let execs = self.execs();
        let found = execs.get(id).cloned().or_else(|| {
            let mut matching = execs.iter().filter(|(known, _)| !id.is_empty() && known.starts_with(id));
            matching.next().filter(|_| matching.next().is_none()).map(|(_, exec)| Arc::clone(exec))
        });
        found.ok_or_else(|| EngineError::not_found(format!("No such exec instance: {id}")))
    }

    fn exec_event(&self, container: &Container, action: &str, exec: &Exec, special: &[(&str, String)]) {
        let mut attributes = container.attributes(special);
        attributes.insert("execID".to_owned(), exec.id.clone());
        self.events.publish("container", action, &container.id, attributes);
    }

    /// Writes down what is to run; nothing runs yet. Returns the exec's id.
    ///
    /// # Errors
    /// When the container does not run or is paused, or nothing is to be run.
    pub async fn create_exec(self: &Arc<Self>, container: &str, config: ExecConfig) -> Result<String> {
        let found = self.containers.find(container)?;
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::invalid("No exec command specified"));
        }
        match found.phase() {
            Phase::Running => {}
            Phase::Paused => {
                return Err(EngineError::conflict(format!(
                    "Container {container} is paused, unpause the container before exec"
                )));
            }
            Phase::Restarting => {
                return Err(EngineError::conflict(format!(
                    "Container {container} is restarting, wait until the container is running"
                )));
            }
            _ => return Err(found.not_running()),
        }
        let keys = detach_keys(Some(&config.detach_keys))?;
        let exec = self.register_exec(&found, config, keys, false);
        self.keep_exec(&exec);
        self.exec_event(&found, &format!("exec_create: {}", exec.command()), &exec, &[]);
        Ok(exec.id.clone())
    }

    /// Remembers what is to run.
    pub(crate) fn register_exec(
        &self,
        container: &Container,
        config: ExecConfig,
        keys: Vec<u8>,
        check: bool,
    ) -> Arc<Exec> {
        let (id, container) = (ids::random(), container.id.clone());
        let (state, code) = (Mutex::default(), watch::Sender::new(None));
        let exec = Exec { id, container, config, keys, check, state, code };
        let exec = Arc::new(exec);
        self.execs().insert(exec.id.clone(), Arc::clone(&exec));
        exec
    }

    /// Runs an exec on a client's stream.
    ///
    /// # Errors
    /// When it was run before, or its program cannot be run; the stream is for the caller to tell.
    pub async fn start_exec(
        self: &Arc<Self>,
        id: &str,
        console_size: Option<[u16; 2]>,
        client: ExecClient,
    ) -> Result<()> {
        let ExecClient { stream, greeting, ahead, reads } = client;
        write_all(&stream, &greeting)
            .map_err(|error| EngineError::internal(format!("writing to the client: {error}")))?;
        let exec = self.find_exec(id)?;
        let config = &exec.config;
        let attach = protocol::Attach {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
            framing: if reads == ExecReader::Raw { Framing::Raw } else { Framing::Stdcopy },
            detach_keys: if config.tty { exec.keys.clone() } else { Vec::new() },
            initial_stdin: ahead,
            hold: false,
            exit_code: reads == ExecReader::ToTheExitCode,
        };
        let engine = Arc::clone(self);
        self.detached(async move { engine.run_exec(&exec, console_size, Some((attach, stream))).await }).await
    }

    /// Runs an exec without a stream; returns when it runs.
    ///
    /// # Errors
    /// See [`Self::start_exec`].
    pub async fn start_exec_detached(
        self: &Arc<Self>,
        id: &str,
        console_size: Option<[u16; 2]>,
    ) -> Result<()> {
        let exec = self.find_exec(id)?;
        let engine = Arc::clone(self);
        self.detached(async move { engine.run_exec(&exec, console_size, None).await }).await
    }

    pub(crate) async fn run_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        console_size: Option<[u16; 2]>,
        client: Option<(protocol::Attach, OwnedFd)>,
    ) -> Result<()> {
        let container = self.containers.find(&exec.container)?;
        if container.phase() == Phase::Paused {
            return Err(EngineError::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.id
            )));
        }
        let shim = container.shim()?;
        if std::mem::replace(&mut exec.state().begun, true) {
            return Err(EngineError::conflict(format!("exec command {} has already run", exec.id)));
        }
        let started = self.spawn_exec(exec, &container, &shim, console_size, client).await;
        if let Err((error, code)) = started {
            exec.end(code);
            return Err(error);
        }
        Ok(())
    }

    async fn spawn_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        container: &Arc<Container>,
        shim: &Shim,
        console_size: Option<[u16; 2]>,
        client: Option<(protocol::Attach, OwnedFd)>,
    ) -> Result<(), (EngineError, i32)> {
        let (attach, stream) = client.unzip();
        let careful = attach.as_ref().is_some_and(|attach| attach.exit_code);
        let prepared = {
            let (exec, container) = (Arc::clone(exec), Arc::clone(container));
            let prepare = move |engine: &Arc<Self>| {
                let process = engine.exec_process(&exec.config, &container)?;
                stream.iter().filter(|_| !careful).for_each(head_is_read_soon);
                Ok((process, stream))
            };
            self.blocking(prepare).await
        };
        let (process, stream) = prepared.map_err(|error| (error, 126))?;
        if let Some(stream) = stream.as_ref().filter(|_| !careful) {
            head_was_read(stream).await;
        }
        self.exec_event(container, &format!("exec_start: {}", exec.command()), exec, &[]);
        let request = protocol::Exec {
            exec_id: exec.id.clone(),
            process,
            console_size: console_size
                .or(exec.config.console_size)
                .filter(|size| *size != [0, 0])
                .map(|[rows, cols]| WindowSize { rows, cols }),
            attach,
        };
        // Before the request: its end may be told before the answer is here.
        exec.state().running = true;
        match shim.exec(request, stream.as_ref().map(OwnedFd::as_fd)).await {
            Ok(pid) => {
                exec.state().pid = pid;
                Ok(())
            }
            Err(error) => {
                let code = error.kind().map_or(126, FailureKind::exit_code);
                let message = format!("{EXEC_FAILED}: {}", bare(&error.to_string()));
                Err((EngineError::new(EngineError::from(error).kind(), message), code))
            }
        }
    }

    /// The process of an exec: the container's, with what the exec says otherwise. Blocking.
    fn exec_process(&self, config: &ExecConfig, container: &Container) -> Result<oci::Process> {
        let definition = container.definition();
        let (own, host) = (&definition.config, &definition.host);
        let user = if config.user.is_empty() { &own.user } else { &config.user };
        let root = format!("/proc/{}/root", container.status().pid);
        let root = crate::fsutil::open_host_dir(root.as_ref()).during("open", &root)?;
        let user =
            Accounts::read(root.as_fd()).resolve(user, host.group_add.as_deref().unwrap_or_default())?;
        let environment =
            env::container(definition.hostname(), own.tty, own.env.as_deref().unwrap_or_default());
        let environment = env::exec(environment, config.tty, config.env.as_deref().unwrap_or_default());
        let cwd = match (config.working_dir.as_str(), own.working_dir.as_str()) {
            ("", "") => "/",
            ("", own) => own,
            (given, _) if given.starts_with('/') => given,
            (given, _) => {
                return Err(EngineError::invalid(format!(
                    "OCI runtime exec failed: exec failed: Cwd must be an absolute path: {given}"
                )));
            }
        };
        let capabilities = if config.privileged {
            berth_spec::defaults::all_capabilities(self.host.bounding)
        } else {
            spec::capabilities(host, self.host.bounding)?
        };
        let security = spec::security::parse(host.security_opt.as_deref().unwrap_or_default())?;
        // The same builder as the container's, so that both mean the same by the same words.
        Ok(berth_spec::defaults::docker_spec()
            .args(config.cmd.iter().flatten())
            .env(env::with_home(environment, &user.home))
            .cwd(cwd)
            .user(user.uid, user.gid, user.groups)
            .terminal(config.tty, None)
            .ulimits(spec::resources::ulimits(host.resources.ulimits.as_ref())?)
            .oom_score_adj(i32::try_from(host.oom_score_adj).unwrap_or(0))
            .no_new_privileges(security.no_new_privileges)
            .apparmor_profile(security.apparmor)
            .capabilities(capabilities)
            .process())
    }

    /// A client has left an exec by its keys.
    pub(crate) fn exec_detached(&self, container: &Container, id: &str) {
        let exec = self.execs().get(id).cloned();
        if let Some(exec) = exec {
            self.exec_event(container, "exec_detach", &exec, &[]);
        }
    }

    /// Notes how an exec ended.
    pub(crate) fn exec_ended(&self, container: &Container, shim: &Shim, record: ExecRecord) {
        let exec = self.execs().get(&record.exec_id).cloned();
        // Who runs a check has waited for it; and of one that was never written down nobody will ask.
        if exec.as_ref().is_none_or(|exec| exec.is_check()) {
            self.execs().remove(&record.exec_id);
            forget_record(shim, &record.exec_id);
        }
        if let Some(exec) = exec {
            exec.end(record.code);
            self.exec_event(container, "exec_die", &exec, &[("exitCode", record.code.to_string())]);
        }
        self.forget_old_execs(&container.id, shim);
    }

    fn forget_old_execs(&self, container: &str, shim: &Shim) {
        let mut execs = self.execs();
        let mut ended: Vec<(Option<Instant>, String)> = execs
            .values()
            .filter(|exec| exec.container == container && exec.state().exit_code.is_some())
            .map(|exec| (exec.state().ended, exec.id.clone()))
            .collect();
        // The oldest first: who has just started one asks how it ended.
        ended.sort_unstable();
        for (_, id) in ended.iter().take(ended.len().saturating_sub(REMEMBERED)) {
            execs.remove(id);
            self.drop_kept_exec(container, id);
            forget_record(shim, id);
        }
    }

    /// Of a container that has ended: no exec of it runs any more. With `all`, it is gone, and its execs with it.
    pub(crate) fn forget_execs(&self, container: &str, all: bool) {
        self.drop_kept_execs(container);
        self.execs().retain(|_, exec| {
            if exec.container != container {
                return true;
            }
            if exec.state().running {
                exec.end(UNKNOWN_CODE);
            }
            // Who started it may still ask how it ended.
            exec.state().begun && !all
        });
    }

    /// Ids of the execs that run in a container; `None` if there are none.
    pub(crate) fn running_execs(&self, container: &str) -> Option<Vec<String>> {
        let execs = self.execs();
        let running = execs.values().filter(|exec| exec.container == container && exec.state().running);
        let ids: Vec<String> = running.map(|exec| exec.id.clone()).collect();
        (!ids.is_empty()).then_some(ids)
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// When there is no such exec, or it does not run.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.find_exec(id)?;
        let container = self.containers.find(&exec.container)?;
        let resized = container.shim()?.resize_exec(&exec.id, WindowSize { rows, cols: columns }).await;
        match resized {
            Err(error) if error.kind() == Some(FailureKind::NoTerminal) => Ok(()),
            Err(error) if error.kind() == Some(FailureKind::NoSuchExec) => {
                Err(EngineError::conflict(format!("exec {} is not running", exec.id)))
            }
            other => Ok(other?),
        }
    }

    /// How an exec stands.
    ///
    /// # Errors
    /// When there is no such exec.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        let exec = self.find_exec(id)?;
        if exec.state().running
            && let Ok(container) = self.containers.find(&exec.container)
            && let Ok(shim) = container.shim()
        {
            // The client has seen the end of the stream and asks for the code at once, while the event is under way.
            let ended = |state: &berth_runtime_client::protocol::State| {
                !state.execs.iter().any(|running| running.exec_id == exec.id)
            };
            if shim.state().await.is_ok_and(|state| ended(&state)) {
                // Longer than that nothing is under way any more; the state is told as it is.
                tokio::time::timeout(EVENT_PATIENCE, exec.ended()).await.ok();
            }
        }
        let state = exec.state().clone();
        let config = &exec.config;
        let mut words = config.cmd.iter().flatten().cloned();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: state.running,
            exit_code: state.exit_code.map(i64::from),
            process_config: ExecProcessConfig {
                tty: config.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: config.privileged,
                user: config.user.clone(),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: false,
            container_id: exec.container.clone(),
            detach_keys: String::from_utf8_lossy(if config.detach_keys.is_empty() {
                b""
            } else {
                &exec.keys
            })
            .into_owned(),
            pid: i64::from(state.pid),
        })
    }
}

/// The shim's record of an exec has told for the last time how that ended.
pub(super) fn forget_record(shim: &Shim, id: &str) {
    if let Err(error) = shim.forget_exec(id) {
        tracing::debug!(exec = id, %error, "removing the record of an exec");
    }
}
