//! What the engine can ask of a shim.

use std::path::PathBuf;

use jiff::Timestamp;
use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use crate::{Log, State, Stats, bytes_base64};

/// As the network namespace's path in config.json: "the namespace whose descriptor came with `Create`". The
/// shim replaces it by `/proc/self/fd/N` of its own table.
pub const NETNS_PLACEHOLDER: &str = "berth:netns";

/// As the source of a bind mount in config.json, followed by a number from 0: "the detached mount whose descriptor came
/// with `Create`". The shim replaces it by `/proc/self/fd/N` of its own table.
pub const MOUNT_PLACEHOLDER: &str = "berth:mount/";

/// One request on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub seq: u64,
    /// What to do.
    pub op: Op,
}

/// An operation. File descriptors: none, unless the variant says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Prepare the container up to the point before its program runs. Descriptors: the network namespace, if
    /// config.json has [`NETNS_PLACEHOLDER`], then the mounts that [`MOUNT_PLACEHOLDER`] numbers. Answer: [`Answer::Created`]. A
    /// program that does not exist may be noticed here already. After a failure nothing is left and the shim has
    /// no container; attached streams are closed when it ends, at the latest with its last control connection.
    Create(Box<Create>),
    /// Run the container's program. Answer: [`Answer::Started`]. After a failure the container is gone, the
    /// exit record says why, [`Event::Exited`](crate::Event::Exited) follows and the shim ends.
    Start,
    /// Join a stream to the container's stdio; allowed from the shim's first moment, also before `Create`.
    /// Descriptor 0: the stream. Answer: [`Answer::Attached`].
    Attach(Attach),
    /// Let a session that was attached with `hold` flow.
    Release {
        /// From [`Answer::Attached`].
        session: u32,
    },
    /// Run one more process in the container. Descriptor 0, exactly when `attach` is given: the stream.
    /// Answer: [`Answer::Exec`], after the program was loaded. On failure nothing was written to the stream,
    /// and it was not shut down: the engine still has its own copy and may tell the user there.
    Exec(Box<Exec>),
    /// Set the window size of the container's terminal.
    ResizeInit(WindowSize),
    /// Set the window size of an exec's terminal.
    ResizeExec {
        /// Which exec.
        exec_id: String,
        /// The size.
        size: WindowSize,
    },
    /// Send a signal to the container's init, or to every process in it. SIGKILL also ends a paused container.
    Kill {
        /// The signal's number.
        signal: i32,
        /// Every process of the container's cgroup instead of init only.
        all: bool,
    },
    /// Send a signal to an exec's process.
    KillExec {
        /// Which exec.
        exec_id: String,
        /// The signal's number.
        signal: i32,
    },
    /// Freeze the container.
    Pause,
    /// Thaw the container.
    Resume,
    /// Change the container's limits.
    Update(Box<oci::LinuxResources>),
    /// Answer: [`Answer::Stats`].
    Stats,
    /// The host pids of the container's processes. Answer: [`Answer::Pids`].
    Pids,
    /// Answer: [`Answer::State`]. Behind every event that was sent before.
    State,
    /// The log's file was moved away: go on in a new one of the same name. After a failure the old one is written on.
    ReopenLog,
    /// Close the container's stdin once what was written to it has been read.
    CloseStdin,
    /// Remove a container that was never started, and end the shim. Answered before it ends.
    Shutdown,
}

/// The container to create. Its config.json is read from the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Where its root file system comes from.
    pub rootfs: Rootfs,
    /// A terminal instead of three pipes; must equal `process.terminal` of config.json.
    pub terminal: bool,
    /// The terminal's first size.
    #[serde(default)]
    pub console_size: Option<WindowSize>,
    /// What the container reads.
    pub stdin: StdinMode,
    /// Where its output is kept.
    pub log: Log,
    /// systemd makes its cgroup: `linux.cgroupsPath` of config.json is `slice:prefix:name`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub systemd_cgroup: bool,
    /// The runtime that runs it; none: the shim's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Its processes come from a checkpoint: `runtime` restores them, and they run when the container is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// A checkpoint, as CRIU has left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The directory of its images.
    pub images: PathBuf,
    /// The directory for what CRIU has to say (`restore.log`).
    pub work: PathBuf,
    /// Where the runtime looks for programs (`PATH`).
    pub path: String,
}

