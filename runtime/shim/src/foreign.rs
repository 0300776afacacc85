//! A container that another OCI runtime makes: runc's command line, driven as its specification has it.
//!
//! ```text
//!   overlay, handed mounts ─▶ attached in a mount namespace of the shim's own   the host sees nothing of them
//!   RUNTIME create ─▶ start ─▶ (exec --detach …) ─▶ delete --force
//! ```
//!
//! The shim is the subreaper of what the runtime leaves behind, so init and execs become its children, and streams,
//! signals, limits and the end are the same as with the shim's own runtime.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio as ProcessStdio},
};

use berth_cgroup::{Cgroup, Unit};
use berth_core::{ExecChild, Stdio};
use berth_shim_protocol::{Create, Failure, FailureKind, Restore, Rootfs, Runtime, oci};
use berth_sys::{
    mountfd::{Overlay, move_mount, overlay},
    pidfd, socket,
};
use nix::{
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{socket::MsgFlags, stat::Mode},
    unistd::Pid,
};
use serde::Deserialize;

use crate::stdio::has_terminal;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container that another runtime has made.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: Runtime,
    id: String,
    dir: PathBuf,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: Cgroup,
    execs: u64,
    /// It runs since it was made.
    restored: bool,
}

/// A line of a runtime's log.
#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl Foreign {
    /// Have it made. `spec` has its placeholders replaced by descriptors of ours, of which `handed` are the mounts.
    /// Also our side of its terminal.
    pub(crate) fn create(
        create: &Create,
        runtime: &Runtime,
        mut spec: oci::Spec,
        unit: Option<Unit>,
        handed: &[OwnedFd],
        run_dir: &Path,
        stdio: Stdio,
    ) -> Result<(Self, Option<OwnedFd>), Failure> {
        let dir = run_dir.join("oci");
        fs::create_dir_all(&dir).map_err(|error| system("making a bundle", error))?;
        attach_mounts(create, &mut spec, handed, &dir)?;
        // What every runtime understands; some refuse later versions by their number.
        spec.set_version("1.0.2".to_owned());
        let config = serde_json::to_vec(&spec).map_err(|error| system("writing config.json", error))?;
        fs::write(dir.join("config.json"), config).map_err(|error| system("writing config.json", error))?;
        let mut runtime = runtime.clone();
        if unit.is_some() {
            runtime.args.push("--systemd-cgroup".to_owned());
        }
        let this = Caller { runtime: &runtime, dir: &dir };
        let terminal = spec.process().as_ref().is_some_and(has_terminal);
        let console = terminal.then(|| ConsoleSocket::listen(&dir)).transpose()?;
        let pid_file = dir.join("pid");
        let mut command = match &create.restore {
            None => this.command("create"),
            Some(checkpoint) => this.restore(checkpoint),
        };
        command.arg("--bundle").arg(&dir).arg("--pid-file").arg(&pid_file);
        if let Some(console) = &console {
            command.arg("--console-socket").arg(&console.path);
        }
        command.arg(&create.id);
        connect(&mut command, stdio);
        this.run(command)?;
        let made = || -> Result<Self, Failure> {
            let (pid, pidfd) = read_pid(&pid_file)?;
            let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
            let layout = berth_cgroup::detect().map_err(|error| system("finding the cgroups", error))?;
            let cgroup = match &unit {
                Some(unit) => Cgroup::open_in_unit(&layout, unit),
                None => Cgroup::open(&layout, path.unwrap_or(Path::new(""))),
            };
            let cgroup = cgroup.map_err(|error| system("finding the container's cgroup", error))?;
            let (runtime, id, dir) = (runtime.clone(), create.id.clone(), dir.clone());
            Ok(Self { runtime, id, dir, pid, pidfd, cgroup, execs: 0, restored: create.restore.is_some() })
        };
        let taken = made().and_then(|made| {
            let console = console.map(ConsoleSocket::receive).transpose()?;
            Ok((made, console))
        });
        if taken.is_err() {
            let mut command = this.command("delete");
            command.arg("--force").arg(&create.id);
            if let Err(error) = this.run(command) {
                eprintln!("undoing a creation: {}", error.message);
            }
        }
        taken
    }

    fn caller(&self) -> Caller<'_> {
        Caller { runtime: &self.runtime, dir: &self.dir }
    }

    /// Run its program.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        if self.restored {
            return Ok(());
        }
        let mut command = self.caller().command("start");
        command.arg(&self.id);
        self.caller().run(command)
    }

    /// Run one more process in it.
    pub(crate) fn exec(&mut self, process: &oci::Process, stdio: Stdio) -> Result<ExecChild, Failure> {
        self.execs += 1;
        let (process_file, pid_file) = (
            self.dir.join(format!("exec-{}.json", self.execs)),
            self.dir.join(format!("exec-{}.pid", self.execs)),
        );
        let text = serde_json::to_vec(process).map_err(|error| system("writing the process", error))?;
        fs::write(&process_file, text).map_err(|error| system("writing the process", error))?;
        let console = has_terminal(process).then(|| ConsoleSocket::listen(&self.dir)).transpose()?;
        let mut command = self.caller().command("exec");
        command.arg("--process").arg(&process_file).arg("--pid-file").arg(&pid_file).arg("--detach");
        if let Some(console) = &console {
            command.arg("--console-socket").arg(&console.path);
        }
        command.arg(&self.id);
        connect(&mut command, stdio);
        let ran = self.caller().run(command);
        let taken = ran.and_then(|()| {
            let (pid, pidfd) = read_pid(&pid_file)?;
            let console = console.map(ConsoleSocket::receive).transpose()?;
            Ok(ExecChild { pid, pidfd, console, warnings: Vec::new(), watch: None })
        });
        for file in [process_file, pid_file] {
            // The second is not there after a failure.
            fs::remove_file(file).ok();
        }
        taken
    }

    /// Undo everything, past errors, which are returned.
    pub(crate) fn remove(self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut command = self.caller().command("delete");
        command.arg("--force").arg(&self.id);
        problems.extend(self.caller().run(command).err().map(|failure| failure.message));
        // The runtime has removed it; what it leaves must not stay either.
        if let Err(errors) = self.cgroup.remove() {
            problems.extend(errors.iter().map(ToString::to_string));
        }
        for place in mount_points(&self.dir) {
            // A directory of the bundle that was no mount's place.
            umount2(&place, MntFlags::MNT_DETACH).ok();
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            problems.push(format!("removing {}: {error}", self.dir.display()));
        }
        problems
    }
}

