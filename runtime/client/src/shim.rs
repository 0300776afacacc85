//! The handle to one shim, and so to one container.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use berth_shim_protocol::{
    Answer, Attach, Create, Event, Exec, ExecRecord, ExitRecord, Failure, Message, Op, Reply, Request, State,
    Stats, WindowSize, decode, encode, oci,
};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    ClientError,
    link::Link,
    records::{read_exit, remove_exec},
};

/// The events of one container, from the subscription on; nothing is dropped. It ends with the shim.
pub type EventStream = mpsc::UnboundedReceiver<Event>;

/// What [`Shim::attach`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// For [`Shim::release`].
    pub session: u32,
    /// How long the current log file was: the stream carries what comes after. None without a log.
    pub log_position: Option<u64>,
}

/// A handle to one shim, and so to one container. Clones share the connection; when the last one is dropped the
/// connection closes, which changes nothing for a container that was created.
#[derive(Clone, Debug)]
pub struct Shim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

type Waiter = oneshot::Sender<Result<Answer, Failure>>;

#[derive(Debug)]
struct Shared {
    link: Link,
    dir: PathBuf,
    next_seq: AtomicU64,
    /// None once the shim has gone: whoever asks then must not wait.
    waiters: Mutex<Option<HashMap<u64, Waiter>>>,
    subscribers: Mutex<Option<Vec<mpsc::UnboundedSender<Event>>>>,
    /// Level-triggered, so that nobody can come too late.
    end: watch::Sender<End>,
    execs: watch::Sender<BTreeMap<String, ExecRecord>>,
}

/// What is known about the container's end.
#[derive(Clone, Debug)]
enum End {
    Unknown,
    Exited(ExitRecord),
    /// The shim has gone without a record.
    Lost,
}

impl Shim {
    pub(crate) fn new(link: Link, dir: PathBuf, execs: BTreeMap<String, ExecRecord>) -> Self {
        let shared = Arc::new(Shared {
            link,
            dir,
            next_seq: AtomicU64::new(1),
            waiters: Mutex::new(Some(HashMap::new())),
            subscribers: Mutex::new(Some(Vec::new())),
            end: watch::Sender::new(End::Unknown),
            execs: watch::Sender::new(execs),
        });
        let reader = tokio::spawn(read(shared.clone()));
        Self { inner: Arc::new(Inner { shared, reader }) }
    }

    /// The container's run directory.
    pub fn dir(&self) -> &Path {
        &self.inner.shared.dir
    }

    /// Prepare the container. `netns` is the network namespace that config.json calls
    /// [`NETNS_PLACEHOLDER`](berth_shim_protocol::NETNS_PLACEHOLDER); the shim keeps it open. Returns init's pid.
    ///
    /// # Errors
    /// When it cannot be created, with runc's message if that is for want of its program. Nothing is left of it
    /// then and there is no exit record; the shim ends when the last handle is dropped, or by `shutdown`.
    pub async fn create(&self, create: Create, netns: Option<BorrowedFd<'_>>) -> Result<i32, ClientError> {
        self.create_with_mounts(create, netns, &[]).await
    }

