//! Staying in front of a process: signals go through, a terminal is served, the exit code comes back.
//!
//! ```text
//!  SIGCHLD… ─▶ signalfd ─┐
//!  stdin ────────────────┼─ poll ─▶ process (signals), master (input), stdout (output)
//!  master, pidfd ────────┘          until the pidfd says that it has ended
//! ```

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use berth_core::SeccompWatch;
use berth_sys::pidfd::{self, ExitStatus};
use berth_sys::{Errno, process, tty};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::log::Log;
use crate::notify::Notify;

/// Signals held back from this process until it ends.
pub(crate) struct Signals(SigSet);

impl Signals {
    /// Blocks all signals; do it before the process is made, so that none is lost. The child unblocks them for itself.
    pub(crate) fn block() -> anyhow::Result<Self> {
        let mut set = process::all_signals();
        for faulty in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
            set.remove(faulty);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None).context("block signals")?;
        Ok(Self(set))
    }

    /// Where they come out, those of meanwhile first. Late: as long as the process is made, each descriptor counts.
    fn open(&self) -> anyhow::Result<SignalFd> {
        SignalFd::with_flags(&self.0, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")
    }
}

/// Who of the process speaks to us besides its terminal.
#[derive(Default)]
pub(crate) struct Listeners {
    /// Its denied system calls.
    pub(crate) watch: Option<SeccompWatch>,
    /// Its word that it is ready; gone once that has come.
    pub(crate) notify: Option<Notify>,
}

/// The life of a process for which it is not worth while to make room, in milliseconds.
const SHORT_LIFE: u8 = 100;

/// Waits for the process.
pub(crate) fn serve(
    signals: &Signals,
    process: &OwnedFd,
    master: Option<OwnedFd>,
    mut listeners: Listeners,
    log: &Log,
) -> anyhow::Result<ExitStatus> {
    let signals = signals.open()?;
    let mut terminal = master.map(Terminal::new).transpose()?;
    let mut patience = PollTimeout::from(SHORT_LIFE);
    loop {
        for denied in listeners.watch.iter_mut().flat_map(SeccompWatch::news) {
            log.debug(&denied);
        }
        let Some(ready) = wait(&signals, process, terminal.as_ref(), &listeners, patience)? else {
            // It stays. Little of the program is needed from here on, perhaps for weeks; nothing depends on this.
            berth_sys::text::let_go().ok();
            patience = PollTimeout::NONE;
            continue;
        };
        if let Some(watch) = listeners.watch.as_mut().filter(|_| ready.call) {
            watch.answer();
        }
        if let Some(notify) = listeners.notify.take_if(|_| ready.word) {
            match notify.pass_on() {
                Ok(true) => {}
                Ok(false) => listeners.notify = Some(notify),
                // The container runs all the same.
                Err(error) => log.warn(&format!("{error:#}")),
            }
        }
        if ready.signal {
            pass_signals(&signals, process, terminal.as_ref())?;
        }
        if let Some(terminal) = &mut terminal {
            if ready.output {
                terminal.pump_output()?;
            }
            if ready.input {
                terminal.take_input();
            }
            terminal.pump_input()?;
        }
        if ready.process
            && let Some(status) = pidfd::wait(process, false).context("wait for the process")?
        {
            if let Some(terminal) = &mut terminal {
                terminal.drain()?;
            }
            return Ok(status);
        }
    }
}

/// What has happened.
struct Ready {
    process: bool,
    signal: bool,
    output: bool,
    input: bool,
    /// A system call waits for an answer.
    call: bool,
    /// It has something to tell the service manager.
    word: bool,
}

