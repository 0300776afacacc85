//! berth-shim: one small process per container that holds its stdio, writes its log and records its exit.
//!
//! ```text
//!   berthd ══ control (SEQPACKET) ══▶ berth-shim ── fork, pidfd ──▶ the container's init
//!                                        │  ▲                            │ stdout, stderr, pty
//!   client's HTTP socket ◀═ attach ══════╪══╪════════════════════════════┘
//!                                        ▼  └─ shim.sock: a restarted berthd
//!                              json-file log, exit.json
//! ```
//!
//! One thread, one epoll loop, no async runtime: `berth-core` forks, and a process of threads must not. `machine`
//! has the diagram of its life, `ending` the order of its end, `stdio` the streams. Absent on purpose: networks,
//! images, names; it knows one container and its directory.

mod container;
mod control;
mod ending;
mod exec;
mod foreign;
mod log;
mod machine;
mod mapped;
mod ops;
mod poll;
mod record;
mod shim;
mod stats;
mod stdio;
mod sweep;

use std::{
    env, fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use berth_shim_protocol::files;
use nix::{
    fcntl::{OFlag, open},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
        stat::{Mode, umask},
    },
    unistd::{dup2_stdin, setsid},
};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (command, dir, rest) = (arguments.next(), arguments.next(), arguments.next());
    let result = match (command.as_deref().and_then(|command| command.to_str()), dir, rest) {
        (Some("serve"), Some(dir), None) => serve(dir.into()),
        (Some(log::compress::ROLE), Some(file), None) => log::compress::run(Path::new(&file)),
        (Some("sweep"), Some(dir), None) => sweep::sweep(Path::new(&dir)),
        _ => Err(anyhow::anyhow!("usage: berth-shim serve|sweep DIRECTORY (this program is run by berthd)")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serve one container; the control connection is standard input.
fn serve(dir: PathBuf) -> anyhow::Result<()> {
    berth_sys::exe::seal()?;
    // Fails if we lead a session already, and then there is nothing to do.
    setsid().ok();
    prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")?;
    let signals = block_signals()?;
    let control = take_control()?;
    let listener = listen_in(&dir)?;
    shim::Shim::new(dir, signals, listener, control)?.run()
}

/// Signals come as data. Those that would end us are taken as well: the container must not die with a daemon's
/// process group or at somebody's ctrl-c. (The container's processes get a fresh mask from berth-core.)
fn block_signals() -> anyhow::Result<SignalFd> {
    let signals = SigSet::from_iter([
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ]);
    signals.thread_block().context("blocking signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")
}

/// Take the inherited connection away from descriptor 0, which the container's processes might inherit.
fn take_control() -> anyhow::Result<OwnedFd> {
    let control = std::io::stdin().as_fd().try_clone_to_owned().context("taking the control connection")?;
    let null =
        open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("opening /dev/null")?;
    dup2_stdin(&null).context("replacing standard input")?;
    Ok(control)
}

/// Listen on shim.sock. It is named through a descriptor of the directory, for its path may be longer than a
/// socket's address can be (108 bytes, unix(7)).
fn listen_in(dir: &Path) -> anyhow::Result<UnixListener> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open(dir, flags, Mode::empty()).with_context(|| format!("opening {}", dir.display()))?;
    let path = format!("/proc/self/fd/{}/{}", fd.as_raw_fd(), files::SOCKET);
    let address = UnixAddr::new(path.as_str())?;
    let make = || {
        socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
    };
    if fs::exists(&path)? {
        if connect(make()?.as_raw_fd(), &address).is_ok() {
            bail!("another shim serves {}", dir.display());
        }
        fs::remove_file(&path)
            .with_context(|| format!("removing a dead shim's socket in {}", dir.display()))?;
    }
    let socket = make()?;
    // The socket file's mode; nothing else is created meanwhile, we have one thread.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(before);
    bound.with_context(|| format!("making {} in {}", files::SOCKET, dir.display()))?;
    listen(&socket, Backlog::new(16)?).context("listen")?;
    Ok(UnixListener::from(socket))
}
