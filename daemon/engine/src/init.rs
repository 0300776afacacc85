//! The init process of `--init`: laid down once per daemon, bind-mounted into the containers that want it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::containers::Definition;
use crate::engine::Engine;
use crate::error::{IoContext as _, Result};

/// Where a container finds it; docker's place.
pub(crate) const INSIDE: &str = "/sbin/docker-init";

const NAME: &str = "docker-init";

/// Lays the program down below the state's root, which, unlike /run, programs can be run from.
pub(crate) fn install(root: &Path) -> Result<()> {
    let path = root.join(NAME);
    if std::fs::read(&path).is_ok_and(|there| there == berth_init::PROGRAM) {
        return Ok(());
    }
    // Containers of an earlier daemon may be running the old one: it is replaced, not overwritten.
    let new = root.join(format!("{NAME}.new"));
    std::fs::write(&new, berth_init::PROGRAM).during("write", &new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).during("make executable", &new)?;
    std::fs::rename(&new, &path).during("replace", &path)
}

impl Engine {
    /// The init program for this container, if it gets one. In another's pid namespace it would be no init.
    pub(crate) fn init_of(&self, definition: &Definition) -> Option<PathBuf> {
        let host = &definition.host;
        let wanted = host.init.unwrap_or(self.config.init) && host.pid_mode.is_empty();
        wanted.then(|| self.config.root.join(NAME))
    }
}
