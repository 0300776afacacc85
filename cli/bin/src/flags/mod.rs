//! Command-line values to wire types: pure, one flag family a file.

pub(crate) mod container;
pub(crate) mod content_trust;
pub(crate) mod environment;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod platform;
pub(crate) mod port;
pub(crate) mod resources;
