//! The operations that the engine asks for.

use std::os::fd::OwnedFd;

use berth_cgroup::OomWatch;
use berth_shim_protocol::{
    Answer, Attach, Create, Event, Failure, FailureKind, MAX_FDS, Op, Reply, StdinMode, WindowSize,
};
use jiff::Timestamp;
use nix::{errno::Errno, libc::SIGKILL, sys::epoll::EpollFlags};

use crate::{
    container::Container,
    exec::Exec,
    log::Log,
    machine::{self, Change},
    poll::{Token, Watched},
    shim::Shim,
    stdio::Console,
};

type Outcome = Result<Answer, Failure>;

impl Shim {
    /// Do what is asked, and reply. Events that it causes go before the reply, so that an engine which has the
    /// reply has them too; but the end of a container that could not be started goes behind.
    pub(crate) fn answer(&mut self, control: u32, seq: u64, op: Op, fds: Vec<OwnedFd>) {
        let op_starts = op == Op::Start;
        let admitted = machine::admit(self.phase(), &op);
        let starts = op_starts && admitted.is_ok();
        let result = admitted.and_then(|()| self.perform(op, fds));
        let failure = result.as_ref().err().filter(|_| starts).cloned();
        self.reply(control, &Reply { seq, result });
        if let Some(failure) = failure {
            self.start_failed(&failure);
        }
    }

    fn perform(&mut self, op: Op, fds: Vec<OwnedFd>) -> Outcome {
        let (expected, given) = (expected_fds(&op), fds.len());
        if !expected.contains(&given) {
            let message = format!("the operation takes {expected:?} descriptors, not {given}");
            return Err(Failure::new(FailureKind::Invalid, message));
        }
        if let Op::Create(create) = op {
            return self.create(&create, fds);
        }
        let fd = fds.into_iter().next();
        match op {
            // Served above.
            Op::Create(_) => done(),
            Op::Start => self.start(),
            Op::Attach(attach) => self.attach(&attach, fd),
            Op::Release { session } => self.release(session),
            Op::Exec(exec) => {
                let (exec_id, pid) = Exec::start(self, *exec, fd)?;
                self.announce(Event::ExecStarted { exec_id, pid });
                Ok(Answer::Exec { pid })
            }
            Op::ResizeInit(size) => resized(self.hub.resize(size)),
            Op::ResizeExec { exec_id, size } => self.resize_exec(&exec_id, size),
            Op::Kill { signal, all } => self.kill(signal, all),
            Op::KillExec { exec_id, signal } => {
                self.exec(&exec_id)?.kill(signal).map_err(|errno| killing(signal, errno))?;
                done()
            }
            Op::Pause => {
                self.container()?.pause()?;
                self.change(Change::Paused);
                self.announce(Event::Paused);
                done()
            }
            Op::Resume => {
                self.container()?.resume()?;
                self.change(Change::Resumed);
                self.announce(Event::Resumed);
                done()
            }
            Op::Update(resources) => {
                self.container()?.update(&resources)?;
                done()
            }
            Op::Stats => Ok(Answer::Stats(Box::new(self.container()?.stats()?))),
            Op::Pids => Ok(Answer::Pids(self.container()?.pids()?)),
            Op::State => Ok(Answer::State(self.state())),
            Op::ReopenLog => {
                let failed = |error| format!("cannot reopen the log: {error}");
                self.hub.reopen_log().map_err(|e| Failure::new(FailureKind::System, failed(e)))?;
                done()
            }
            Op::CloseStdin => {
                self.hub.close_stdin();
                done()
            }
            Op::Shutdown => {
                self.shut_down();
                done()
            }
        }
    }

    pub(crate) fn container(&self) -> Result<&Container, Failure> {
        self.container
            .as_ref()
            .ok_or_else(|| Failure::new(FailureKind::NotRunning, "container is not running"))
    }

    pub(crate) fn container_mut(&mut self) -> Result<&mut Container, Failure> {
        self.container
            .as_mut()
            .ok_or_else(|| Failure::new(FailureKind::NotRunning, "container is not running"))
    }

