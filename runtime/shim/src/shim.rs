//! The shim's state and its loop.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    time::Instant,
};

use anyhow::Context as _;
use berth_cgroup::OomWatch;
use berth_shim_protocol::{Event, ExitRecord, Message, Phase, Reply, Request, RunningExec, State, files};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    sys::{epoll::EpollFlags, signal::Signal, signalfd::SignalFd},
};

use crate::{
    container::Container,
    control::{Control, Incoming},
    ending::{Ended, Ending},
    exec::Exec,
    machine::{self, Change},
    poll::{MAX_HUB, Poller, Token, Watched},
    record,
    stdio::{Hub, HubKind, Scratch, Stream},
};

/// Everything of one container.
pub(crate) struct Shim {
    pub(crate) dir: PathBuf,
    pub(crate) poller: Poller,
    signals: Watched<SignalFd>,
    /// The standard library has no listener for `SOCK_SEQPACKET`, but this one accepts whatever it is made of.
    listener: Option<Watched<UnixListener>>,
    controls: BTreeMap<u32, Control>,
    next_control: u32,
    phase: Phase,
    pub(crate) container: Option<Container>,
    pub(crate) hub: Hub,
    pub(crate) execs: BTreeMap<u32, Exec>,
    next_hub: u32,
    pub(crate) oom: Option<Watched<OomWatch>>,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ending: Option<Ending>,
    pub(crate) exit: Option<ExitRecord>,
    /// Never started, and told to go.
    shut_down: bool,
    pub(crate) scratch: Scratch,
}

impl Shim {
    /// A shim with one control connection and a socket for more.
    pub(crate) fn new(
        dir: PathBuf,
        signals: SignalFd,
        listener: UnixListener,
        control: OwnedFd,
    ) -> anyhow::Result<Self> {
        let poller = Poller::new().context("epoll_create1")?;
        let readable = Some(EpollFlags::EPOLLIN);
        let mut signals = Watched::new(&poller, Token::Signals, signals);
        signals.want(readable).context("watching signals")?;
        let mut listener = Watched::new(&poller, Token::Listener, listener);
        listener.want(readable).context("watching shim.sock")?;
        let mut shim = Self {
            dir,
            hub: Hub::new(&poller, 0, HubKind::Init),
            poller,
            signals,
            listener: Some(listener),
            controls: BTreeMap::new(),
            next_control: 0,
            phase: Phase::Empty,
            container: None,
            execs: BTreeMap::new(),
            next_hub: 1,
            oom: None,
            oom_killed: false,
            started_at: None,
            ending: None,
            exit: None,
            shut_down: false,
            scratch: Scratch::new(),
        };
        shim.add_control(control)?;
        Ok(shim)
    }

