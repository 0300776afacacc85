//! A pod's namespaces, without a process in them: each is a file of nsfs that is bound below the run root.
//!
//! ```text
//!   <run-root>/pods/            a mount of its own, private: what is mounted below is not seen elsewhere
//!     <sandbox>/net ipc uts     the namespaces; `pid` and `user` when the pod has a process that holds them
//!     <sandbox>/shm             /dev/shm of all its containers
//!     <sandbox>/<container>/    run directories of shims
//! ```
//!
//! They outlive the daemon and end with the boot, as the run root does.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::model::Pairs;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Result};

/// Size of /dev/shm of a pod.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// What is pinned of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pin {
    Network,
    Ipc,
    Uts,
    Pid,
    User,
}

impl Pin {
    const ALL: [Self; 5] = [Self::Network, Self::Ipc, Self::Uts, Self::Pid, Self::User];

    /// Its name in `/proc/<pid>/ns`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Pid => "pid",
            Self::User => "user",
        }
    }
}

/// The pinned namespaces of one pod.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    pub(super) dir: PathBuf,
}

/// The namespaces to be made.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// This one becomes the pod's.
    pub(super) network: Option<OwnedFd>,
    pub(super) ipc: bool,
    /// With this host name.
    pub(super) uts: Option<&'a str>,
    pub(super) sysctls: Option<&'a Pairs>,
}

impl Engine {
    pub(super) fn pins(&self, sandbox: &str) -> Pins {
        Pins { dir: self.pods_dir().join(sandbox) }
    }

    pub(super) fn pods_dir(&self) -> PathBuf {
        self.config.run_root.join("pods")
    }

    /// Makes the directory of all pods a mount of its own, unless an earlier daemon did.
    pub(super) fn prepare_pods_dir(&self) -> Result<()> {
        let _one_at_a_time = self.pods.directory();
        let dir = self.pods_dir();
        fs::create_dir_all(&dir).during("create", &dir)?;
        let dir = fs::canonicalize(&dir).during("resolve", &dir)?;
        if mounts_at(&dir)? {
            return Ok(());
        }
        mount(Some(&dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).during("bind", &dir)?;
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
            .during("make private", &dir)
    }

    /// Takes the directory of all pods away; only when there is no pod.
    pub(super) fn leave_pods_dir(&self) -> Result<()> {
        detach(&self.pods_dir())
    }
}

fn mounts_at(dir: &Path) -> Result<bool> {
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).during("read", table)?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| Path::new(point) == dir))
}

impl Pins {
    pub(super) fn path(&self, pin: Pin) -> PathBuf {
        self.dir.join(pin.name())
    }

    /// A directory with nothing in it that every user can enter.
    pub(super) fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    pub(super) fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }

    pub(super) fn open(&self, pin: Pin) -> Result<OwnedFd> {
        let path = self.path(pin);
        Ok(File::open(&path).during("open", &path)?.into())
    }

    /// Whether the namespace is pinned.
    pub(super) fn holds(&self, pin: Pin) -> bool {
        /// NSFS_MAGIC of linux/magic.h.
        const NSFS: i64 = 0x6e73_6673;
        nix::sys::statfs::statfs(&self.path(pin)).is_ok_and(|found| found.filesystem_type().0 == NSFS)
    }

    /// Makes namespaces and pins them; on failure the caller unpins. Blocking.
    pub(super) fn make(&self, wanted: &Wanted<'_>) -> Result<()> {
        let panicked = || EngineError::internal("the thread that makes a pod's namespaces panicked");
        // A thread of its own: it changes its namespaces and ends.
        std::thread::scope(|scope| scope.spawn(|| self.make_here(wanted)).join().map_err(|_| panicked()))?
    }

    fn make_here(&self, wanted: &Wanted<'_>) -> Result<()> {
        if let Some(network) = &wanted.network {
            setns(network, CloneFlags::CLONE_NEWNET).during("enter", self.path(Pin::Network))?;
        }
        let flags =
            [(wanted.ipc, CloneFlags::CLONE_NEWIPC), (wanted.uts.is_some(), CloneFlags::CLONE_NEWUTS)];
        let flags = flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).collect();
        unshare(flags).during("make the namespaces of", &self.dir)?;
        if let Some(hostname) = wanted.uts {
            nix::unistd::sethostname(hostname).during("set the host name of", &self.dir)?;
        }
        for (name, value) in wanted.sysctls.into_iter().flatten() {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            fs::write(&path, value).map_err(|error| {
                EngineError::invalid(format!("cannot set the sysctl {name}={value} of the pod: {error}"))
            })?;
        }
        let pins = [
            (wanted.network.is_some(), Pin::Network),
            (wanted.ipc, Pin::Ipc),
            (wanted.uts.is_some(), Pin::Uts),
        ];
        for (_, pin) in pins.into_iter().filter(|(wanted, _)| *wanted) {
            self.pin(pin, &format!("/proc/thread-self/ns/{}", pin.name()))?;
        }
        Ok(())
    }

    /// Pins the namespaces of a process.
    pub(super) fn adopt(&self, pid: i32, pins: &[Pin]) -> Result<()> {
        pins.iter().try_for_each(|pin| self.pin(*pin, &format!("/proc/{pid}/ns/{}", pin.name())))
    }

    fn pin(&self, pin: Pin, source: &str) -> Result<()> {
        let path = self.path(pin);
        File::create(&path).during("create", &path)?;
        mount(Some(source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .during("pin a namespace at", &path)
    }

    /// Makes /dev/shm of the pod; `owner` is its root on the host.
    pub(super) fn make_shm(&self, owner: u32) -> Result<()> {
        let path = self.shm();
        fs::create_dir_all(&path).during("create", &path)?;
        let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = format!("{SHM_OPTIONS},uid={owner},gid={owner}");
        mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str()))
            .during("mount a tmpfs at", &path)
    }

    /// Lets everything go that is pinned or mounted; goes on past errors.
    pub(super) fn release(&self) -> Vec<EngineError> {
        let paths = Pin::ALL.into_iter().map(|pin| self.path(pin)).chain([self.shm()]);
        paths.filter_map(|path| detach(&path).err()).collect()
    }

    /// Removes the directory. Nothing may be mounted below it.
    pub(super) fn remove(&self) -> Result<()> {
        crate::containers::remove_tree(&self.dir)
    }
}

/// Unmounts what is there, however often; nothing there is no error.
fn detach(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: no mount (any more).
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(EngineError::io("unmount", path, error)),
        }
    }
}