/// An OCI runtime: a program with runc's command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The program.
    pub path: PathBuf,
    /// Arguments before the command.
    #[serde(default)]
    pub args: Vec<String>,
}

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// An overlay which the shim makes as a detached mount: no other process sees it.
    Overlay {
        /// The layers, the topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// overlayfs' work directory, on the file system of `upper`.
        work: PathBuf,
        /// Nobody wants `upper` after a crash: it is not written to the disk when the container ends. Such an overlay
        /// can be mounted only once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        volatile: bool,
        /// Set when the container's user namespace is not the host's: files belong to the same ids there as on the disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        users: Option<Users>,
    },
    /// A directory.
    Path(PathBuf),
}

/// The user namespace of a container, when it is not the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// The one that config.json has made.
    Own,
    /// One that is there.
    Namespace(PathBuf),
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// What the container's standard input is (no matter with a terminal, apart from `Closed`, which drops input).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// /dev/null.
    Closed,
    /// A pipe that stays open when attached clients go.
    Open,
    /// A pipe that is closed when the first attached client with stdin half-closes or goes.
    OpenOnce,
}

/// A stream that is joined to a process' stdio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What is read from the stream goes to the process.
    pub stdin: bool,
    /// The process' stdout (with a terminal: everything) goes to the stream.
    pub stdout: bool,
    /// The process' stderr goes to the stream.
    pub stderr: bool,
    /// How output is written.
    pub framing: Framing,
    /// Typing these bytes ends this session only. Empty: nothing does.
    #[serde(default, with = "bytes_base64")]
    pub detach_keys: Vec<u8>,
    /// Input that the engine had already read from the stream (behind the HTTP request's head).
    #[serde(default, with = "bytes_base64")]
    pub initial_stdin: Vec<u8>,
    /// Write nothing until [`Op::Release`]: the engine first replays the log up to the position in
    /// [`Answer::Attached`], and what follows then has neither gap nor duplicate.
    #[serde(default)]
    pub hold: bool,
    /// Behind the last output of an exec a piece of stream 4 tells its exit code, a big-endian `i32`. Only with
    /// [`Framing::Stdcopy`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exit_code: bool,
}

impl Attach {
    /// Output only, nothing held: what a program wants that collects output.
    pub fn output(framing: Framing) -> Self {
        Self {
            stdin: false,
            stdout: true,
            stderr: true,
            framing,
            detach_keys: Vec::new(),
            initial_stdin: Vec::new(),
            hold: false,
            exit_code: false,
        }
    }
}

/// How output is written to an attached stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// As it is.
    Raw,
    /// Behind an 8-byte header `{1|2, 0, 0, 0, length as big-endian u32}` a piece.
    Stdcopy,
}

/// One more process in the container. It has a terminal exactly when `process.terminal` is true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Names it in events and records: 1 to 128 of `[a-zA-Z0-9_-]`.
    pub exec_id: String,
    /// The process.
    pub process: oci::Process,
    /// The terminal's first size.
    #[serde(default)]
    pub console_size: Option<WindowSize>,
    /// Its stdio. Without: stdin is /dev/null and output is thrown away.
    #[serde(default)]
    pub attach: Option<Attach>,
}

/// What a successful operation answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Op::Create`].
    Created {
        /// Init's pid on the host.
        pid: i32,
    },
    /// To [`Op::Start`].
    Started {
        /// Init's pid on the host.
        pid: i32,
        /// When its program began.
        at: Timestamp,
    },
    /// To [`Op::Attach`].
    Attached {
        /// For [`Op::Release`].
        session: u32,
        /// How long the current log file was: what is before is not sent on the stream, what comes after is.
        /// None without a log.
        log_position: Option<u64>,
    },
    /// To [`Op::Exec`].
    Exec {
        /// The process' pid on the host.
        pid: i32,
    },
    /// To [`Op::Stats`].
    Stats(Box<Stats>),
    /// To [`Op::Pids`].
    Pids(Vec<i32>),
    /// To [`Op::State`].
    State(State),
    /// To every other operation.
    Done,
}
