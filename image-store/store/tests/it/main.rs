//! The store from outside. Runs as root: it makes devices, owners and overlay mounts.

mod archives;
mod content;
mod hostile;
mod images;
mod interop;
mod leases;
mod mutations;
mod quota;
mod recovery;
mod snapshots;
mod support;
mod unpack;
