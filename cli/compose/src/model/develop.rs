//! What happens at moments of a container's life, and when files change.

use super::{Always, MaybeCommand, Variables};

record! {
    /// A command at a moment of a container's life.
    Hook {
        /// Command.
        command: MaybeCommand,
        /// User.
        user: String,
        /// All privileges.
        privileged: bool,
        /// Working directory.
        working_dir: String,
        /// Variables.
        environment: Variables,
    }

    /// What `watch` does.
    Develop {
        /// On which changes.
        watch: Vec<Trigger>,
    }

    /// What to do on a change of files.
    Trigger {
        /// Directory or file.
        path: Always<String>,
        /// `sync`, `rebuild`, `restart`, `sync+restart`, `sync+exec`.
        action: Always<String>,
        /// Path in the container.
        target: String,
        /// Command for `sync+exec`.
        exec: Hook,
        /// Which files count.
        include: Vec<String>,
        /// Which files do not.
        ignore: Vec<String>,
        /// Whether to sync before the first change.
        initial_sync: bool,
    }
}
