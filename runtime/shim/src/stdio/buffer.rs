//! Bytes on their way to a descriptor that does not take them yet.

use std::{
    collections::VecDeque,
    io::IoSlice,
    os::fd::{AsFd, OwnedFd},
};

use nix::{errno::Errno, sys::uio::writev};

/// More than this is not kept allocated for a stream that is idle.
const KEEP: usize = 4096;

/// Write as much of the queue as the descriptor takes. `Ok(true)`: all of it.
pub(crate) fn write_some(fd: &OwnedFd, queue: &mut VecDeque<u8>) -> Result<bool, Errno> {
    while !queue.is_empty() {
        let (front, back) = queue.as_slices();
        match writev(fd.as_fd(), &[IoSlice::new(front), IoSlice::new(back)]) {
            Ok(written) => drop(queue.drain(..written)),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    if queue.capacity() > KEEP {
        queue.shrink_to(KEEP);
    }
    Ok(true)
}