/// A runtime and where it keeps what it knows of the container.
struct Caller<'a> {
    runtime: &'a Runtime,
    dir: &'a Path,
}

impl Caller<'_> {
    fn log(&self) -> PathBuf {
        self.dir.join("log.json")
    }

    fn command(&self, operation: &str) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command.env_clear().env("PATH", SEARCH_PATH).args(&self.runtime.args);
        command.arg("--root").arg(self.dir.join("state")).arg("--log").arg(self.log());
        command.args(["--log-format", "json", operation]);
        command.stdin(ProcessStdio::null()).stdout(ProcessStdio::null()).stderr(ProcessStdio::null());
        command
    }

    fn restore(&self, checkpoint: &Restore) -> Command {
        let mut command = self.command("restore");
        command.env("PATH", &checkpoint.path).arg("--detach");
        command.arg("--image-path").arg(&checkpoint.images).arg("--work-path").arg(&checkpoint.work);
        // The cgroup is the container's own; what was above it may have another name now.
        command.args(["--manage-cgroups-mode", "ignore", "--tcp-established", "--file-locks"]);
        command
    }

    /// Runs it to its end; a failure has the runtime's own words.
    fn run(&self, mut command: Command) -> Result<(), Failure> {
        // Of an earlier command: only what this one says counts.
        fs::remove_file(self.log()).ok();
        let program = self.runtime.path.display();
        let status = command.status().map_err(|error| {
            system("running the OCI runtime", io::Error::new(error.kind(), format!("{program}: {error}")))
        })?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
        let said = lines.rfind(|line| line.level == "error" || line.level == "fatal");
        let message = said.map_or_else(|| format!("{program} has failed ({status})"), |line| line.msg);
        Err(Failure::new(kind(&message), message))
    }
}

/// What the runtimes' words mean.
fn kind(message: &str) -> FailureKind {
    let text = message.to_ascii_lowercase();
    let says = |words: &str| text.contains(words);
    match () {
        () if says("not found in $path") => FailureKind::NotFound,
        () if says("is a directory") => FailureKind::IsDirectory,
        () if says("exec format error") => FailureKind::NotExecutable,
        () if says("permission denied") => FailureKind::PermissionDenied,
        () if says("no such file or directory") => FailureKind::NotFound,
        () => FailureKind::System,
    }
}

/// Where a runtime sends the terminal that it has made.
struct ConsoleSocket {
    listener: UnixListener,
    file: PathBuf,
    /// As the runtime names it: through our descriptor of the directory, for a socket's path has 108 bytes at most.
    path: PathBuf,
    _dir: OwnedFd,
}

