//! The program criu(8), one request each, over a socket it inherits (`criu swrk`).

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use berth_sys::Pid;
use berth_sys::socket::{recv_with_fds, send_with_fds, seqpacket_pair};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, Shutdown, shutdown};
use prost::Message;

use super::rpc::{Features, Kind, Notification, Request, Response};

/// The oldest version that answers with its version and tells us what it is at.
const OLDEST: u32 = 31_500;
/// No answer of CRIU is longer.
const LONGEST: usize = 64 * 1024;

/// A CRIU that waits for its request.
pub(super) struct Criu {
    socket: OwnedFd,
    process: Child,
}

/// What CRIU tells while it works: at which point it is, of which process, and what it hands over.
pub(super) struct Event<'a> {
    pub(super) script: &'a str,
    pub(super) pid: i32,
    pub(super) fds: Vec<OwnedFd>,
}

impl Criu {
    /// Starts the program. With `streams` it has ours, which a restored process may get.
    pub(super) fn start(streams: bool) -> anyhow::Result<Self> {
        let (socket, theirs) = seqpacket_pair().context("socketpair")?;
        inherit(&theirs)?;
        let stream = || if streams { Stdio::inherit() } else { Stdio::null() };
        let mut command = Command::new("criu");
        command.args(["swrk", &theirs.as_raw_fd().to_string()]);
        let process = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
        let process = process.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(
                "checkpoint and restore need the program criu, which is not in PATH (install CRIU 3.15 or newer)"
            ),
            _ => anyhow::Error::from(error).context("start criu"),
        })?;
        Ok(Self { socket, process })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Fails if the program is too old.
    pub(super) fn check_version() -> anyhow::Result<()> {
        let request = Request { kind: Kind::Version.into(), ..Request::default() };
        let answer = Self::start(false)?.perform(&request, |_| Ok(())).context("ask criu for its version")?;
        let version = answer.version.context("criu did not tell its version")?;
        let numbers = [version.major, version.minor, version.sublevel.unwrap_or(0)];
        let number = numbers.iter().fold(0, |number, part| number * 100 + part.unsigned_abs());
        if number < OLDEST {
            bail!("CRIU {}.{} is too old: install 3.15 or newer", version.major, version.minor);
        }
        Ok(())
    }

    /// Fails if CRIU, or the kernel, lacks one of these.
    pub(super) fn check_features(wanted: Features) -> anyhow::Result<()> {
        let request =
            Request { kind: Kind::FeatureCheck.into(), features: Some(wanted), ..Request::default() };
        let answer =
            Self::start(false)?.perform(&request, |_| Ok(())).context("CRIU feature check failed")?;
        let there = answer.features.unwrap_or_default();
        let lacks = |wanted: Option<bool>, there: Option<bool>| wanted == Some(true) && there == Some(false);
        for (name, missing) in [
            ("MemTrack (tracking of changed memory)", lacks(wanted.memory_tracking, there.memory_tracking)),
            ("LazyPages (userfaultfd)", lacks(wanted.lazy_pages, there.lazy_pages)),
        ] {
            if missing {
                bail!("criu is missing features: {name}; the kernel may lack it (criu check --all)");
            }
        }
        Ok(())
    }

    /// Sends the request and answers what CRIU tells on its way, until it is done. If `event` fails, so does CRIU.
    pub(super) fn perform(
        mut self,
        request: &Request,
        mut event: impl FnMut(Event<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Response> {
        self.send(request)?;
        loop {
            let (answer, fds) = self.receive()?;
            if !answer.success {
                let kind = Kind::try_from(answer.kind).unwrap_or(Kind::Empty);
                let why = answer.message.map(|text| format!(": {text}")).unwrap_or_default();
                bail!("criu failed: type {kind:?} errno {}{why}", answer.errno.unwrap_or(0));
            }
            if answer.kind != i32::from(Kind::Notify) {
                // It ends when nothing more can come. One that has only dumped memory waits for the rest, and fails.
                shutdown(self.socket.as_raw_fd(), Shutdown::Write).context("shutdown")?;
                let status = self.process.wait().context("wait for criu")?;
                if !status.success() && answer.kind != i32::from(Kind::PreDump) {
                    bail!("criu failed: {status}");
                }
                return Ok(answer);
            }
            let Notification { script, pid } = answer.notify.unwrap_or_default();
            let handled = event(Event { script: &script.unwrap_or_default(), pid: pid.unwrap_or(0), fds });
            self.send(&Request {
                kind: Kind::Notify.into(),
                notify_success: Some(handled.is_ok()),
                ..Request::default()
            })?;
            handled?;
        }
    }

    fn send(&self, request: &Request) -> anyhow::Result<()> {
        send_with_fds(&self.socket, &request.encode_to_vec(), &[], MsgFlags::empty())
            .map(drop)
            .context("send to criu")
    }

    fn receive(&self) -> anyhow::Result<(Response, Vec<OwnedFd>)> {
        let mut buffer = vec![0; LONGEST];
        let (length, fds) =
            recv_with_fds(&self.socket, &mut buffer, MsgFlags::empty()).context("hear from criu")?;
        if length == 0 {
            bail!("criu ended without an answer");
        }
        Ok((Response::decode(&buffer[..length]).context("an answer of criu")?, fds))
    }
}

impl Drop for Criu {
    /// One that has done its work has been waited for; any other sees that nobody listens, and ends.
    fn drop(&mut self) {
        shutdown(self.socket.as_raw_fd(), Shutdown::Both).ok();
        self.process.wait().ok();
    }
}

/// The descriptor stays open in CRIU.
pub(super) fn inherit(fd: &OwnedFd) -> anyhow::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).context("fcntl")
}