    /// As [`Shim::create`], with the detached mounts that
    /// [`MOUNT_PLACEHOLDER`](berth_shim_protocol::MOUNT_PLACEHOLDER) numbers in config.json.
    ///
    /// # Errors
    /// As [`Shim::create`].
    pub async fn create_with_mounts(
        &self,
        create: Create,
        netns: Option<BorrowedFd<'_>>,
        mounts: &[BorrowedFd<'_>],
    ) -> Result<i32, ClientError> {
        let fds: Vec<_> = netns.into_iter().chain(mounts.iter().copied()).collect();
        match self.call(Op::Create(Box::new(create)), &fds).await? {
            Answer::Created { pid } => Ok(pid),
            _ => Err(self.unexpected("create")),
        }
    }

    /// Run the container's program. Returns init's pid and when it began.
    ///
    /// # Errors
    /// When the program cannot be run: then the message is runc's (`exec: "x": executable file not found in
    /// $PATH`), the container is gone, [`Shim::wait`] returns a record with the exit code 126, 127 or 128 and the
    /// shim ends.
    pub async fn start(&self) -> Result<(i32, Timestamp), ClientError> {
        match self.call(Op::Start, &[]).await? {
            Answer::Started { pid, at } => Ok((pid, at)),
            _ => Err(self.unexpected("start")),
        }
    }

    /// Join a stream to the container's stdio; before `create` and `start` as well. The shim has its own copy of
    /// the descriptor and shuts the stream down at the end of the output, so that the caller may drop or keep its
    /// own.
    ///
    /// # Errors
    /// When the container has ended, or the descriptor cannot be polled (a regular file).
    pub async fn attach(&self, attach: Attach, stream: impl AsFd) -> Result<Attached, ClientError> {
        match self.call(Op::Attach(attach), &[stream.as_fd()]).await? {
            Answer::Attached { session, log_position } => Ok(Attached { session, log_position }),
            _ => Err(self.unexpected("attach")),
        }
    }

    /// Let a session flow that was attached with `hold`.
    ///
    /// # Errors
    /// When there is no such session (any more).
    pub async fn release(&self, session: u32) -> Result<(), ClientError> {
        self.call_done(Op::Release { session }, "release").await
    }

    /// Run one more process in the container; `stream` exactly when `exec.attach` is given. Returns its pid.
    ///
    /// # Errors
    /// When it cannot be run, in runc's words. The stream is untouched then.
    pub async fn exec(&self, exec: Exec, stream: Option<BorrowedFd<'_>>) -> Result<i32, ClientError> {
        let fds: Vec<_> = stream.into_iter().collect();
        match self.call(Op::Exec(Box::new(exec)), &fds).await? {
            Answer::Exec { pid } => Ok(pid),
            _ => Err(self.unexpected("exec")),
        }
    }

    /// Set the size of the container's terminal.
    ///
    /// # Errors
    /// When it has none, or is not running.
    pub async fn resize(&self, size: WindowSize) -> Result<(), ClientError> {
        self.call_done(Op::ResizeInit(size), "resize").await
    }

    /// Set the size of an exec's terminal.
    ///
    /// # Errors
    /// When it has none, or has ended.
    pub async fn resize_exec(&self, exec_id: &str, size: WindowSize) -> Result<(), ClientError> {
        self.call_done(Op::ResizeExec { exec_id: exec_id.to_owned(), size }, "resize exec").await
    }

    /// Send a signal to the container's init.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&self, signal: i32) -> Result<(), ClientError> {
        self.call_done(Op::Kill { signal, all: false }, "kill").await
    }

