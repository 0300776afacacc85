//! The builder's side of the network: a sandbox for one `RUN` step.

use std::os::fd::BorrowedFd;

use crate::request::NetworkMode;

/// Hands out network sandboxes; implemented by whoever owns the networks.
pub trait Sandboxes: Send + Sync {
    /// Makes (or takes from a pool) a network namespace connected as `mode` says. Blocking.
    fn acquire(&self, mode: &NetworkMode) -> Result<Box<dyn Sandbox>, SandboxError>;
}

/// A network for one step; dropping it releases everything behind it.
pub trait Sandbox: Send {
    /// The namespace; none means that the step shares the host's network.
    fn netns(&self) -> Option<BorrowedFd<'_>>;
    /// Contents of the step's `/etc/hosts`.
    fn hosts(&self) -> String;
    /// Contents of the step's `/etc/resolv.conf`.
    fn resolv_conf(&self) -> String;
}

/// No sandbox could be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SandboxError {
    /// What went wrong, ready for the user.
    pub message: String,
}
