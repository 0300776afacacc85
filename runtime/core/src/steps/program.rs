//! The program: finding it, waiting for the word, becoming it. The texts are those that docker's command line takes
//! its exit codes from.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::{Errno, process};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use super::explain;
use crate::create::Gate;
use crate::error::{ChildFailure, Context, FailureKind, Fault};
use crate::init::{Init, Never, failure};
use crate::protocol::FromChild;

/// As much of the passwd file is looked at.
const MAX_PASSWD: u64 = 1 << 20;
/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Init<'_> {
    /// Finds the program, so that a missing one fails the creation and not the start.
    pub(super) fn resolve_executable(&mut self) -> Result<(), Fault> {
        let name = self.process.args.first().ok_or_else(|| Fault::new("there is no program to run"))?;
        let path = find(name, self.variable("PATH"))?;
        self.stage.program = CString::new(path.into_os_string().as_bytes()).ok();
        Ok(())
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        let value = |entry: &'_ CString| -> Option<usize> {
            let bytes = entry.as_bytes();
            (bytes.strip_prefix(name.as_bytes())?.first() == Some(&b'=')).then_some(name.len() + 1)
        };
        // The last one counts, as for a shell that is given both.
        self.process.env.iter().rev().find_map(|e| value(e).map(|at| OsStr::from_bytes(&e.as_bytes()[at..])))
    }

    /// Tells that everything is ready and waits for `start`.
    pub(super) fn wait_for_start(&mut self) -> Result<(), Fault> {
        self.settle_death()?;
        if self.traced {
            self.trace("init: closing the pipe to signal completion".to_owned());
        }
        process::end_when_asked().at(|| "handle signals".into())?;
        if self.stage.program.is_none() {
            // It will never be anything else: an init that keeps namespaces for others, and so inherits their orphans.
            process::reap_unseen().at(|| "ignore SIGCHLD".into())?;
        }
        self.close_others()?;
        self.link.send(&FromChild::Ready, None).at(|| "report readiness".into())?;
        match &self.gate {
            Gate::Recorded(_) | Gate::InProcess => {
                self.link.wait_for_start().at(|| "wait for the start".into())
            }
            Gate::Fifo(fifo) => {
                let fd = fifo.as_fd();
                let descriptors =
                    self.stage.descriptors.as_ref().ok_or_else(|| Fault::new("the gate is not prepared"))?;
                let opened = descriptors.reopen(fd, OFlag::O_WRONLY).at(|| "open the start FIFO".into())?;
                nix::unistd::write(&opened, b"0").map(drop).at(|| "answer on the start FIFO".into())?;
                self.link.answer_through(opened);
                Ok(())
            }
        }
    }

    /// A container may wait long for its start: meanwhile it holds nothing of the host's.
    fn close_others(&mut self) -> Result<(), Fault> {
        let mut keep = self.link.descriptors();
        keep.extend(self.stage.kept());
        if let Gate::Fifo(fifo) = &self.gate {
            keep.push(fifo.as_fd());
        }
        process::close_others(3 + self.preserve_fds, &keep).at(|| "close descriptors".into())
    }

    /// Whether the program dies with our parent. Late: a change of user takes the signal away again (prctl(2)). A parent
    /// that died before shows on the link.
    fn settle_death(&self) -> Result<(), Fault> {
        if self.outlives_parent {
            return nix::sys::prctl::set_pdeathsig(None).at(|| "prctl(PR_SET_PDEATHSIG)".into());
        }
        crate::init::bind_to_parent()?;
        self.link.peer_lives().at(|| "look after the parent".into())
    }

    /// The program's environment; its home directory is looked up inside the container.
    pub(super) fn environment(&self) -> Vec<CString> {
        let mut env = self.process.env.clone();
        if self.process.needs_home {
            let home = home_of(self.process.user.uid);
            env.extend(CString::new(format!("HOME={home}")));
        }
        env
    }

    /// Becomes the program, or tells why not and ends.
    pub(super) fn exec(&mut self) -> Result<Never, Fault> {
        let program = self.stage.program.take();
        let program =
            program.ok_or_else(|| Fault::new("there is no program to run: config.json has no process"))?;
        let env = self.environment();
        if self.container.is_none() {
            if self.traced {
                self.trace(format!("setns_init: about to exec {}", program.to_string_lossy()));
            }
            self.settle_death()?;
        }
        let (first, keep) = (3 + self.preserve_fds, self.link.descriptors());
        process::exec_alone(&program, &self.process.args, &env, first, &keep, |errno| {
            self.link.fail(failure(ChildFailure::EXEC.to_owned(), why(&program, errno)));
        })
    }
}

