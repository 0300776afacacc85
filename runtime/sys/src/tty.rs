//! Pseudo-terminals inside a given devpts, window sizes, the controlling terminal (`pty(7)`, `ioctl_tty(2)`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// Our side.
    pub master: OwnedFd,
    /// The program's side.
    pub slave: OwnedFd,
    /// Number below `/dev/pts`.
    pub index: u32,
}

/// Opens a pseudo-terminal of the devpts instance whose root directory is `devpts`.
///
/// The slave is opened by `TIOCGPTPEER`, so that no path in the container is looked up.
///
/// # Errors
/// See `ioctl_tty(2)`.
pub fn open_in(devpts: BorrowedFd<'_>) -> Result<Pty, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = openat(devpts, "ptmx", flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlock)) };
    Errno::result(ret)?;
    let mut index: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int, which lives across the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, std::ptr::from_mut(&mut index)) };
    Errno::result(ret)?;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let slave = crate::own_fd(ret.into())?;
    Ok(Pty { master, slave, index })
}

/// Output is passed on as it is: no carriage return is put before a newline (`ONLCR`, termios(3)). For a terminal
/// whose output goes to another terminal, which does that itself.
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn keep_newlines(tty: impl AsFd) -> Result<(), Errno> {
    let mut modes = tcgetattr(&tty)?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(&tty, SetArg::TCSANOW, &modes)
}

/// Sets the window size.
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn set_size(tty: impl AsFd, rows: u16, cols: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = tty.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, std::ptr::from_ref(&size)) };
    Errno::result(ret).map(drop)
}

/// The window size as (rows, columns).
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn size(tty: impl AsFd) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = tty.as_fd().as_raw_fd();
    // SAFETY: TIOCGWINSZ writes one winsize, which lives across the call.
    let ret = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, std::ptr::from_mut(&mut size)) };
    Errno::result(ret).map(|_| (size.ws_row, size.ws_col))
}

/// Makes the terminal the controlling terminal of the calling session leader.
///
/// # Errors
/// `EPERM` if the caller leads no session or has a terminal already.
pub fn set_controlling(tty: impl AsFd) -> Result<(), Errno> {
    let steal: libc::c_int = 0;
    // SAFETY: TIOCSCTTY takes an integer by value.
    let ret = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSCTTY, steal) };
    Errno::result(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_a_pair_in_a_private_devpts() {
        let fs = crate::mountfd::FsContext::open("devpts").unwrap();
        fs.set_string("ptmxmode", "0666").unwrap();
        fs.create().unwrap();
        let devpts = fs.mount(0).unwrap();
        let pty = open_in(devpts.as_fd()).unwrap();
        assert_eq!(pty.index, 0, "a new devpts instance counts from zero");
        set_size(&pty.master, 33, 99).unwrap();
        assert_eq!(size(&pty.slave), Ok((33, 99)));
        nix::unistd::write(&pty.slave, b"hi").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(nix::unistd::read(&pty.master, &mut buffer), Ok(2));
    }
}
