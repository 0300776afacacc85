//! Notice of out-of-memory events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::CgroupError;
use crate::dir::Dir;

/// Becomes readable (POLLIN) when memory events of the cgroup may have happened. A hint: what happened is told by
/// [`crate::Cgroup::oom_kills`].
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl OomWatch {
    /// Version 1: an eventfd registered with `cgroup.event_control`.
    pub(crate) fn v1(memory: &Dir) -> Result<Self, CgroupError> {
        let control = memory.open_file("memory.oom_control", OFlag::O_RDONLY)?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| CgroupError::io("make an eventfd for", &memory.path, errno))?;
        let registration = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        memory.write("cgroup.event_control", &registration)?;
        Ok(Self { fd: event.into() })
    }

    /// Version 2: the kernel reports changes of `memory.events` to inotify.
    pub(crate) fn v2(group: &Dir) -> Result<Self, CgroupError> {
        let path = group.path.join("memory.events");
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| CgroupError::io("watch", &path, errno))?;
        watch
            .add_watch(&path, AddWatchFlags::IN_MODIFY)
            .map_err(|errno| CgroupError::io("watch", &path, errno))?;
        Ok(Self { fd: watch.into() })
    }

    /// Acknowledges: reads the descriptor empty, so that poll waits again.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn drain(&self) -> Result<(), CgroupError> {
        let mut buffer = [0u8; 1024];
        loop {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(CgroupError::io("read", "memory events", errno)),
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