    /// Send a signal to every process of the container.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill_all(&self, signal: i32) -> Result<(), ClientError> {
        self.call_done(Op::Kill { signal, all: true }, "kill all").await
    }

    /// Send a signal to an exec's process.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn kill_exec(&self, exec_id: &str, signal: i32) -> Result<(), ClientError> {
        self.call_done(Op::KillExec { exec_id: exec_id.to_owned(), signal }, "kill exec").await
    }

    /// Freeze the container.
    ///
    /// # Errors
    /// When it is not running, or paused already.
    pub async fn pause(&self) -> Result<(), ClientError> {
        self.call_done(Op::Pause, "pause").await
    }

    /// Thaw the container.
    ///
    /// # Errors
    /// When it is not paused.
    pub async fn resume(&self) -> Result<(), ClientError> {
        self.call_done(Op::Resume, "resume").await
    }

    /// Change the container's limits.
    ///
    /// # Errors
    /// When the kernel refuses a value.
    pub async fn update(&self, resources: oci::LinuxResources) -> Result<(), ClientError> {
        self.call_done(Op::Update(Box::new(resources)), "update").await
    }

    /// What the container uses.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        match self.call(Op::Stats, &[]).await? {
            Answer::Stats(stats) => Ok(*stats),
            _ => Err(self.unexpected("stats")),
        }
    }

    /// The host pids of the container's processes.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn pids(&self) -> Result<Vec<i32>, ClientError> {
        match self.call(Op::Pids, &[]).await? {
            Answer::Pids(pids) => Ok(pids),
            _ => Err(self.unexpected("pids")),
        }
    }

    /// Where the container stands. When this returns, every event that came before has been delivered: an
    /// inspect of a running exec that must not miss its exit asks this first.
    ///
    /// # Errors
    /// When the shim has gone.
    pub async fn state(&self) -> Result<State, ClientError> {
        match self.call(Op::State, &[]).await? {
            Answer::State(state) => Ok(state),
            _ => Err(self.unexpected("state")),
        }
    }

    /// Close the container's stdin behind what was written to it.
    ///
    /// # Errors
    /// When the container has ended.
    pub async fn close_stdin(&self) -> Result<(), ClientError> {
        self.call_done(Op::CloseStdin, "close stdin").await
    }

    /// The log's file was moved away: go on in a new one.
    ///
    /// # Errors
    /// When the container is not running, or the new file cannot be made: then the old one is written on.
    pub async fn reopen_log(&self) -> Result<(), ClientError> {
        self.call_done(Op::ReopenLog, "reopen log").await
    }

    /// Remove a container that was never started, and end its shim.
    ///
    /// # Errors
    /// When it was started.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.call_done(Op::Shutdown, "shutdown").await
    }

    /// Every event from now on.
    pub fn events(&self) -> EventStream {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(subscribers) = lock(&self.inner.shared.subscribers).as_mut() {
            subscribers.push(sender);
        }
        receiver
    }

    /// How the container ended, as soon as it has; may be called at any time, any number of times.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the shim went without leaving a record.
    pub async fn wait(&self) -> Result<ExitRecord, ClientError> {
        let mut end = self.inner.shared.end.subscribe();
        let known = end.wait_for(|end| !matches!(end, End::Unknown)).await;
        match known.as_deref() {
            Ok(End::Exited(record)) => Ok(record.clone()),
            _ => Err(self.inner.shared.gone()),
        }
    }

    /// How an exec ended, as soon as it has; may be called at any time until [`Shim::forget_exec`].
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the container ended without the exec's end being known.
    pub async fn wait_exec(&self, exec_id: &str) -> Result<ExecRecord, ClientError> {
        let mut execs = self.inner.shared.execs.subscribe();
        let mut end = self.inner.shared.end.subscribe();
        let find = |execs: &BTreeMap<String, ExecRecord>| execs.get(exec_id).cloned();
        tokio::select! {
            biased;
            known = execs.wait_for(|execs| execs.contains_key(exec_id)) => known.ok().and_then(|known| find(&known)),
            // Execs end before their container does; whatever has no record now will never have one.
            _ = end.wait_for(|end| !matches!(end, End::Unknown)) => find(&self.inner.shared.execs.borrow()),
        }
        .ok_or_else(|| self.inner.shared.gone())
    }

    /// The execs that are known to have ended and were not forgotten.
    pub fn ended_execs(&self) -> Vec<ExecRecord> {
        self.inner.shared.execs.borrow().values().cloned().collect()
    }

    /// Drop an exec's record, here and in the run directory, when it has been noted elsewhere.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget_exec(&self, exec_id: &str) -> Result<(), ClientError> {
        self.inner.shared.execs.send_modify(|execs| {
            execs.remove(exec_id);
        });
        remove_exec(self.dir(), exec_id)
    }

    /// Kill the container, or remove it if it was not started, without waiting for either; for destructors.
    pub(crate) fn abandon(&self) {
        let shared = &self.inner.shared;
        // One of the two is refused, depending on how far the container came. Nobody waits for the answers.
        for op in [Op::Kill { signal: nix::libc::SIGKILL, all: true }, Op::Shutdown] {
            let seq = shared.next_seq.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = shared.link.try_send(&encode(&Request { seq, op })) {
                tracing::warn!(dir = %shared.dir.display(), %error, "cannot tell a shim to end its container");
            }
        }
    }

    async fn call_done(&self, op: Op, operation: &'static str) -> Result<(), ClientError> {
        match self.call(op, &[]).await? {
            Answer::Done => Ok(()),
            _ => Err(self.unexpected(operation)),
        }
    }

    async fn call(&self, op: Op, fds: &[BorrowedFd<'_>]) -> Result<Answer, ClientError> {
        let shared = &self.inner.shared;
        let seq = shared.next_seq.fetch_add(1, Ordering::Relaxed);
        let (waiter, reply) = oneshot::channel();
        lock(&shared.waiters).as_mut().ok_or_else(|| shared.gone())?.insert(seq, waiter);
        if let Err(source) = shared.link.send(&encode(&Request { seq, op }), fds).await {
            if let Some(waiters) = lock(&shared.waiters).as_mut() {
                waiters.remove(&seq);
            }
            return Err(match source.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => shared.gone(),
                _ => ClientError::Send { dir: shared.dir.clone(), source },
            });
        }
        Ok(reply.await.map_err(|_| shared.gone())??)
    }

    fn unexpected(&self, operation: &'static str) -> ClientError {
        ClientError::UnexpectedAnswer { dir: self.inner.shared.dir.clone(), operation }
    }
}

