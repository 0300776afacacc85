//! The container's log: docker's json-file format.

mod escape;
mod file;
mod lines;

pub(crate) use file::Log;