impl ConsoleSocket {
    fn listen(dir: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| system("listening for the terminal", error);
        let file = dir.join("console.sock");
        fs::remove_file(&file).ok();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(dir, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let path: PathBuf = format!("/proc/{}/fd/{}/console.sock", std::process::id(), fd.as_raw_fd()).into();
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, file, path, _dir: fd })
    }

    /// The terminal; the runtime has connected before it ended.
    fn receive(self) -> Result<OwnedFd, Failure> {
        let failed = |error: io::Error| system("taking the terminal", error);
        let (stream, _) = self.listener.accept().map_err(failed)?;
        let mut name = [0; 4096];
        let (_, mut fds) = socket::recv_with_fds(stream.as_fd(), &mut name, MsgFlags::empty())
            .map_err(|errno| failed(errno.into()))?;
        fs::remove_file(&self.file).ok();
        fds.pop().ok_or_else(|| failed(io::Error::other("the runtime has sent none")))
    }
}

fn read_pid(file: &Path) -> Result<(Pid, OwnedFd), Failure> {
    let failed = |error: io::Error| system("reading the process id", error);
    let text = fs::read_to_string(file).map_err(failed)?;
    let number = text.trim().parse().map_err(|_| failed(io::Error::other(format!("{text:?} is none"))))?;
    let pid = Pid::from_raw(number);
    Ok((pid, pidfd::open(pid).map_err(|errno| failed(errno.into()))?))
}

fn connect(command: &mut Command, stdio: Stdio) {
    if let Stdio::Fds { stdin, stdout, stderr } = stdio {
        command.stdin(stdin).stdout(stdout).stderr(stderr);
    }
}

/// Puts the root and the handed mounts to where a runtime finds them by path; nobody else does.
fn attach_mounts(
    create: &Create,
    spec: &mut oci::Spec,
    handed: &[OwnedFd],
    dir: &Path,
) -> Result<(), Failure> {
    let failed = |what: &'static str| move |errno: nix::errno::Errno| system(what, io::Error::from(errno));
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("making a mount namespace"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(failed("leaving the host's mounts"))?;
    if let Rootfs::Overlay { lower, upper, work, .. } = &create.rootfs {
        let lower: Vec<&Path> = lower.iter().map(AsRef::as_ref).collect();
        let wanted = Overlay { lower: &lower, upper: Some(upper), work: Some(work), options: &[], attrs: 0 };
        let root = overlay(&wanted).map_err(|error| system("mounting the root", error))?;
        let place = dir.join("rootfs");
        fs::create_dir_all(&place).map_err(|error| system("making the root's place", error))?;
        attach(&root, &place)?;
        if let Some(root) = spec.root_mut() {
            root.set_path(place);
        }
    }
    let own = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let source = mount.source().clone().unwrap_or_default();
        let Some(number) = handed.iter().position(|fd| own(fd) == source) else { continue };
        let place = dir.join(format!("mount-{number}"));
        let is_dir =
            File::from(handed[number].try_clone().map_err(|error| system("copying a mount", error))?)
                .metadata()
                .is_ok_and(|metadata| metadata.is_dir());
        let made = if is_dir { fs::create_dir_all(&place) } else { File::create(&place).map(drop) };
        made.map_err(|error| system("making a mount's place", error))?;
        attach(&handed[number], &place)?;
        mount.set_source(Some(place));
    }
    // Another process has other descriptors.
    let linux = spec.linux_mut().as_mut();
    for namespace in linux.and_then(|linux| linux.namespaces_mut().as_mut()).into_iter().flatten() {
        let path = namespace.path().as_deref().and_then(Path::to_str);
        if let Some(number) = path.and_then(|path| path.strip_prefix("/proc/self/fd/")) {
            let path = format!("/proc/{}/fd/{number}", std::process::id());
            namespace.set_path(Some(path.into()));
        }
    }
    Ok(())
}

fn attach(mount: &OwnedFd, place: &Path) -> Result<(), Failure> {
    let failed = |errno: nix::errno::Errno| system("attaching a mount", io::Error::from(errno));
    let to = open(place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    move_mount(mount, &to).map_err(failed)
}

fn mount_points(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    entries
        .filter(|path| name(path).is_some_and(|name| name == "rootfs" || name.starts_with("mount-")))
        .collect()
}

fn system(what: &str, error: impl ToString) -> Failure {
    Failure::new(FailureKind::System, format!("{what}: {}", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_runtimes_are_understood() {
        let runc = "unable to start container process: error during container init: exec: \"x\": executable file not \
            found in $PATH";
        assert_eq!(kind(runc), FailureKind::NotFound);
        assert_eq!(
            kind("executable file `x` not found in $PATH: No such file or directory"),
            FailureKind::NotFound
        );
        assert_eq!(kind("open executable: Permission denied"), FailureKind::PermissionDenied);
        assert_eq!(kind("cannot set memory limit"), FailureKind::System);
    }
}