impl Shared {
    fn gone(&self) -> ClientError {
        ClientError::Gone { dir: self.dir.clone() }
    }

    fn receive(&self, message: Message) {
        match message {
            Message::Hello(State { exit: Some(record), .. }) => self.ended(End::Exited(record)),
            Message::Hello(_) => {}
            Message::Reply(reply) => self.reply(reply),
            Message::Event(event) => self.event(event),
        }
    }

    fn reply(&self, reply: Reply) {
        let waiter = lock(&self.waiters).as_mut().and_then(|waiters| waiters.remove(&reply.seq));
        if let Some(waiter) = waiter {
            // Whoever asked may have stopped waiting; the operation was done nonetheless.
            waiter.send(reply.result).ok();
        }
    }

    fn event(&self, event: Event) {
        if let Event::ExecExited(record) = &event {
            self.execs.send_modify(|execs| {
                execs.insert(record.exec_id.clone(), record.clone());
            });
        }
        if let Some(subscribers) = lock(&self.subscribers).as_mut() {
            subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        }
        if let Event::Exited(record) = event {
            self.ended(End::Exited(record));
        }
    }

    fn ended(&self, end: End) {
        self.end.send_if_modified(|known| {
            let first = matches!(known, End::Unknown);
            if first {
                *known = end;
            }
            first
        });
    }

    /// The connection is closed: nobody may go on waiting.
    fn closed(&self) {
        let end = match read_exit(&self.dir) {
            Ok(Some(record)) => End::Exited(record),
            Ok(None) => End::Lost,
            Err(error) => {
                tracing::warn!(%error, "a container's exit record is unreadable");
                End::Lost
            }
        };
        self.ended(end);
        lock(&self.waiters).take();
        lock(&self.subscribers).take();
    }
}

async fn read(shared: Arc<Shared>) {
    loop {
        match shared.link.receive().await {
            Ok(Some(packet)) => match decode(&packet) {
                Ok(message) => shared.receive(message),
                Err(error) => {
                    tracing::warn!(dir = %shared.dir.display(), %error, "ignored a packet of a shim")
                }
            },
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(dir = %shared.dir.display(), %error, "lost the connection to a shim");
                break;
            }
        }
    }
    shared.closed();
}

/// The data behind these locks is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
