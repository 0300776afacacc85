//! The container's log: docker's json-file format, or Kubernetes'.

mod escape;
mod file;
mod lines;

pub(crate) use file::{Format, Log};