    fn create(&mut self, create: &Create, fds: Vec<OwnedFd>) -> Outcome {
        let log = Log::open(&create.log).map_err(|error| {
            let path = create.log.file.as_ref().map(|file| file.path.display().to_string());
            let path = path.unwrap_or_default();
            Failure::new(FailureKind::System, format!("cannot open the log {path}: {error}"))
        })?;
        let (container, console) = Container::create(create, fds, &self.dir)?;
        let pid = container.pid();
        let oom = container.oom_watch();
        self.container = Some(container);
        self.change(Change::Created);
        if let Err(failure) = self.join(create, console, oom, log) {
            self.shut_down();
            return Err(failure);
        }
        Ok(Answer::Created { pid })
    }

    /// Take over the streams and notifications of a new container.
    fn join(
        &mut self,
        create: &Create,
        console: Console,
        oom: Option<OomWatch>,
        log: Option<Log>,
    ) -> Result<(), Failure> {
        self.hub.set_log(log);
        if create.stdin == StdinMode::OpenOnce {
            self.hub.close_stdin_with_client();
        }
        self.hub
            .connect(console, create.stdin != StdinMode::Closed)
            .map_err(system("joining its streams"))?;
        if let Some(size) = create.console_size {
            self.hub.resize(size).map_err(system("setting its terminal's size"))?;
        }
        let Some(watch) = oom else { return Ok(()) };
        let mut watch = Watched::new(&self.poller, Token::Oom, watch);
        watch
            .want(Some(EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI))
            .map_err(system("watching its memory"))?;
        self.oom = Some(watch);
        Ok(())
    }

    fn start(&mut self) -> Outcome {
        let container = self.container.as_mut().expect("the phase Created has a container");
        container.start()?;
        let (pid, at) = (container.pid(), Timestamp::now());
        self.started_at = Some(at);
        self.change(Change::Started);
        self.announce(Event::Started { pid, at });
        Ok(Answer::Started { pid, at })
    }

    fn attach(&mut self, attach: &Attach, fd: Option<OwnedFd>) -> Outcome {
        let fd = fd.expect("the number of descriptors was checked");
        let (session, log_position) = self.hub.attach(attach, fd).map_err(system("taking the stream"))?;
        Ok(Answer::Attached { session, log_position })
    }

    fn release(&mut self, session: u32) -> Outcome {
        if self.hub.release(session) {
            return done();
        }
        Err(Failure::new(FailureKind::NoSuchSession, "no such attach session"))
    }

    fn resize_exec(&mut self, exec_id: &str, size: WindowSize) -> Outcome {
        resized(self.exec(exec_id)?.hub.resize(size))
    }

    /// A process that runs; found by its name.
    fn exec(&self, exec_id: &str) -> Result<&Exec, Failure> {
        let running = |exec: &&Exec| exec.id == exec_id && exec.is_running();
        let missing = || Failure::new(FailureKind::NoSuchExec, format!("exec {exec_id} is not running"));
        self.execs.values().find(running).ok_or_else(missing)
    }

    fn kill(&mut self, signal: i32, all: bool) -> Outcome {
        let paused = self.phase() == berth_shim_protocol::Phase::Paused;
        let container = self.container()?;
        if all {
            container.kill_all(signal)?;
        } else {
            container.kill(signal).map_err(|errno| killing(signal, errno))?;
        }
        // A frozen process dies only when it is thawed (on cgroup v1).
        if paused && signal == SIGKILL {
            container.resume()?;
            self.change(Change::Resumed);
            self.announce(Event::Resumed);
        }
        done()
    }
}

/// How many descriptors come with an operation.
fn expected_fds(op: &Op) -> std::ops::RangeInclusive<usize> {
    match op {
        Op::Create(_) => 0..=MAX_FDS,
        Op::Attach(_) => 1..=1,
        Op::Exec(exec) if exec.attach.is_some() => 1..=1,
        _ => 0..=0,
    }
}

fn done() -> Outcome {
    Ok(Answer::Done)
}

fn resized(result: Result<bool, Errno>) -> Outcome {
    match result {
        Ok(true) => done(),
        Ok(false) => Err(Failure::new(FailureKind::NoTerminal, "the process has no terminal to resize")),
        Err(errno) => Err(system("setting the terminal's size")(errno)),
    }
}

fn killing(signal: i32, errno: Errno) -> Failure {
    match errno {
        Errno::ESRCH => Failure::new(FailureKind::NotRunning, "container is not running"),
        Errno::EINVAL => Failure::new(FailureKind::Invalid, format!("invalid signal: {signal}")),
        errno => Failure::new(FailureKind::System, format!("sending signal {signal}: {errno}")),
    }
}

pub(crate) fn system(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::new(FailureKind::System, format!("{what}: {errno}"))
}