    /// Serve until there is nothing left to serve.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.settle();
            if self.is_over() {
                return Ok(());
            }
            for (token, events) in self.poller.wait(self.deadline()).context("epoll_wait")? {
                self.handle(token, events);
            }
        }
    }

    fn handle(&mut self, token: Token, events: EpollFlags) {
        match token {
            Token::Signals => self.signalled(),
            Token::Listener => self.accept(),
            Token::Oom => self.oom_ready(),
            Token::Control(id) => self.control_ready(id, events),
            Token::Source(hub, stream) => self.source_ready(hub, stream),
            Token::Stdin(hub) => {
                if let Some((hub, _)) = self.hub_mut(hub) {
                    hub.stdin_ready();
                }
            }
            Token::Session(hub, session) => {
                let ready =
                    |(hub, scratch): (&mut Hub, &mut Scratch)| hub.session_ready(session, events, scratch);
                if self.hub_mut(hub).is_some_and(ready) {
                    let exec_id = self.execs.get(&hub).map(|exec| exec.id.clone());
                    self.announce(Event::Detached { exec_id });
                }
            }
        }
    }

    /// Close what is done, let epoll know what is wanted, record what has ended.
    fn settle(&mut self) {
        self.settle_hubs();
        self.end_what_has_ended();
        // Some hubs have been finished by that, and their sessions want to be closed or watched.
        self.settle_hubs();
        self.execs.retain(|_, exec| !exec.is_over());
        let lost: Vec<u32> = self
            .controls
            .iter_mut()
            .filter_map(|(id, control)| (control.is_stuck() || control.watch().is_err()).then_some(*id))
            .collect();
        for id in lost {
            self.close_control(id);
        }
    }

    fn settle_hubs(&mut self) {
        self.hub.settle();
        self.execs.values_mut().for_each(|exec| exec.hub.settle());
    }

    fn is_over(&self) -> bool {
        let idle = || self.hub.is_idle() && self.execs.is_empty();
        match self.phase {
            Phase::Exited => idle() && !self.controls.values().any(Control::is_behind),
            _ => self.shut_down && !self.controls.values().any(Control::is_behind),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let execs = self.execs.values().filter_map(Exec::deadline);
        execs.chain(self.ending.as_ref().map(Ending::deadline)).chain(self.hub.deadline()).min()
    }

    pub(crate) fn hub_mut(&mut self, id: u32) -> Option<(&mut Hub, &mut Scratch)> {
        let hub = match id {
            0 => &mut self.hub,
            id => &mut self.execs.get_mut(&id)?.hub,
        };
        Some((hub, &mut self.scratch))
    }

    /// A number for an exec's streams.
    pub(crate) fn new_hub_id(&mut self) -> u32 {
        loop {
            let id = self.next_hub;
            self.next_hub = if id == MAX_HUB { 1 } else { id + 1 };
            if !self.execs.contains_key(&id) {
                return id;
            }
        }
    }

    fn source_ready(&mut self, hub: u32, stream: Stream) {
        if let Some((hub, scratch)) = self.hub_mut(hub) {
            hub.source_ready(stream, scratch);
        }
    }

    fn signalled(&mut self) {
        while let Ok(Some(info)) = self.signals.get().read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGTERM) if matches!(self.phase, Phase::Empty | Phase::Created) => {
                    self.shut_down();
                }
                _ => {}
            }
        }
    }

    /// Remove a container that was never started, and end.
    pub(crate) fn shut_down(&mut self) {
        if let Some(container) = self.container.take() {
            for problem in container.remove() {
                eprintln!("removing a container that was not started: {problem}");
            }
        }
        // Whoever is attached to a container that never ran sees the end of its output.
        self.hub.take_rest(&mut self.scratch);
        self.hub.finish();
        self.leave_directory();
        self.shut_down = true;
    }

    /// Nobody shall find this shim any more; what remains are records.
    pub(crate) fn leave_directory(&mut self) {
        self.listener = None;
        let removals = [
            record::remove(&self.dir, files::SOCKET),
            record::remove(&self.dir, files::STATE),
            record::remove_empty(&self.dir, files::SHIM_LOG),
        ];
        for error in removals.into_iter().filter_map(Result::err) {
            eprintln!("{error}");
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Go on to the next phase.
    pub(crate) fn change(&mut self, change: Change) {
        match machine::next(self.phase, change) {
            Some(phase) => self.phase = phase,
            None => eprintln!("a bug in the shim: {change:?} in the phase {:?}", self.phase),
        }
    }

    /// Where the container stands.
    pub(crate) fn state(&self) -> State {
        State {
            shim_pid: nix::unistd::getpid().as_raw(),
            phase: self.phase,
            pid: self.container.as_ref().filter(|_| self.ending.is_none()).map(Container::pid),
            started_at: self.started_at,
            oom_killed: self.oom_killed,
            execs: self
                .execs
                .values()
                .filter(|exec| exec.is_running())
                .map(|exec| RunningExec { exec_id: exec.id.clone(), pid: exec.pid() })
                .collect(),
            exit: self.exit.clone(),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        // EAGAIN or ECONNABORTED: whoever it was has gone again.
        if let Ok((stream, _)) = listener.get().accept()
            && let Err(error) = self.add_control(stream.into())
        {
            eprintln!("taking a control connection: {error}");
        }
    }

    fn add_control(&mut self, fd: OwnedFd) -> Result<(), Errno> {
        let id = self.next_control;
        self.next_control += 1;
        let mut control = Control::new(&self.poller, id, fd)?;
        control.send(&Message::Hello(self.state()));
        self.controls.insert(id, control);
        Ok(())
    }

    fn control_ready(&mut self, id: u32, events: EpollFlags) {
        let Some(control) = self.controls.get_mut(&id) else { return };
        if events.contains(EpollFlags::EPOLLOUT) {
            control.flush();
        }
        match control.receive() {
            Incoming::Request(Request { seq, op }, fds) => {
                self.answer(id, seq, op, fds);
            }
            Incoming::Nothing => {}
            Incoming::Closed => self.close_control(id),
        }
    }

    pub(crate) fn reply(&mut self, control: u32, reply: &Reply) {
        if let Some(control) = self.controls.get_mut(&control) {
            control.reply(reply);
        }
    }

    fn close_control(&mut self, id: u32) {
        self.controls.remove(&id);
        self.hub.release_all();
        for exec in self.execs.values_mut() {
            exec.hub.release_all();
        }
        if self.controls.is_empty() && self.phase == Phase::Empty && !self.shut_down {
            self.shut_down();
        }
    }

    /// Tell every engine.
    pub(crate) fn announce(&mut self, event: Event) {
        let message = Message::Event(event);
        for control in self.controls.values_mut() {
            control.send(&message);
        }
    }

    /// Reap what has ended: init and execs by their pidfds, and whatever was orphaned to us as a subreaper.
    fn reap(&mut self) {
        if let Some(container) = &self.container
            && self.ending.is_none()
            && let Some(status) = container.try_wait()
        {
            self.init_died(Ended::now(status));
        }
        for exec in self.execs.values_mut() {
            exec.try_wait(&mut self.scratch);
        }
        self.reap_orphans();
    }
}