/// The failure of execve(2).
fn why(program: &CStr, errno: Errno) -> Fault {
    let kind = match errno {
        Errno::ENOENT => FailureKind::NotFound,
        Errno::EACCES => FailureKind::PermissionDenied,
        _ => FailureKind::Other,
    };
    let path = Path::new(OsStr::from_bytes(program.to_bytes()));
    let fault = Fault::os(format!("exec {}", path.display()), errno);
    Fault { kind, ..fault }.hint(explain::execve(path, errno))
}

fn find(name: &CStr, path: Option<&OsStr>) -> Result<PathBuf, Fault> {
    let text = OsStr::from_bytes(name.to_bytes());
    if name.to_bytes().contains(&b'/') {
        let path = PathBuf::from(text);
        return check(&path).map(|()| path).map_err(|errno| unusable(text, errno));
    }
    let dirs = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = None;
    for dir in dirs.as_bytes().split(|b| *b == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        let candidate = dir.join(text);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) if refused.is_none() => refused = Some(candidate),
            Err(_) => {}
        }
    }
    let fault = Fault::new(format!("exec: {text:?}: executable file not found in $PATH"));
    let hint = match refused {
        Some(path) => explain::refused(&path).map(|why| format!("{} is there, but {why}", path.display())),
        None => Some(format!("PATH is {}", dirs.display())).filter(|_| path.is_some()),
    };
    Err(Fault { kind: FailureKind::NotFound, ..fault }.hint(hint))
}

fn unusable(name: &OsStr, errno: Errno) -> Fault {
    let kind = match errno {
        Errno::ENOENT | Errno::ENOTDIR => FailureKind::NotFound,
        Errno::EACCES => FailureKind::PermissionDenied,
        Errno::EISDIR => FailureKind::IsDirectory,
        _ => FailureKind::Other,
    };
    let stat = if errno == Errno::ENOENT { format!(": stat {}", name.display()) } else { String::new() };
    let hint = match errno {
        Errno::EACCES => explain::refused(Path::new(name)),
        Errno::ENOENT if Path::new(name).is_symlink() => {
            let target = std::fs::read_link(name).unwrap_or_default();
            Some(format!("it is a link to {}, which does not exist in the container", target.display()))
        }
        _ => None,
    };
    Fault { kind, ..Fault::os(format!("exec: {name:?}{stat}"), errno) }.hint(hint)
}

/// Whether this user may execute the file.
fn check(path: &Path) -> Result<(), Errno> {
    // Not by std, which prefers statx(2): see below.
    if SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    let asked = [AtFlags::AT_EACCESS, AtFlags::empty()].into_iter().map(|flags| {
        // Without flags it is access(2). By now the real ids are the effective ones, so both say the same.
        faccessat(AT_FDCWD, path, AccessFlags::X_OK, flags)
    });
    // EPERM and ENOSYS are no answers to the question but a container's seccomp filter that does not know the call,
    // as profiles from before faccessat2(2) do not. If nothing may be asked, execve tells.
    asked.into_iter().find(|answer| !matches!(answer, Err(Errno::EPERM | Errno::ENOSYS))).unwrap_or(Ok(()))
}

/// The home directory that the container's passwd file has for the user; `/` without one.
fn home_of(uid: u32) -> String {
    let passwd =
        String::from_utf8_lossy(&explain::read_file(Path::new("/etc/passwd"), MAX_PASSWD)).into_owned();
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = fields.filter(|f| f.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    let home = homes.find_map(|f| f.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_owned()));
    home.unwrap_or_else(|| "/".to_owned())
}
