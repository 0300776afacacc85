//! What Docker gives a container for which nothing was said.

mod capabilities;
mod docker;
mod profile;

pub use capabilities::{CapabilityError, DEFAULT_CAPABILITIES, all_capabilities, capabilities};
pub use docker::{
    DEFAULT_PATH, DEFAULT_SHM_SIZE, DockerSpec, MASKED_PATHS, NamespaceMode, READONLY_PATHS, Seccomp,
    docker_spec,
};
pub use profile::{docker_seccomp, load_docker_profile};
