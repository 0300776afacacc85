//! Bytes on their way: read from a descriptor, or waiting for one that does not take them yet.

use std::{
    collections::VecDeque,
    io::IoSlice,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, OwnedFd},
};

use nix::{errno::Errno, sys::uio::writev};

/// More than this is not kept allocated for a stream that is idle.
const KEEP: usize = 4096;

/// What is read goes here first. Large reads are worth their memory only as long as there is so much to read.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<u8>);

/// A pipe's own size.
const SMALL: usize = 64 << 10;
/// A quarter of a widened pipe: while it is put away the process fills the rest.
const LARGE: usize = 256 << 10;

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(vec![0; SMALL])
    }

    /// One read has brought so many bytes.
    pub(crate) fn was_used(&mut self, length: usize) {
        if length == SMALL && self.0.len() == SMALL {
            self.0 = vec![0; LARGE];
        } else if length <= KEEP && self.0.len() > SMALL {
            *self = Self::new();
        }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

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
