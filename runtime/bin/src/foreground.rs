//! Staying in front of a process: signals go through, a terminal is served, the exit code comes back.
//!
//! ```text
//!  SIGCHLD… ─▶ signalfd ─┐
//!  stdin ────────────────┼─ poll ─▶ process (signals), master (input), stdout (output)
//!  master, pidfd ────────┘          until the pidfd says that it has ended
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use berth_sys::pidfd::{self, ExitStatus};
use berth_sys::{Errno, tty};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Signals held back from this process until it ends.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals; do it before the process is made, so that none is lost. The child unblocks them for itself.
    pub(crate) fn block() -> anyhow::Result<Self> {
        let mut set = SigSet::all();
        for faulty in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
            set.remove(faulty);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None).context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).context("signalfd")?))
    }
}

/// Waits for the process.
pub(crate) fn serve(
    signals: &Signals,
    process: &OwnedFd,
    master: Option<OwnedFd>,
) -> anyhow::Result<ExitStatus> {
    let mut terminal = master.map(Terminal::new).transpose()?;
    loop {
        let mut fds = vec![
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.0.as_fd(), PollFlags::POLLIN),
        ];
        let (input, output) = match &terminal {
            Some(terminal) => (terminal.input_open, terminal.output_open),
            None => (false, false),
        };
        let stdin = std::io::stdin();
        if let Some(terminal) = terminal.as_ref().filter(|_| output) {
            fds.push(PollFd::new(terminal.master.as_fd(), PollFlags::POLLIN));
        }
        if input {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.context("poll")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if ready[1] {
            pass_signals(signals, process, terminal.as_ref())?;
        }
        if let Some(terminal) = &mut terminal {
            if output && ready[2] {
                terminal.pump_output()?;
            }
            if input && ready.last() == Some(&true) {
                terminal.pump_input()?;
            }
        }
        if ready[0]
            && let Some(status) = pidfd::wait(process, false).context("wait for the process")?
        {
            if let Some(terminal) = &mut terminal {
                terminal.drain()?;
            }
            return Ok(status);
        }
    }
}

fn pass_signals(signals: &Signals, process: &OwnedFd, terminal: Option<&Terminal>) -> anyhow::Result<()> {
    while let Some(info) = signals.0.read_signal().context("read a signal")? {
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
}

impl Terminal {
    fn new(master: OwnedFd) -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        // Standard input need not be a terminal; then there is no mode to change and none to restore.
        let before = tcgetattr(stdin.as_fd()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        }
        let terminal = Self { master: File::from(master), before, input_open: true, output_open: true };
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

    fn pump_input(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        let n = nix::unistd::read(std::io::stdin().as_fd(), &mut buffer).unwrap_or(0);
        if n == 0 {
            // The end of input is what a user types as ^D.
            self.input_open = false;
            buffer[0] = 4;
        }
        self.master.write_all(&buffer[..n.max(1)]).context("write to the container's terminal")
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
