//! The harness of the end-to-end suites: private daemons, command lines, base images, a registry.
//!
//! Everything here is real: the built binaries, the docker CLI, Debian's dockerd and docker-registry.
//! A harness object takes away what it made when it is dropped, and fails the test if it cannot.

pub mod base;
pub mod buildkit;
pub mod cgroups;
pub mod cli;
pub mod containerd;
pub mod daemon;
pub mod dockerd;
pub mod host;
pub mod matrix;
pub mod namespaces;
pub mod podman;
pub mod project;
pub mod registry;
pub mod scene;
pub mod vm;

/// How long whatever must happen may take: long enough for a machine that does many other things at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