/// Sleeps until something happens. New input is only asked for when the last has been passed on, and never waited for
/// alone: a program that does not read must still be able to write. `None` if nothing happens for so long.
fn wait(
    signals: &SignalFd,
    process: &OwnedFd,
    terminal: Option<&Terminal>,
    listeners: &Listeners,
    patience: PollTimeout,
) -> anyhow::Result<Option<Ready>> {
    let stdin = std::io::stdin();
    let mut fds = vec![
        PollFd::new(process.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    let mut master_at = None;
    let mut stdin_at = None;
    if let Some(terminal) = terminal.filter(|terminal| terminal.output_open) {
        let mut events = PollFlags::POLLIN;
        if !terminal.pending.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        master_at = Some(fds.len());
        fds.push(PollFd::new(terminal.master.as_fd(), events));
        if terminal.input_open && terminal.pending.is_empty() {
            stdin_at = Some(fds.len());
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
    }
    let mut listen = |fd| {
        fds.push(PollFd::new(fd, PollFlags::POLLIN));
        fds.len() - 1
    };
    let watch_at = listeners.watch.as_ref().map(|watch| listen(watch.as_fd()));
    let notify_at = listeners.notify.as_ref().map(|notify| listen(notify.as_fd()));
    loop {
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Ok(None),
            other => {
                other.context("poll")?;
                break;
            }
        }
    }
    let happened = |at: usize, events: PollFlags| {
        fds[at]
            .revents()
            .is_some_and(|seen| seen.intersects(events | PollFlags::POLLHUP | PollFlags::POLLERR))
    };
    let any = PollFlags::POLLIN;
    Ok(Some(Ready {
        process: happened(0, any),
        signal: happened(1, any),
        output: master_at.is_some_and(|at| happened(at, any)),
        input: stdin_at.is_some_and(|at| happened(at, any)),
        // Only what can be received: when the last process is gone, the listener hangs up until its end.
        call: watch_at.is_some_and(|at| fds[at].revents().is_some_and(|seen| seen.contains(any))),
        word: notify_at.is_some_and(|at| happened(at, any)),
    }))
}

fn pass_signals(signals: &SignalFd, process: &OwnedFd, terminal: Option<&Terminal>) -> anyhow::Result<()> {
    while let Some(info) = signals.read_signal().context("read a signal")? {
        let signal = i32::try_from(info.ssi_signo).context("signal number")?;
        match signal {
            // SIGURG is Go's own; nobody means the container by it.
            libc::SIGCHLD | libc::SIGURG => {}
            libc::SIGWINCH => {
                if let Some(terminal) = terminal {
                    terminal.resize();
                }
            }
            // The process may have ended already; its status is on the way.
            _ => drop(pidfd::send_signal(process, signal)),
        }
    }
    Ok(())
}

/// Our terminal in raw mode, as long as this lives, between the user and the container's.
struct Terminal {
    master: File,
    before: Option<Termios>,
    input_open: bool,
    output_open: bool,
    /// Input that the container's terminal had no room for.
    pending: Vec<u8>,
}

impl Terminal {
    fn new(master: OwnedFd) -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        // Standard input need not be a terminal; then there is no mode to change and none to restore.
        let before = tcgetattr(stdin.as_fd()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            // Newlines of the container's are made into new lines here, and only here.
            raw.output_flags.insert(OutputFlags::OPOST);
            tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        }
        // Neither direction may make the other wait.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
            .context("prepare the terminal")?;
        let terminal = Self {
            master: File::from(master),
            before,
            input_open: true,
            output_open: true,
            pending: Vec::new(),
        };
        terminal.resize();
        Ok(terminal)
    }

    fn resize(&self) {
        if let Ok((rows, columns)) = tty::size(std::io::stdin().as_fd()) {
            // A size that cannot be passed on leaves the old one, which is good enough.
            tty::set_size(&self.master, rows, columns).ok();
        }
    }

    fn pump_output(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.master.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // EIO: the last holder of the other side is gone.
            Ok(0) | Err(_) => self.output_open = false,
            Ok(n) => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&buffer[..n]).context("write to standard output")?;
                stdout.flush().context("write to standard output")?;
            }
        }
        Ok(())
    }

    fn take_input(&mut self) {
        let mut buffer = [0; 4096];
        // An unreadable standard input is at its end.
        match nix::unistd::read(std::io::stdin().as_fd(), &mut buffer).unwrap_or(0) {
            0 => {
                // The end of input is what a user types as ^D.
                self.input_open = false;
                self.pending.push(4);
            }
            n => self.pending.extend_from_slice(&buffer[..n]),
        }
    }

    fn pump_input(&mut self) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            match self.master.write(&self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("write to the container's terminal"),
            }
        }
        Ok(())
    }

    /// What was printed last.
    fn drain(&mut self) -> anyhow::Result<()> {
        while self.output_open && readable(self.master.as_fd()) {
            self.pump_output()?;
        }
        Ok(())
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The user would see it; there is nothing else to be done.
            tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before).ok();
        }
    }
}
